"""The plan of a recipe, with the manifests that it needs read from the repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona.history.history import History
from persona.objects.recipe import Recipe

if TYPE_CHECKING:
    from persona.merge.plan import Plan


def plan_of(history: History, recipe: Recipe) -> Plan:
    """The plan of a recipe; no chunk is read. Raises the errors of `merge.plan.plan`."""
    from persona.merge.plan import plan

    base = history.base(recipe.base)
    vectors = {term.vector: history.vector(term.vector) for term in recipe.terms}
    return plan(history.store, recipe, base, vectors)
