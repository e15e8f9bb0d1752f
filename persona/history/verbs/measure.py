"""`diff --weights` and `vector show`: how a change moves weights, by layer and kind of module.

A row is one kind of module in one layer, or one module outside the layers. All sizes are Euclidean norms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final, Unpack

from persona.codec.floats import in_default_environment
from persona.errors import InvalidInput
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.names import sides
from persona.history.options import MemoryOptions, WorkOptions
from persona.history.planning import plan_of
from persona.history.query_results import VectorInfo
from persona.history.recipes.views import shown
from persona.history.results import UNPRINTED, Result, as_json
from persona.history.scores import Scores, readable
from persona.history.vectors import cache, lookup
from persona.history.vectors.trimmed import density_of
from persona.history.worktree import text_files
from persona.objects.ids import abbreviate
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import Rules

if TYPE_CHECKING:
    from persona.measure.compare import Comparison
    from persona.measure.elections import Election
    from persona.measure.layers import Position
from persona.history.vectors.counting import Size, lone_recipe, measured, size_from

TYPICAL: Final = (0.1, 0.2, 0.5)
"""Densities that a vector's statistics show, beside its own."""


@dataclass(frozen=True, repr=False)
class Pair(Result):
    """Two vectors. `cosine`: of their changes, before trim and α (None if one changes nothing).

    `shared_fraction`: the fraction of the weights that both pull. `conflict_fraction`: the fraction of those
    that they pull in opposite directions (None if they share none).
    """

    vectors: tuple[str, str]
    cosine: float | None
    shared_fraction: float
    conflict_fraction: float | None


