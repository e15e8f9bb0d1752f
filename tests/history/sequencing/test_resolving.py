"""A strategy that is given at a stop decides as it would have decided from the start."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona.history.recipes.conflicts import Decisions
from persona.history.recipes.three_way import merge_recipes, merged_with
from persona.history.sequencing.resolving import with_decisions
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import Rules

MANY = settings(max_examples=max(200, settings().max_examples))
TERMS = st.builds(
    Term,
    name=st.sampled_from("abcd"),
    vector=st.sampled_from([digit * 64 for digit in "1234"]),
    alpha=st.sampled_from("123"),
)
RECIPES = st.lists(TERMS, max_size=4, unique_by=lambda term: term.name).map(
    lambda terms: Recipe.of("b" * 64, terms, Rules.of())
)


def strengths(recipe: Recipe) -> Counter[tuple[str, object]]:
    """The vectors of a recipe with their strengths, without their names."""
    return Counter((term.vector, term.alpha) for term in recipe.terms)


@pytest.mark.parametrize("strategy", ["ours", "theirs"])
@MANY
@given(RECIPES, RECIPES, RECIPES)
def test_a_strategy_at_a_stop_gives_each_vector_the_strength_that_it_gives_from_the_start(
    strategy: Literal["ours", "theirs"], base: Recipe, theirs: Recipe, ours: Recipe
) -> None:
    wanted, _ = merge_recipes(base, theirs, ours, strategy)
    decisions = Decisions()
    stopped = merged_with(base, theirs, ours, decisions)
    assert stopped is not None
    assert wanted is not None
    found, keys = with_decisions(stopped, decisions.found, strategy)
    assert Counter(keys) == Counter(one.key for one in decisions.found)
    assert strengths(found) == strengths(wanted)
    if strategy == "ours":
        assert found == wanted


def test_a_vector_that_comes_takes_its_name_from_one_that_goes_or_has_it_since() -> None:
    base, theirs, ours = (
        Recipe.of("b" * 64, [Term(name, vector * 64, alpha) for name, vector, alpha in terms], Rules.of())
        for terms in (
            [("a", "1", "1"), ("b", "2", "1")],
            [("a", "1", "1"), ("b", "2", "3")],
            [("b", "1", "1")],
        )
    )
    decisions = Decisions()
    stopped = merged_with(base, theirs, ours, decisions)
    assert stopped == ours
    found, _ = with_decisions(ours, decisions.found, "theirs")
    assert {term.name: term.vector[0] for term in found.terms} == {"b": "2", "b-2": "1"}
