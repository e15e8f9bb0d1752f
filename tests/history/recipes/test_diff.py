"""The difference of two recipes: a vector is the same under another name."""

from __future__ import annotations

from persona.history.recipes.diff import diff_recipes
from persona.history.results import TermChange
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import Rules

ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64


def changes(before: list[Term], after: list[Term]) -> dict[tuple[str, str], tuple[object, object]]:
    """Name and change of each term that differs, with the values before and after."""
    sides = (Recipe.of("b" * 64, terms, Rules.of()) for terms in (before, after))
    found: list[TermChange] = diff_recipes(*sides)[1]
    return {(one.name, one.change): (one.from_, one.to) for one in found}


def test_a_renamed_vector_has_its_names_and_the_keys_that_differ() -> None:
    before = [Term("a", ONE), Term("b", TWO)]
    assert changes(before, [Term("old", ONE, "0.5"), Term("b", TWO)]) == {
        ("old", "renamed"): ({"name": "a", "alpha": 1.0}, {"name": "old", "alpha": 0.5})
    }
    assert changes(before, [Term("b", ONE), Term("a", TWO)]) == {
        ("b", "renamed"): ({"name": "a"}, {"name": "b"}),
        ("a", "renamed"): ({"name": "b"}, {"name": "a"}),
    }


def test_a_vector_that_has_the_name_of_an_old_one_is_added_or_replaces_it() -> None:
    before = [Term("a", ONE)]
    found = changes(before, [Term("old", ONE), Term("a", THREE)])
    assert found.keys() == {("old", "renamed"), ("a", "added")}
    assert changes(before, [Term("a", THREE)]) == {("a", "changed"): ({"id": ONE}, {"id": THREE})}
    found = changes([Term("a", ONE), Term("b", TWO)], [Term("a", TWO)])
    assert found.keys() == {("a", "renamed"), ("a", "removed")}
