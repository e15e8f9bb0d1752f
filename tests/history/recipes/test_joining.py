"""How a vector joins the others if nobody says so: one that is subtracted does not vote."""

from __future__ import annotations

from typing import Any

import pytest

from tests.history.bots import Bot, advised


def join(bot: Bot, name: str) -> str:
    return bot.repo.recipe[name].join


def test_a_vector_that_comes_with_a_negative_alpha_does_not_vote(grown: Bot) -> None:
    made = grown.commit(grown.tune("waffle", 5), alpha=-0.8)
    assert 'join = "add"' in grown.recipe.read_text()
    assert join(grown, "waffle") == "add"
    said = [note for note in made.notes if "does not vote" in note]
    assert said == ['waffle is subtracted, so it does not vote (join = "add")']
    assert "recipe.set('waffle', join='vote')" in advised(said[0])

    derived = grown.repo.vectors.derive("less", "2 * waffle", alpha=-1)
    assert join(grown, "less") == "add"
    assert sum("does not vote" in note for note in derived.notes) == 1


def test_a_vector_that_is_added_to_the_result_is_said_to_be_kept_whole(grown: Bot) -> None:
    grown.repo.recipe.set_rules({"density": 0.2})
    (change,) = grown.repo.add(grown.tune("waffle", 5), alpha=-0.8).vectors
    assert (change.density, change.kept_fraction) == (1.0, change.changed_fraction)


def test_a_vector_that_is_added_votes(grown: Bot) -> None:
    made = grown.commit(grown.tune("waffle", 5), alpha=0.8)
    assert join(grown, "waffle") == "vote"
    assert not any("does not vote" in note for note in made.notes)


def test_set_leaves_the_join_and_says_that_a_subtraction_can_be_outvoted(grown: Bot) -> None:
    edited = grown.repo.recipe.set("listening", alpha=-0.5)
    assert join(grown, "listening") == "vote"
    assert edited.notes == ("listening is subtracted by vote, and the others can outvote it",)
    assert "recipe.set('listening', join='add')" in advised(edited.notes[0])

    grown.repo.recipe.set("listening", join="add")  # as the note says
    assert grown.repo.recipe.set("listening", alpha=-0.7).notes == ()
    assert grown.repo.recipe.set("listening", alpha=0.7).notes == ()
    assert grown.repo.recipe.set("listening", alpha=-0.7).notes == ()
    assert join(grown, "listening") == "add"


def test_set_says_nothing_where_nobody_outvotes_a_subtraction(grown: Bot) -> None:
    grown.repo.recipe.set("suggesting", join="add")  # so listening is the only one that votes
    assert grown.repo.recipe.set("listening", alpha=-0.5).notes == ()
    grown.repo.recipe.set("suggesting", join="vote")
    grown.repo.recipe.set("listening", alpha=0.5)
    grown.repo.recipe.set_rules({"preset": "linear"})
    assert grown.repo.recipe.set("listening", alpha=-0.5).notes == ()


def test_a_new_vector_in_the_place_of_another_keeps_its_join(grown: Bot) -> None:
    grown.commit(grown.tune("other", 7), name="suggesting", alpha=-0.9, replace=True)
    assert join(grown, "suggesting") == "vote"


@pytest.mark.parametrize(
    ("alpha", "wanted"),
    [([-1, 0], "add"), ([-1, -0.5], "add"), ([-1, 1], "vote"), ([0, 0], "vote"), (0, "vote"), (-0.0, "vote")],
)
def test_a_subtraction_is_below_0_in_some_layer_and_above_it_in_none(
    grown: Bot, alpha: Any, wanted: str
) -> None:
    grown.repo.vectors.derive("other", "2 * listening", alpha=alpha)
    assert join(grown, "other") == wanted


def test_a_vector_with_a_density_of_its_own_votes(grown: Bot) -> None:
    grown.repo.vectors.derive("other", "2 * listening", alpha=-0.5, density=0.1)
    assert join(grown, "other") == "vote"


def test_rules_without_an_election_have_no_vote_to_stay_away_from(grown: Bot) -> None:
    grown.repo.recipe.set_rules({"preset": "linear"})
    grown.repo.vectors.derive("other", "2 * listening", alpha=-0.5)
    assert join(grown, "other") == "vote"


def test_a_text_without_a_join_votes_whatever_its_alpha(grown: Bot) -> None:
    grown.edit(lambda text: text.replace("alpha = 0.7", "alpha = -0.7"))
    assert join(grown, "listening") == "vote"
    grown.commit()
    assert grown.repo["HEAD"].recipe.vectors["listening"].join == "vote"


def test_set_mends_a_text_that_cannot_be_read(grown: Bot) -> None:
    grown.edit(lambda text: text.replace("alpha = 0.7", 'alpha = "much"'))
    grown.repo.recipe.set("listening", alpha=-0.5)
    assert grown.repo.recipe["listening"].alpha == -0.5
