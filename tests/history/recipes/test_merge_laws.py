"""Laws of a three-way merge of recipes, for any three recipes."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from persona.errors import InvalidInput
from persona.history.recipes.three_way import Conflict, merge_recipes
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import Rules

BASE = "b" * 64
VECTORS = [digit * 64 for digit in "1234"]
TERMS = st.builds(
    Term,
    name=st.sampled_from("abc"),
    vector=st.sampled_from(VECTORS),
    alpha=st.sampled_from(["1", "0.5", "-0.25"]),
    density=st.sampled_from([None, "0.5"]),
    only=st.sampled_from([(), ("*mlp*",)]),
    join=st.sampled_from(["vote", "add"]),
)
RULES = st.builds(
    Rules.of,
    st.sampled_from(["ties", "paper"]),
    **{"density": st.sampled_from(["1", "0.5"]), "lambda": st.sampled_from(["1", "0.9"])},
)
CHANGES = st.sampled_from(["alpha", "alpha", "alpha", "density", "name", "join", "remove", "add", "rules"])
MANY = settings(max_examples=max(200, settings().max_examples))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """A recipe of up to two vectors."""
    terms = draw(st.lists(TERMS, max_size=2, unique_by=(lambda t: t.name, lambda t: t.vector)))
    return Recipe.of(BASE, terms, draw(RULES))


@st.composite
def sides(draw: st.DrawFn) -> tuple[Recipe, Recipe, Recipe]:
    """A recipe, and two that came from it by a few changes each."""
    base = draw(recipes())
    one, other = (changed(draw, base) for _ in range(2))
    return base, one, other


def changed(draw: st.DrawFn, recipe: Recipe) -> Recipe:
    """A recipe after one to three changes. A change that gives no recipe is left out."""
    for change in draw(st.lists(CHANGES, min_size=1, max_size=3)):
        terms, rules, new = list(recipe.terms), recipe.rules, draw(TERMS)
        if change == "rules":
            rules = draw(RULES)
        elif change == "add":
            terms.append(new)
        elif terms:
            at = draw(st.integers(0, len(terms) - 1))
            term = terms.pop(at)
            if change != "remove":
                terms.insert(at, replace(term, **{change: getattr(new, change)}))
        try:
            recipe = Recipe.of(BASE, terms, rules)
        except InvalidInput:
            continue
    return recipe


def places(conflicts: list[Conflict]) -> set[str]:
    """What a user is asked about."""
    return {conflict.key.split(".")[0] for conflict in conflicts}


@MANY
@given(sides())
def test_a_merge_does_not_depend_on_which_side_is_ours(given: tuple[Recipe, Recipe, Recipe]) -> None:
    base, one, other = given
    here, found = merge_recipes(base, one, other)
    there, opposite = merge_recipes(base, other, one)
    assert here == there
    assert places(found) == places(opposite)
    assert (here is None) == bool(found)


@given(recipes(), recipes())
def test_a_merge_with_a_side_that_changed_nothing_is_the_other_side(base: Recipe, other: Recipe) -> None:
    assert merge_recipes(base, base, other) == (other, [])
    assert merge_recipes(base, other, base) == (other, [])
    assert merge_recipes(base, other, other) == (other, [])


@MANY
@given(sides())
def test_each_value_comes_from_the_side_that_changed_it(given: tuple[Recipe, Recipe, Recipe]) -> None:
    named = {(term.name, term.vector) for recipe in given for term in recipe.terms}
    assume(len({name for name, _ in named}) == len(named))  # else a vector may go by its name
    assume(all(len({term.vector for term in recipe.terms}) == len(recipe.terms) for recipe in given))
    merged, conflicts = merge_recipes(*given)
    base, theirs, ours = map(flat, given)
    keys = {**base, **theirs, **ours}
    if merged is None:
        clash = any(len({side.get(key) for side in (base, theirs, ours)}) == 3 for key in keys)
        assert clash or any(conflict.problem == "together" for conflict in conflicts)
        return
    for key in keys:
        came = ours if theirs.get(key) == base.get(key) else theirs
        assert flat(merged).get(key) == came.get(key)
        assert ours.get(key) in (base.get(key), came.get(key))


def flat(recipe: Recipe) -> dict[tuple[str, ...], object]:
    """Every value of a recipe by itself. A vector goes by its id; it is there or it is not."""
    found: dict[tuple[str, ...], object] = {
        ("merge", axis): value for axis, value in recipe.rules.axes().items()
    }
    for term in recipe.terms:
        values = {field: getattr(term, field) for field in ("name", "alpha", "density", "only", "join")}
        found |= {(term.vector, field): (value,) for field, value in values.items()}
    return found
