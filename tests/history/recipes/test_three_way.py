"""A merge of three sides of files, without a repository: edits where they go together, else conflicts."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from persona.errors import InvalidInput
from persona.history.recipes import text as recipe_text
from persona.history.recipes.conflicts import Strategy
from persona.history.recipes.three_way import Conflict, Merged, Names, Side, merge_files
from persona.objects.ids import object_id
from persona.objects.recipe import Recipe

BASE, ONE, TWO = "b" * 64, "1" * 64, "2" * 64
RECIPE = "recipe.toml"
FIRST = (
    f'base = "tiny"\n\n[merge]\npreset = "ties"\ndensity = 1.0\n\n[vectors.one]\nid = "{ONE}"\nalpha = 1.0\n'
)


def read_recipe(data: bytes) -> Recipe:
    """The recipe of a text, in which every id is whole and the base has one name."""
    return recipe_text.parse(data, base=lambda _: BASE, vector=lambda id: id)


NAMES = Names(read_recipe, lambda _: "tiny")


def side(files: Mapping[str, str | bytes]) -> Side:
    """A side that holds these files."""
    held = {path: each if isinstance(each, bytes) else each.encode() for path, each in files.items()}
    ids = {path: object_id("blob", data) for path, data in held.items()}
    return Side(ids, held.__getitem__, lambda: read_recipe(held[RECIPE]))


def merged(
    base: Mapping[str, str | bytes], theirs: Mapping[str, str | bytes], ours: Mapping[str, str | bytes]
) -> Merged:
    """The change from `base` to `theirs`, made to ours."""
    return merge_files(side(base), side(theirs), side(ours), NAMES)


def test_a_change_that_ours_has_not_touched_comes_whole() -> None:
    base = {"a": "one\n", "b": "gone\n", "c": "same\n", RECIPE: FIRST}
    theirs = {"a": b"\xff\x00", "d": "new\n", "c": "same\n", RECIPE: FIRST.replace("1.0", "0.5")}
    found = merged(base, theirs, {**base, "c": "mine\n"})
    edits = {"a": b"\xff\x00", "b": None, "d": b"new\n", RECIPE: theirs[RECIPE].encode()}  # type: ignore[union-attr]
    assert (found.edits, found.conflicts, list(found.edits)[-1]) == (edits, (), RECIPE)


def test_a_change_and_its_way_back_leave_ours_as_it_was() -> None:
    base, theirs = {"a": "1\n2\n3\n4\n5\n", RECIPE: FIRST}, {"a": "1\n2\n3\n4\nfive\n", RECIPE: FIRST}
    ours = {"a": "one\n2\n3\n4\n5\n", RECIPE: FIRST + "# mine\n"}
    there = merged(base, theirs, ours)
    assert there.edits == {"a": b"one\n2\n3\n4\nfive\n"}
    back = merged(theirs, base, {**ours, **there.edits})  # type: ignore[dict-item]
    assert back.edits == {"a": ours["a"].encode()}


def test_the_recipe_is_merged_by_values_and_keeps_the_comments_of_both() -> None:
    theirs = FIRST.replace("density = 1.0", "density = 0.2  # trim")
    ours = FIRST.replace("alpha = 1.0", "alpha = 0.5") + f'\n# of ours\n[vectors.two]\nid = "{TWO}"\n'
    data = merged({RECIPE: FIRST}, {RECIPE: theirs}, {RECIPE: ours}).edits[RECIPE]
    assert data is not None
    recipe = read_recipe(data)
    assert recipe.rules.axes()["density"] == "0.2"
    assert {name: term.alpha for name, term in recipe.by_name.items()} == {"one": "0.5", "two": "1"}
    assert re.findall("# .*", data.decode()) == ["# trim", "# of ours"]


@pytest.mark.parametrize(
    ("base", "theirs", "ours", "expected"),
    [
        (
            {RECIPE: FIRST},
            {RECIPE: FIRST.replace("alpha = 1.0", "alpha = 0.5")},
            {RECIPE: FIRST.replace("alpha = 1.0", "alpha = 2.0")},
            Conflict(RECIPE, "vectors.one.alpha", "1", "0.5", "2", vector=ONE),
        ),
        (
            {RECIPE: FIRST},
            {RECIPE: FIRST.replace("density = 1.0", "density = 0.5")},
            {RECIPE: FIRST.replace("density = 1.0", "density = 0.2")},
            Conflict(RECIPE, "merge.density", "1", "0.5", "0.2"),
        ),
        (
            {"a": "one\n"},
            {"a": "two\n"},
            {},
            Conflict(
                "a", "", object_id("blob", b"one\n"), object_id("blob", b"two\n"), None, problem="presence"
            ),
        ),
        ({"a": "one\n"}, {"a": "two\n"}, {"a": "three\n"}, Conflict("a", problem="lines")),
        ({"a": "one\n"}, {"a": "two\n"}, {"a": b"\xff"}, Conflict("a", problem="binary")),
        (
            {"a.json": '{\n"a": 1,\n\n \n  \n   \n"b": 2\n}\n'},
            {"a.json": '{\n"a": 1\n\n \n  \n   \n}\n'},
            {"a.json": '{\n"a": 1,\n\n \n"c": 3,\n  \n   \n"b": 2\n}\n'},
            Conflict("a.json", problem="json"),
        ),
        (
            {},
            {"a": "a file\n"},
            {"a/b": "in a directory\n"},
            Conflict("a", problem="directory", detail="a/b"),
        ),
    ],
    ids=["alpha", "density", "presence", "lines", "binary", "json", "directory"],
)
def test_what_does_not_go_together_is_a_value(
    base: Mapping[str, str | bytes],
    theirs: Mapping[str, str | bytes],
    ours: Mapping[str, str | bytes],
    expected: Conflict,
) -> None:
    assert merged(base, theirs, ours).conflicts == (expected,)


@pytest.mark.parametrize("strategy", ["ours", "theirs", "mean"])
def test_no_strategy_takes_a_side_of_a_recipe_that_cannot_be_edited(strategy: Strategy) -> None:
    first = [FIRST.replace("alpha = 1.0", f"alpha = {value}") for value in ("1.0", "0.5", "0.2")]
    texts = [first[0], first[1] + 'join = "add"\n', first[2].replace("density = 1.0", "density = 0.5")]

    def read(data: bytes) -> Recipe:
        if data.decode() not in texts:
            raise InvalidInput("no command can edit it")
        return read_recipe(data)

    base, theirs, ours = (side({RECIPE: text}) for text in texts)
    found = merge_files(base, theirs, ours, Names(read, lambda _: "tiny"), strategy=strategy)
    assert [one.problem for one in found.conflicts] == ["style"]
