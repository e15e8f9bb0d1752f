"""`repo.recipe`, `vectors`, `branches`, `tags` and `config` are mappings that follow the repository."""

from __future__ import annotations

import json

import numpy as np
import pytest

from persona.errors import InvalidInput, UnknownName
from persona.history.act_results import Renamed
from persona.history.results import as_json
from tests.history.bots import Bot


def test_the_recipe_reads_as_recipe_toml_stands(grown: Bot) -> None:
    recipe = grown.repo.recipe
    assert set(recipe) == {"listening", "suggesting"}
    assert len(recipe) == 2
    assert "listening" in recipe
    assert "nobody" not in recipe
    assert recipe["suggesting"].alpha == -0.5
    assert recipe.get("nobody") is None
    assert recipe.rules["preset"] == "ties"
    assert recipe.base == grown.repo["HEAD"].recipe.base
    grown.edit(lambda text: text.replace("-0.5", "-0.25"))
    assert recipe["suggesting"].alpha == -0.25


def test_an_edit_of_the_recipe_shows_in_it_and_commits_nothing(grown: Bot) -> None:
    recipe, head = grown.repo.recipe, grown.repo.resolve()
    recipe.set("listening", alpha=0.25, only="*mlp*")
    recipe.rename("listening", "attentive")
    recipe.set_rules({"density": 0.5})
    assert recipe["attentive"].alpha == 0.25
    assert recipe["attentive"].only == ("*mlp*",)
    assert recipe.rules["density"] == 0.5
    recipe.remove("suggesting", "attentive")
    assert dict(recipe) == {}
    assert grown.repo.resolve() == head


def test_what_is_not_there_is_answered_with_the_near_name(grown: Bot) -> None:
    with pytest.raises(UnknownName, match=r"no vector is named 'listning'; did you mean listening\?"):
        _ = grown.repo.recipe["listning"]
    with pytest.raises(UnknownName, match=r"no branch is named 'mian'; did you mean main\?"):
        _ = grown.repo.branches["mian"]
    with pytest.raises(UnknownName, match="no tag is named 'v1'; there are: none"):
        _ = grown.repo.tags["v1"]
    with pytest.raises(UnknownName, match=r"user\.name is not set"):
        _ = grown.repo.config["user.name"]


def test_branches_are_made_renamed_and_deleted(grown: Bot) -> None:
    branches = grown.repo.branches
    made = branches.create("warm", "HEAD~1")
    assert branches["warm"] == made
    assert (list(branches), len(branches), branches.current) == (["main", "warm"], 2, "main")
    assert branches.rename("warm", "hot") == Renamed("warm", "hot")
    assert branches.delete("hot") == {"hot": made.id}
    assert "hot" not in branches


def test_tags_are_made_and_deleted(grown: Bot) -> None:
    tags = grown.repo.tags
    made = tags.create("v1", message="the first")
    assert dict(tags) == {"v1": made}
    assert made.annotated
    assert list(tags.delete("v1")) == ["v1"]
    assert not tags


def test_vectors_are_found_by_name_and_by_the_start_of_their_ids(grown: Bot) -> None:
    vectors = grown.repo.vectors
    assert list(vectors) == [info.name for info in vectors.values()] == list(grown.repo.recipe)
    info = vectors["listening"]
    assert vectors[info.id[:8]] == info
    assert "listening" in vectors
    assert "nobody" not in vectors


def test_a_kept_vector_is_listed_beside_a_term_of_its_name(grown: Bot) -> None:
    grown.repo.add(grown.tune("late", 5), name="late")
    late = grown.repo.vectors["late"].id
    grown.repo.recipe.remove("late")
    grown.repo.recipe.rename("listening", "late")
    assert list(grown.repo.vectors) == [*grown.repo.recipe, late[:8]]
    assert [info.id for info in grown.repo.vectors.values()][2] == late
    assert grown.repo.vectors[late[:8]].id == late


def test_settings_are_read_set_and_unset(grown: Bot) -> None:
    config = grown.repo.config
    assert config.get("checkout.threads") is None
    assert config.get("checkout.threads", "2") == "2"
    config.set("checkout.threads", "1")
    assert dict(config) == {"checkout.threads": "1"}
    assert config["checkout.threads"] == "1"
    assert "checkout.threads" in config
    with pytest.raises(InvalidInput, match=r"checkout\.threads"):
        config.set("checkout.threads", "many")
    config.unset("checkout.threads")
    assert len(config) == 0


@pytest.mark.parametrize("name", ["recipe", "vectors", "branches", "tags", "config"])
@pytest.mark.parametrize("key", ["nobody.here", "a b", "", None, 3, b"main", ["a"], ("a",)])
def test_a_collection_is_a_mapping_also_for_keys_that_none_can_have(
    grown: Bot, name: str, key: object
) -> None:
    collection = getattr(grown.repo, name)
    assert key not in collection
    if name != "config" or not isinstance(key, str) or "." in key:
        assert collection.get(key, 5) == 5
        with pytest.raises(KeyError):
            collection[key]


def test_what_a_collection_finds_it_holds(grown: Bot) -> None:
    grown.repo.config.set("checkout.threads", "1")
    for collection in (grown.repo.recipe, grown.repo.vectors, grown.repo.branches, grown.repo.config):
        for key, value in collection.items():
            assert key in collection
            assert collection[key] == collection.get(key) == value
    start = grown.repo.vectors["listening"].id[:8]
    assert start in grown.repo.vectors
    assert grown.repo.vectors.get(start) == grown.repo.vectors["listening"]


def test_rules_of_numpy_numbers_are_told_as_plain_numbers(grown: Bot) -> None:
    edited = grown.repo.recipe.set_rules({"density": np.float32(0.5), "preset": "ties"})  # type: ignore[dict-item]
    assert json.dumps(as_json(edited)) == '{"set": {"density": 0.5, "preset": "ties"}}'
