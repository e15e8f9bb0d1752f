"""The fraction of each vector that its density keeps, if it was counted at import. Reads no chunk.

Many magnitudes of bf16 vectors tie at the cut-off, and all of them are kept. So the kept fraction is not the
density.
"""

from __future__ import annotations

from persona.codec.floats import in_default_environment
from persona.history.history import History
from persona.history.recipes.views import shown
from persona.history.results import KeptFraction
from persona.objects.recipe import Recipe, Term


def kept_terms(history: History, recipe: Recipe, before: Recipe | None) -> tuple[KeptFraction, ...]:
    """The kept fractions of terms that are trimmed differently than in `before`, in canonical order.

    A term is left out if its fraction is not known.
    """
    old = before.by_name if before else {}
    found: list[KeptFraction] = []
    for term in recipe.terms:
        was = old.get(term.name)
        if before is not None and was is not None and _cut(before, was) == _cut(recipe, term):
            continue
        fraction = kept_fraction(history, recipe, term) if _cut(recipe, term) else None
        if fraction is not None:
            found.append(KeptFraction(term.name, density_of(recipe, term), fraction))
    return tuple(found)


@in_default_environment
def kept_fraction(history: History, recipe: Recipe, term: Term) -> float | None:
    """The fraction of the base's merged elements that trim keeps of a term, ties included.

    None if no cache has it.
    """
    from persona.merge.trim.densities import CutoffTable, on_grid

    density = density_of(recipe, term)
    if (
        recipe.rules.trim not in ("tensor", "global")
        or isinstance(density, tuple)
        or on_grid(density) is None
    ):
        return None
    tensors = len(history.vector(term.vector).tensors)
    grid = CutoffTable.read(history.store, term.vector, tensors)
    if grid is None:
        return None
    kept = grid.kept_elements(recipe.rules.trim, recipe.rules.rank or "", density)
    return kept / max(1, history.base(recipe.base).merged_elements)


@in_default_environment
def density_of(recipe: Recipe, term: Term) -> float | tuple[float, ...]:
    """The density in effect for a term, as binary64; several for a list over layers; 1 if it is added."""
    return shown("1" if term.join == "add" else recipe.density_of(term))


def _cut(recipe: Recipe, term: Term) -> tuple[object, ...] | None:
    """The trim settings that decide which elements of a term are kept; None if all are.

    The densities are canonical decimals, so that equal ones have equal texts.
    """
    if not recipe.trims(term):
        return None
    return term.vector, recipe.rules.trim, recipe.rules.rank, recipe.density_of(term)
