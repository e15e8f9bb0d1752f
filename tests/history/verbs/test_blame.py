"""`blame` names the commit of each value."""

from __future__ import annotations

import pytest

from persona.errors import UnknownName
from persona.history.results import as_json
from tests.history.bots import Bot


def subjects(bot: Bot, rev: str | None, name: str) -> dict[str, str | None]:
    return {key: origin.subject for key, origin in bot.repo.blame(rev).vectors[name].items()}


def test_each_key_has_the_commit_that_set_it(grown: Bot) -> None:
    found = subjects(grown, "HEAD", "listening")
    assert found["alpha"] == "a little less"
    assert {found[key] for key in ("name", "id", "density", "only", "except", "join")} == {
        "listen before answering"
    }
    blame = grown.repo.blame("HEAD")
    assert blame.base.subject == blame.rules["preset"].subject == "Begin with tiny"
    assert blame.vectors["listening"]["alpha"].value == 0.7


def test_value_that_comes_back_belongs_to_the_commit_that_brought_it_back(grown: Bot) -> None:
    grown.repo.recipe.set("listening", alpha="1")
    grown.commit(message="back to 1")
    assert subjects(grown, None, "listening")["alpha"] == "back to 1"


def test_renamed_vector_keeps_the_origins_of_its_other_keys(grown: Bot) -> None:
    before = subjects(grown, "HEAD", "listening")
    grown.repo.recipe.rename("listening", "hearing")
    grown.commit(message="rename")
    assert subjects(grown, "HEAD", "hearing") == {**before, "name": "rename"}


def test_rule_of_a_new_preset_belongs_to_the_commit_of_the_preset(grown: Bot) -> None:
    grown.repo.recipe.set_rules({"preset": "paper"})
    grown.commit(message="as the paper")
    rules = grown.repo.blame().rules
    assert rules["divide"].subject == rules["preset"].subject == "as the paper"
    assert rules["lambda"].subject == "Begin with tiny"


def test_edit_of_the_work_tree_is_not_committed(grown: Bot) -> None:
    grown.repo.recipe.set("listening", density="0.5")
    grown.repo.recipe.rename("suggesting", "advice")
    keys = grown.repo.blame().vectors
    assert keys["listening"]["density"].commit is None
    assert keys["listening"]["alpha"].subject == "a little less"
    assert keys["advice"]["name"].commit is None
    assert keys["advice"]["id"].subject == "suggest less"
    assert grown.repo.blame("HEAD").vectors["listening"]["density"].value is None


def test_one_vector_alone(grown: Bot) -> None:
    found = grown.repo.blame(vector="listening")
    assert (list(found.vectors), found.rules) == (["listening"], {})
    with pytest.raises(UnknownName, match="no vector named 'nothing'; it has"):
        grown.repo.blame(vector="nothing")


def test_json_has_every_key_in_words_of_the_recipe(grown: Bot) -> None:
    found = as_json(grown.repo.blame("HEAD"))
    assert list(found) == ["revision", "base", "rules", "vectors"]
    assert list(found["vectors"]["listening"]) == ["name", "id", "alpha", "density", "only", "except", "join"]
    assert set(found["base"]) == {"value", "commit", "author", "date", "subject"}


def test_weights_of_a_tensor_are_decided_by_its_vectors(grown: Bot) -> None:
    found = grown.repo.blame_weights("model.layers.0.mlp.weight", "HEAD")
    assert (found.shape, found.weights) == ((9, 15), 135)
    assert {one.name for one in found.vectors} == {"listening", "suggesting"}
    assert found.moved == sum(one.decided for one in found.vectors)
    assert sum(one.share or 0 for one in found.vectors) == pytest.approx(1)
    for one in found.vectors:
        assert one.changes == one.kept == one.joined + one.outvoted
        assert sum(run.outvoted for run in one.rows) <= one.outvoted
    moved = grown.checkout("HEAD")["model.layers.0.mlp.weight"] != grown.base["model.layers.0.mlp.weight"]
    assert found.moved >= int(moved.sum())


def test_tensor_that_is_not_there_is_refused_with_names_like_it(grown: Bot) -> None:
    with pytest.raises(UnknownName, match="no tensor is named 'mlp'"):
        grown.repo.blame_weights("mlp")
