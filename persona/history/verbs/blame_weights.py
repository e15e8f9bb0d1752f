"""`blame --weights`: the vectors that decide the weights of one tensor."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Unpack

from persona.codec.floats import in_default_environment
from persona.errors import UnknownName, quoted
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.options import MemoryOptions
from persona.history.planning import plan_of
from persona.history.recipes.views import shown
from persona.history.results import Result
from persona.history.worktree import text_files

if TYPE_CHECKING:
    from persona.measure.decisions import Bands, Decisions
    from persona.merge.plan import Plan


@dataclass(frozen=True, repr=False)
class OutvotedRows(Result):
    """A run of rows of a tensor, from 0, and at how many of its weights a vector was outvoted."""

    first: int
    last: int
    outvoted: int
    weights: int


@dataclass(frozen=True, repr=False)
class Decided(Result):
    """One vector at the weights of one tensor: how many it changes, keeps after trim, and has a part in.

    `decided`: weights whose change has its largest part from this vector. `outvoted`: weights that the vector
    pulls and that the election takes the other way, or that only another vector moves. `share`: its part of
    the change of the tensor, Σ|part| against that of all vectors; None if nothing changes. `outvoted_by`:
    name → at how many of the outvoted weights that vector decides. `rows`: the runs of rows in which it is
    outvoted most often, the most first.
    """

    name: str
    id: str
    alpha: float | tuple[float, ...]
    changes: int
    kept: int
    joined: int
    decided: int
    outvoted: int
    share: float | None
    outvoted_by: dict[str, int]
    rows: tuple[OutvotedRows, ...]


@dataclass(frozen=True, repr=False)
class WeightsBlame(Result):
    """The vectors of a recipe at one tensor. `revision` is None for `recipe.toml` in the work tree.

    `moved`: weights that some vector moves. `vectors`: those that reach the tensor, in canonical order.
    """

    revision: str | None
    tensor: str
    dtype: str
    shape: tuple[int, ...]
    weights: int
    moved: int
    vectors: tuple[Decided, ...]


LISTED = 3
"""Runs of rows of a vector, at most."""


@in_default_environment
def blame_weights(
    history: History, tensor: str, rev: str | None = None, **options: Unpack[MemoryOptions]
) -> WeightsBlame:
    """The vectors that decide the weights of one tensor, and those that are outvoted there.

    The tensor is merged chunk by chunk, within the memory of a checkout, and not written. Without `rev`, the
    recipe of the work tree. Counts are exact. Raises `UnknownName` for a tensor that the recipe's weights do
    not have, or that is not merged.
    """
    from persona.measure.decisions import Bands, decide

    how = history.in_force(MemoryOptions, options)
    commit = None if rev is None else resolve(history, rev, history.notes)
    recipe = text_files.new_recipe(history).recipe if commit is None else history.recipe_of(commit)
    plan = plan_of(history, recipe)
    one = plan.by_name.get(tensor)
    if one is None or not one.spec.merged:
        raise _unknown(plan, tensor)
    found = decide(plan, one, threads=how["threads"], memory=how["memory"], progress=how["progress"])
    bands = Bands.of(one.spec.shape, one.spec.elements)
    return WeightsBlame(
        revision=commit,
        tensor=tensor,
        dtype=one.spec.dtype,
        shape=one.spec.shape,
        weights=one.spec.elements,
        moved=int(found.decided.sum()),
        vectors=tuple(_decided(plan, found, bands, k) for k in one.terms),
    )


def _decided(plan: Plan, found: Decisions, bands: Bands, k: int) -> Decided:
    terms = plan.recipe.terms
    total = float(found.size.sum())
    by = {terms[j].name: int(count) for j, count in enumerate(found.by[k]) if count}
    return Decided(
        name=terms[k].name,
        id=terms[k].vector,
        alpha=shown(terms[k].alpha),
        changes=int(found.changes[k]),
        kept=int(found.kept[k]),
        joined=int(found.joined[k]),
        decided=int(found.decided[k]),
        outvoted=int(found.outvoted[k]),
        share=float(found.size[k]) / total if total else None,
        outvoted_by=dict(sorted(by.items(), key=lambda item: -item[1])),
        rows=_rows(found, bands, k),
    )


def _rows(found: Decisions, bands: Bands, k: int) -> tuple[OutvotedRows, ...]:
    counts = found.bands[k].tolist()
    most = sorted((band for band, count in enumerate(counts) if count), key=lambda band: -counts[band])
    rows = []
    for band in most[:LISTED]:
        first = band * bands.length
        last = min(first + bands.length, bands.rows) - 1
        rows.append(OutvotedRows(first, last, counts[band], (last - first + 1) * bands.row))
    return tuple(rows)


def _unknown(plan: Plan, name: str) -> UnknownName:
    """The error for a tensor that has no votes."""
    if name in plan.by_name:
        return UnknownName(f"{name} is of dtype {plan.by_name[name].spec.dtype}, which no vector changes")
    names = [spec.name for spec in plan.base.tensors if spec.merged]
    inside = [one for one in names if name in one][:3] or get_close_matches(name, names, 3, 0.5)
    hint = f"did you mean {' or '.join(inside)}?" if inside else f"the first is {names[0]}" if names else None
    return UnknownName(f"no tensor is named {quoted(name)}", hint=hint)