@dataclass(frozen=True, repr=False)
class Row(Result):
    """One kind of module of one layer; `stack` and `layer` are None outside the layers.

    `lost_fraction`: the part of the mass Σ|α·u| of all vectors in this row that loses the election.
    """

    stack: str | None
    layer: int | None
    module: str
    size: Size
    lost_fraction: float | None = None
    pairs: tuple[Pair, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As a row of `diff --weights`."""
        return {**self.plain_json(), "lost_fraction": self.lost_fraction, "pairs": self.pairs}

    def plain_json(self) -> dict[str, Any]:
        """As a row of `vector show`."""
        return {"stack": self.stack, "layer": self.layer, "module": self.module, **as_json(self.size)}


@dataclass(frozen=True, repr=False)
class Share(Result):
    """One vector in a recipe. `kept_fraction`: the fraction of the weights that trim leaves of it.

    `mass_fraction`: its part of the mass of all vectors. `lost_fraction`: the part of its own mass that loses
    the election.
    """

    name: str
    id: str
    alpha: float | tuple[float, ...]
    kept_fraction: float
    mass_fraction: float | None
    lost_fraction: float | None


@dataclass(frozen=True, repr=False)
class WeightsDiff(Result):
    """The difference between the weights of two recipes. `vectors` and `pairs` are of the second.

    `unmatched`: tensors that only one of them has, or that differ in dtype or shape; they are left out. If
    vectors of the second grow a tensor, its new rows count as zeros in the first.
    `not_finite`: the number of weights that changed and are not finite.
    """

    size: Size
    lost_fraction: float | None
    vectors: tuple[Share, ...]
    pairs: tuple[Pair, ...]
    layers: tuple[Row, ...]
    unmatched: tuple[str, ...]
    not_finite: int
    modules: tuple[Row, ...] = field(default=(), metadata=UNPRINTED)
    """By kind of module, all layers together."""
    depths: tuple[Row, ...] = field(default=(), metadata=UNPRINTED)
    """By layer, all kinds together; modules outside the layers one by one."""

    def to_json(self) -> dict[str, Any]:
        """The value of "weights" in the JSON of `diff`."""
        return {
            **as_json(self.size),
            "lost_fraction": self.lost_fraction,
            "vectors": self.vectors,
            "pairs": self.pairs,
            "layers": self.layers,
            "unmatched": self.unmatched,
            "not_finite": self.not_finite,
        }


@dataclass(frozen=True, repr=False)
class VectorStatistics(Result):
    """A vector by layer and kind of module, and the fractions that a few densities keep.

    `kept` has (density, fraction of the weights), the vector's own density among them, trimmed as
    `recipe.toml` says, or tensor by tensor. `provenance`: the notes on its origin. `scores`: what `verify`
    measured of the vector alone.
    """

    info: VectorInfo
    size: Size
    layers: tuple[Row, ...]
    kept: tuple[tuple[float, float], ...]
    provenance: tuple[dict[str, Any], ...]
    scores: Scores | None = None
    modules: tuple[Row, ...] = field(default=(), metadata=UNPRINTED)
    depths: tuple[Row, ...] = field(default=(), metadata=UNPRINTED)

    def to_json(self) -> dict[str, Any]:
        """The keys of `vector ls`, and more: `scores` only if the vector was measured alone."""
        return {
            **as_json(self.info),
            **({} if self.scores is None else {"scores": self.scores}),
            "relative_size": self.size.relative_size,
            "kept": [{"density": density, "kept_fraction": fraction} for density, fraction in self.kept],
            "provenance": self.provenance,
            "layers": [row.plain_json() for row in self.layers],
        }


@in_default_environment
def weights_diff(
    history: History,
    a: str | None = None,
    b: str | None = None,
    **options: Unpack[MemoryOptions],
) -> WeightsDiff:
    """The difference between the weights of the two sides of `diff`, by layer and kind of module.

    It also says how the vectors of the second side pull against each other. Both weights are computed,
    neither is written.
    """
    from persona.measure.compare import comparable, compare

    how = history.in_force(MemoryOptions, options)
    before, after = sides.sides(history, a, b, history.notes)
    new = _recipe(history, after)
    old = Recipe.of(new.base, [], new.rules) if before is None else history.recipe_of(before)
    plans = plan_of(history, old), plan_of(history, new)
    matched = {spec.name for spec in comparable(*plans)}
    floats = {spec.name for plan in plans for spec in plan.base.tensors if spec.merged}
    found = list(compare(*plans, threads=how["threads"], memory=how["memory"], progress=how["progress"]))
    rows = _rows(found, new.terms)
    return WeightsDiff(
        size=rows.whole.size,
        lost_fraction=rows.whole.lost_fraction,
        vectors=_shares(found, new.terms, rows.whole.size.elements),
        pairs=rows.whole.pairs,
        layers=rows.places,
        unmatched=tuple(sorted(floats - matched, key=str.encode)),
        not_finite=sum(one.tally.not_finite for one in found),
        modules=rows.modules,
        depths=rows.depths,
    )


@in_default_environment
def vector_statistics(history: History, name: str, **options: Unpack[WorkOptions]) -> VectorStatistics:
    """The changes of a vector, by layer and kind of module. `name` as for `repo.vectors[name]`."""
    from persona.cores import thread_count
    from persona.merge.trim.cutoffs import kept_fraction

    recipe = _recipe(history, None)
    id = lookup.id_of(history, name)
    base_id = lookup.base_of(history, history.vector(id), recipe)
    if base_id is None:
        raise InvalidInput(
            f"vector {abbreviate(id)}: its base is not in this repository, so it cannot be measured"
        )
    how = history.in_force(WorkOptions, options)
    found = measured(history, id, base_id, how["threads"], how["progress"])
    rows = _rows(found, ())
    size = rows.whole.size
    cache.remember(history, id, size.changed_fraction, size.l2)
    rules = recipe.rules if recipe.rules.trim in ("tensor", "global") else Rules.of("ties")
    trimmed = plan_of(history, lone_recipe(id, base_id, rules))
    workers = thread_count(how["threads"])
    own = [density_of(recipe, term) for term in recipe.terms if term.vector == id]
    used = {number for one in own for number in (one if isinstance(one, tuple) else (one,))} - {1.0}
    densities = sorted({*TYPICAL, *used})
    kept = [(density, kept_fraction(trimmed, id, density, threads=workers)) for density in densities]
    info = lookup.named(history, name)
    origin = lookup.provenance(history, id)
    alone = readable(history, id, history.notes)
    return VectorStatistics(info, size, rows.places, tuple(kept), origin, alone, rows.modules, rows.depths)


def _recipe(history: History, revision: str | None) -> Recipe:
    """The recipe of a commit; None stands for `recipe.toml` as it is."""
    if revision is not None:
        return history.recipe_of(revision)
    return text_files.new_recipe(history).recipe


# -- rows ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """The rows by place, by kind of module, by layer, and all in one."""

    places: tuple[Row, ...]
    modules: tuple[Row, ...]
    depths: tuple[Row, ...]
    whole: Row


def _rows(found: Sequence[Comparison], terms: Sequence[Term]) -> Rows:
    from persona.measure.layers import Position, positions

    where = positions(one.spec.name for one in found)

    def grouped(key: Callable[[Position], Position]) -> tuple[Row, ...]:
        groups: dict[Position, list[Comparison]] = {}
        for one in ordered:
            groups.setdefault(key(where[one.spec.name]), []).append(one)
        return tuple(_row(place, group, terms) for place, group in groups.items())

    ordered = sorted(found, key=lambda one: where[one.spec.name].order())
    return Rows(
        places=grouped(lambda place: place),
        modules=grouped(lambda place: Position(place.stack, None, place.module)),
        depths=grouped(
            lambda place: place if place.layer is None else Position(place.stack, place.layer, "")
        ),
        whole=_row(Position(None, None, ""), found, terms),
    )


def _row(place: Position, group: Sequence[Comparison], terms: Sequence[Term]) -> Row:
    from persona.measure.compare import Tally
    from persona.measure.elections import Election

    tally, election = Tally(), Election(len(terms))
    for one in group:
        tally.add(one.tally)
        if terms:
            election.add(one.election)
    return Row(
        place.stack,
        place.layer,
        place.module,
        size_from(tally, len(group)),
        _fraction(float(election.lost.sum()), float(election.mass.sum())),
        tuple(_pairs(election, terms, tally.elements)),
    )


def _shares(found: Iterable[Comparison], terms: Sequence[Term], elements: int) -> tuple[Share, ...]:
    from persona.measure.elections import Election

    election = Election(len(terms))
    for one in found:
        election.add(one.election)
    mass = float(election.mass.sum())
    return tuple(
        Share(
            name=term.name,
            id=term.vector,
            alpha=shown(term.alpha),
            kept_fraction=int(election.kept[k]) / max(1, elements),
            mass_fraction=_fraction(float(election.mass[k]), mass),
            lost_fraction=_fraction(float(election.lost[k]), float(election.mass[k])),
        )
        for k, term in enumerate(terms)
    )


def _pairs(election: Election, terms: Sequence[Term], elements: int) -> Iterable[Pair]:
    if not election.shared.size:
        return
    for j, k in combinations(range(len(terms)), 2):
        shared, opposed = int(election.shared[j, k]), int(election.opposed[j, k])
        lengths = math.sqrt(election.squares[j]) * math.sqrt(election.squares[k])
        yield Pair(
            vectors=(terms[j].name, terms[k].name),
            cosine=_fraction(float(election.products[j, k]), lengths),
            shared_fraction=shared / max(1, elements),
            conflict_fraction=opposed / shared if shared else None,
        )


def _fraction(part: float, whole: float) -> float | None:
    """part ÷ whole; None if that is not a number."""
    found = part / whole if whole else math.nan
    return found if math.isfinite(found) else None
