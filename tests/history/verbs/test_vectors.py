"""Vectors of other branches and of the past are listed, and taken over as they are there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from persona.errors import Refused, UnknownName
from tests.history.bots import Bot


@pytest.fixture
def parted(grown: Bot) -> Bot:
    """On main without suggesting; on topic there is calm, at 0.5 and density 0.25 in one layer."""
    grown.repo.switch(create="topic")
    grown.commit(grown.tune("calm", 3), "calmer", alpha="0.5", density="0.25", only="*.mlp.*")
    grown.repo.switch("main")
    grown.repo.recipe.remove("suggesting")
    grown.commit(message="suggest nothing")
    return grown


def test_all_vectors_stand_once_with_the_newest_commit_that_has_them(parted: Bot) -> None:
    found = parted.repo.vectors.all()
    assert [info.name for info in found] == ["listening", "calm", "suggesting"]
    assert [info.in_recipe for info in found] == [True, False, False]
    head, topic = parted.repo.head().id, parted.repo.resolve("topic")
    assert found[0].commit == head
    assert {info.commit for info in found[1:]} == {topic}


def test_vector_that_no_commit_holds_has_no_commit(parted: Bot) -> None:
    parted.repo.add(parted.tune("night", 4))
    assert {info.name: info.commit for info in parted.repo.vectors.all()}["night"] is None


def test_vector_is_taken_with_all_its_keys(parted: Bot) -> None:
    taken = parted.repo.vectors.take("calm", from_="topic")
    assert (taken.change, taken.alpha, taken.subject) == ("added", 0.5, "calmer")
    assert parted.repo.recipe["calm"] == parted.repo["topic"].recipe.vectors["calm"]
    parted.commit(message="calm is here too")


def test_newest_commit_with_the_name_wins(parted: Bot) -> None:
    taken = parted.repo.vectors.take("suggesting")
    assert taken.commit == parted.repo.resolve("topic")
    assert parted.repo.recipe["suggesting"] == parted.repo["topic"].recipe.vectors["suggesting"]


def test_start_of_an_id_is_a_name_too(parted: Bot) -> None:
    id = parted.repo["topic"].recipe.vectors["calm"].id
    assert parted.repo.vectors.take(id[:8]).name == "calm"


def test_term_of_the_recipe_becomes_that_of_the_revision(parted: Bot) -> None:
    parted.repo.recipe.set("listening", alpha="0.1", density="0.5", only="*.mlp.*")
    with pytest.raises(Refused, match="has the vector listening already"):
        parted.repo.vectors.take("listening")
    assert parted.repo.vectors.take("listening", from_="HEAD~1").change == "changed"
    assert parted.repo.recipe["listening"] == parted.repo["HEAD"].recipe.vectors["listening"]
    assert parted.repo.vectors.take("listening", from_="HEAD~1").change == "unchanged"


def test_options_replace_keys(parted: Bot) -> None:
    parted.repo.vectors.take("calm", from_="topic", alpha="-1", density="default")
    there = parted.repo["topic"].recipe.vectors["calm"]
    assert parted.repo.recipe["calm"] == replace(there, alpha=-1.0, density=None)


def test_unknown_names_are_refused(parted: Bot) -> None:
    with pytest.raises(UnknownName, match="no commit has a vector named 'nothing'"):
        parted.repo.vectors.take("nothing")
    with pytest.raises(UnknownName, match="HEAD has no vector named 'calm'; it has: listening"):
        parted.repo.vectors.take("calm", from_="HEAD")
