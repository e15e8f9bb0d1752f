"""What an import changed: the vector as the results of `add` and `commit` show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona.history.history import History
from persona.history.options import ImportOptions
from persona.history.recipes.views import shown
from persona.history.results import VectorChange
from persona.history.vectors import lookup
from persona.history.vectors.trimmed import density_of
from persona.objects.recipe import Recipe

if TYPE_CHECKING:
    from persona.intake.encode import ImportedVector


def change_of(
    history: History,
    recipe: Recipe,
    name: str,
    made: ImportedVector,
    new_bytes: int,
    previous: str | None,
    options: ImportOptions,
) -> VectorChange:
    """The change that gives the term `name` an imported vector. `previous`: the id that it had before."""
    term = recipe.by_name[name]
    density = density_of(recipe, term)
    kept: float | None = made.changed_fraction
    if recipe.trims(term) and (recipe.rules.trim not in ("tensor", "global") or isinstance(density, tuple)):
        kept = None  # cut together with others, row by row, or at a density of its own in every layer
    elif recipe.trims(term):
        assert isinstance(density, float)
        kept = _kept_fraction(history, recipe, made.id, density, options)
    return VectorChange(
        name=name,
        id=made.id,
        change="added" if previous is None else "replaced",
        alpha=shown(term.alpha),
        stored_bytes=made.stored_bytes,
        raw_bytes=made.raw_bytes,
        changed_fraction=made.changed_fraction,
        kept_fraction=kept,
        largest_rounding=made.largest_rounding,
        new_bytes=new_bytes,
        ranks=made.vector.ranks,
        tensors=len(made.vector.tensors) if made.vector.ranks else None,
        unchanged=lookup.unchanged_kinds(history, made.id, recipe.base),
        left=made.left,
        renamed=dict(made.renamed),
        grown=dict(made.vector.grown),
        previous=previous,
        density=density,
        only=term.only,
        except_=term.except_,
    )


def _kept_fraction(
    history: History, recipe: Recipe, id: str, density: float, options: ImportOptions
) -> float:
    from persona.cores import thread_count
    from persona.history.planning import plan_of
    from persona.merge.trim.cutoffs import kept_fraction

    plan = plan_of(history, recipe)
    return kept_fraction(
        plan, id, density, threads=thread_count(options["threads"]), progress=options["progress"]
    )
