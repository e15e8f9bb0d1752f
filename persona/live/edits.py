"""Edits of a recipe in memory, with the rules of `set`: one term, or the merge rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from persona.errors import InvalidInput, UnknownName, UsageError
from persona.history.history import History
from persona.history.recipes import filters
from persona.history.recipes.checked import DEFAULT, OverLayers, checked, globs, number
from persona.objects.recipe import Recipe, check_alpha, check_own_density
from persona.objects.rules import Rules


def term_keys(
    alpha: OverLayers,
    density: OverLayers,
    only: str | Sequence[str] | None,
    except_: str | Sequence[str] | None,
    join: str | None,
) -> dict[str, Any]:
    """The keys of a term that a call changes, checked. None keeps a key, "default" removes a density."""
    given: dict[str, Any] = {
        "join": join,
        "only": globs(only, "only"),
        "except_": globs(except_, "except_"),
    }
    if alpha is not None:
        given["alpha"] = checked("alpha", check_alpha, alpha)
    taken_back = isinstance(density, str) and density == DEFAULT
    if density is not None and not taken_back:
        given["density"] = checked("density", check_own_density, density)
    keys = {key: value for key, value in given.items() if value is not None}
    if taken_back:
        keys["density"] = None
    if not keys:
        raise UsageError("nothing to set; give alpha, density, only, except_ or join")
    return keys


def with_term(history: History, recipe: Recipe, name: str, keys: Mapping[str, Any]) -> Recipe:
    """The recipe with other keys of one term. Raises `UnknownName` if it has no term of that name."""
    if name not in recipe.by_name:
        there = ", ".join(recipe.by_name) or "none"
        raise UnknownName(f"the model holds no vector named {name!r:.80}; it holds: {there}")
    terms = [replace(term, **keys) if term.name == name else term for term in recipe.terms]
    edited = Recipe.of(recipe.base, terms, recipe.rules)
    for _, key, problem in filters.problems(edited, lambda: history.base_of(edited), recipe):
        raise InvalidInput(problem, parameter="except_" if key == "except" else key)
    return edited


def with_rules(recipe: Recipe, axes: Mapping[str, str | float]) -> Recipe:
    """The recipe with other merge rules. A preset brings its own axes, except λ and the density."""
    if not axes:
        raise UsageError('nothing to set; give axes, such as {"density": 0.2} or {"preset": "linear"}')
    given: dict[str, Any] = {axis: number(value) for axis, value in axes.items()}
    rules = recipe.rules
    kept: dict[str, Any] = {"lambda": rules.lambda_, **rules.changed_axes()}
    if "preset" in given:
        wanted = Rules.of(given["preset"])
        kept = {"lambda": rules.lambda_}
        if wanted.density is not None and rules.density is not None:
            kept["density"] = rules.density
    named = {"preset": rules.preset, **kept, **given}
    return Recipe.of(recipe.base, recipe.terms, Rules.of(**named))
