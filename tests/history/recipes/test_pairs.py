"""The comments that stand for a conflict: the text stays a recipe, and each pair can be taken out."""

from __future__ import annotations

import pytest

from persona.history.recipes.conflicts import Conflict
from persona.history.recipes.pairs import pair_lines, standing, with_pairs, with_pairs_renamed, without_pairs
from persona.history.recipes.text import RECIPE_FILE, load
from persona.objects.recipe import Term

ONE = "1" * 64
TEXT = f"""\
base = "tiny"

[merge]
preset = "ties"
density = 1.0

[vectors."a b"]
id = "{ONE}"
alpha = [
    0.0,
    1.0,
]
"""
LABELS = "HEAD", "topic"


def conflict(key: str, ours: object, theirs: object, **more: object) -> Conflict:
    """A conflict about a key."""
    return Conflict(RECIPE_FILE, key, None, theirs, ours, **more)  # type: ignore[arg-type]


CONFLICTS = [
    conflict("base", "tiny", "other"),
    conflict("merge.density", "1", "0.5"),
    conflict("merge.lambda", "1", "0.9"),
    conflict("vectors.a b.alpha", ("0", "1"), "1"),
    conflict("vectors.a b.only", (), ("*mlp*",)),
    conflict("vectors.gone", None, Term("gone", ONE), problem="term"),
]


@pytest.mark.parametrize("one", CONFLICTS, ids=lambda one: one.key)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_pair_leaves_the_meaning_and_goes_without_a_trace(one: Conflict, end: str) -> None:
    text = TEXT.replace("\n", end)
    marked = with_pairs(text, [one], LABELS)
    assert load(marked.replace("\r\n", "\n")) == load(TEXT)
    assert len(pair_lines(marked)) == 2
    assert standing(marked, CONFLICTS) == [one]
    assert load(without_pairs(marked, [one.key]).replace("\r\n", "\n")) == load(TEXT)
    assert pair_lines(without_pairs(marked, [one.key])) == []


def test_all_pairs_stand_beside_each_other_and_go_one_by_one() -> None:
    text = with_pairs(TEXT, CONFLICTS, LABELS)
    left = list(CONFLICTS)
    while left:
        assert standing(text, CONFLICTS) == left
        text = without_pairs(text, [left.pop(0).key])
    assert load(text) == load(TEXT)


def test_a_pair_stands_above_its_line() -> None:
    lines = with_pairs(TEXT, [CONFLICTS[1]], LABELS).splitlines()
    at = lines.index("density = 1.0")
    assert lines[at - 2 : at] == [
        "# <<<<<<< HEAD: merge.density = 1.0",
        "# >>>>>>> topic: merge.density = 0.5",
    ]


def test_half_of_a_pair_stands_as_well() -> None:
    lines = with_pairs(TEXT, [CONFLICTS[1]], LABELS).splitlines(keepends=True)
    half = "".join(line for line in lines if not line.startswith("# <<<"))
    assert standing(half, CONFLICTS) == [CONFLICTS[1]]


def test_the_pair_of_one_vector_is_not_that_of_another_whose_name_begins_alike() -> None:
    text = with_pairs(TEXT, [conflict("vectors.a b.alpha", ("0", "1"), "1")], LABELS)
    assert standing(text, [conflict("vectors.a.alpha", "1", "2"), conflict("vectors.a b.a", "1", "2")]) == []


RENAMED = [
    ("<<<<<<< vectors.a: vectors.a.alpha = 0.5", "<<<<<<< vectors.a: vectors.new.alpha = 0.5"),
    (">>>>>>> x: no vectors.a.only", ">>>>>>> x: no vectors.new.only"),
    ("<<<<<<< HEAD: no vectors.a", "<<<<<<< HEAD: no vectors.new"),
    (">>>>>>> x: vectors.a = { alpha = 0.5 }", ">>>>>>> x: vectors.new = { alpha = 0.5 }"),
    (">>>>>>> x: vectors.a b.alpha = 0.5", ">>>>>>> x: vectors.a b.alpha = 0.5"),
    (">>>>>>> x: vectors.a.b.alpha = 0.5", ">>>>>>> x: vectors.a.b.alpha = 0.5"),
    (">>>>>>> x: vectors.b.alpha = 0.5", ">>>>>>> x: vectors.b.alpha = 0.5"),
]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(("before", "after"), RENAMED)
def test_the_pairs_of_a_renamed_vector_have_its_new_name_and_no_others_have(
    before: str, after: str, end: str
) -> None:
    assert with_pairs_renamed(f"# {before}{end}", "a", "new") == f"# {after}{end}"


def test_a_rename_removes_the_pairs_about_the_name() -> None:
    text = '# <<<<<<< HEAD: no vectors.a.name\n# >>>>>>> x: vectors.a.name = "b"\nalpha = 0.5\n'
    assert with_pairs_renamed(text, "a", "new") == "alpha = 0.5\n"
