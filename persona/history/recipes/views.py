"""Recipes and terms as they are shown: numbers as numbers, whole ids, terms by name in canonical order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from persona.history.results import TermView
from persona.objects.recipe import Recipe, Term, Value
from persona.objects.rules import Rules

if TYPE_CHECKING:
    from persona.history.query_results import RecipeView


def shown(value: Value) -> float | tuple[float, ...]:
    """An α or a density as a number, a list over layers as a tuple of numbers."""
    return tuple(map(float, value)) if isinstance(value, tuple) else float(value)


def term_view(term: Term) -> TermView:
    """A term as it is shown."""
    return TermView(
        id=term.vector,
        alpha=shown(term.alpha),
        density=None if term.density is None else shown(term.density),
        only=term.only,
        except_=term.except_,
        join=term.join,
    )


def term_keys(term: Term) -> dict[str, Any]:
    """The keys of a term as recipe.toml and JSON spell them."""
    view = term_view(term)
    return {
        "id": view.id,
        "alpha": _json(view.alpha),
        "density": _json(view.density),
        "only": _json(view.only),
        "except": _json(view.except_),
        "join": view.join,
    }


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


_AXES: Final[dict[str, Callable[[str], str | float]]] = {
    **dict.fromkeys(("density", "gamma", "epsilon", "lambda"), float),
    "seed": int,
    "rescale": lambda value: {"true": True, "false": False}.get(value, value),
}


def rules_view(rules: Rules) -> dict[str, str | float]:
    """The preset and every axis in use; numbers as numbers, `true` and `false` as truth values."""
    shown: dict[str, str | float] = {"preset": rules.preset}
    for axis, value in rules.axes().items():
        if value is not None:
            shown[axis] = _AXES.get(axis, str)(value)
    return shown


def recipe_view(recipe: Recipe) -> RecipeView:
    """A recipe as it is shown."""
    from persona.history.query_results import RecipeView

    return RecipeView(
        base=recipe.base,
        rules=rules_view(recipe.rules),
        vectors={term.name: term_view(term) for term in recipe.terms},
    )
