"""The cut-offs of a plan: found exactly, once, and kept in the cache.

A cut-off belongs to a vector, a scope, a rank and a density (docs/numerics.md, "Trim"); filters and α do not
move it. Under ``tensor`` it is sought for each tensor, under ``global`` over everything that the base merges,
under ``joint`` over the same tensor of every term whose filter admits it. The cut-offs of a vector are kept
in the cache (`densities.CACHE`), with the number of elements that each keeps. ``joint`` cut-offs depend on
the vectors of a recipe and the reach of its filters; the majority sign depends on a whole recipe except for
its names. Each is kept under a digest of what it depends on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from persona.codec.elements import of as element_of
from persona.codec.floats import in_default_environment
from persona.merge.arithmetic import cpu
from persona.merge.plan import Plan, TensorPlan
from persona.merge.rows.reader import Workspaces
from persona.merge.rows.slices import Budget
from persona.merge.rows.source import Source
from persona.merge.rows.stored import RowFilter, StoredRows
from persona.merge.rules import NO_TRIM, MergeRules, cut_rank, joint_rank
from persona.merge.trim.densities import CACHE, CutoffTable, grid_ranks, on_grid
from persona.merge.trim.filters import RowFilters, find_filters
from persona.merge.trim.selection import Magnitudes, Selection
from persona.merge.trim.walk import Found, Walk, for_each_tensor, reached
from persona.merge.workers import in_order
from persona.objects import canonical
from persona.objects.tensors import TensorSpec
from persona.progress import COUNTING_SIGNS, FINDING_CUTOFFS, Progress
from persona.store.values import CacheFile

_FOUND = struct.Struct("<fq")
_UNKNOWN = -1
_GRID_THREADS = 4
"""Tensors whose cut-offs of the grid are sought at a time: 30 to 50 MB of counts each."""

Result = TypeVar("Result")


@dataclass
class Cutoffs:
    """θ for every trimmed term of a plan, by tensor, and the majority sign if the rules ask for it."""

    plan: Plan
    by_vector: dict[tuple[str, float], Mapping[str, float]] = field(default_factory=dict)
    by_tensor: dict[str, Found] = field(default_factory=dict)
    filters: RowFilters | None = None
    majority: int = 0

    def filter(self, spec: TensorSpec, term: int) -> RowFilter | None:
        """The row filter of a term at a tensor: see `Filters`."""
        return None if self.filters is None else self.filters.of(spec, term)

    def theta(self, tensor: TensorPlan, terms: Iterable[int]) -> NDArray[np.float32]:
        """θ of some terms at a tensor, `NO_TRIM` for terms that are never trimmed: float32[terms]."""
        return np.array([self._theta(tensor, index) for index in terms], np.float32)

    def _theta(self, tensor: TensorPlan, index: int) -> float:
        trim, density, name = self.plan.recipe.rules.trim, tensor.density_of[index], tensor.spec.name
        if density == 1.0 or self.filters is not None:
            return NO_TRIM
        if trim == "joint":
            return self.by_tensor[name][0]
        found = self.by_vector[self.plan.sources[index].identity, density]
        return found["" if trim == "global" else name]


@in_default_environment
def cutoffs(
    plan: Plan, tensors: Sequence[TensorPlan], budget: Budget, progress: Progress | None = None
) -> Cutoffs:
    """The cut-offs and signs that the kernels need to merge these tensors.

    Reads chunks only for values that no cache holds, within the memory budget.
    """
    found = Cutoffs(plan)
    rules = plan.recipe.rules
    numbers = MergeRules.of(rules)
    if numbers.needs_majority:
        tensors = plan.tensors  # the sign is decided by all coordinates of the model
    merged = [tensor for tensor in tensors if tensor.way == "merge"]
    if rules.trim == "joint":
        _find_joint(found, merged, budget.threads, progress)
    elif numbers.filters:
        found.filters = find_filters(plan, merged, budget.threads, progress)
    elif rules.trim != "none":
        wanted: dict[str, tuple[Source, dict[float, set[str]]]] = {}
        for tensor in merged:
            for index, density in tensor.density_of.items():
                if density < 1.0:
                    source = plan.sources[index]
                    densities = wanted.setdefault(source.identity, (source, {}))[1]
                    densities.setdefault(density, set()).add(tensor.spec.name)
        for id, (source, densities) in wanted.items():
            grids = {density: _on_grid(plan, source, density) for density in densities}
            missing = [density for density, thetas in grids.items() if thetas is None]
            if rules.trim == "global" and len(missing) > 1:  # a list over layers
                _whole_model(plan, source, missing, budget.threads, progress)
            for density, thetas in grids.items():
                if thetas is None:
                    chosen = _of_vector(plan, source, density, densities[density], budget.threads, progress)
                    thetas = {name: theta for name, (theta, _) in chosen.items()}
                found.by_vector[id, density] = thetas
    if merged and numbers.needs_majority:
        found.majority = _majority(found, numbers, budget, progress)
    return found


@in_default_environment
def kept_fraction(
    plan: Plan, id: str, density: float, *, threads: int, progress: Progress | None = None
) -> float:
    """The fraction of the base's merged elements that a density keeps of a vector, ties included."""
    rules, source = plan.recipe.rules, plan.source_of(id)
    specs = reached(plan, source)
    kept_grid = (
        CutoffTable.read(plan.store, plan.cache_id(source), len(specs))
        if on_grid(density) is not None
        else None
    )
    if kept_grid is not None:
        kept = kept_grid.kept_elements(rules.trim, rules.rank or "", density)
        return kept / max(1, plan.base.merged_elements)
    names = {spec.name for spec in specs}
    found = _of_vector(plan, source, density, names, threads, progress)
    return sum(count for _, count in found.values()) / max(1, plan.base.merged_elements)


@in_default_environment
def prepare(
    plan: Plan,
    id: str,
    magnitudes: Mapping[str, Magnitudes],
    *,
    threads: int,
    progress: Progress | None = None,
) -> None:
    """Finds the cut-offs of one vector for every density of the table, and keeps them.

    `magnitudes`: of its tensors, as its import counted them. The chunks of tensors with too many distinct
    magnitudes are read again.
    """
    source = plan.source_of(id)
    specs = reached(plan, source)
    elements = plan.base.merged_elements
    if all(spec.name in magnitudes for spec in specs):
        found = CutoffTable.of([magnitudes[spec.name] for spec in specs], elements)
    else:
        found = _select_grid(plan, source, magnitudes, threads, progress)
    found.write(plan.store, plan.cache_id(source))


def _select_grid(
    plan: Plan, source: Source, magnitudes: Mapping[str, Magnitudes], threads: int, progress: Progress | None
) -> CutoffTable:
    """The grid of a vector in two passes over the chunks of those tensors that could not be counted."""
    walk = Walk(plan)
    every = reached(plan, source)
    specs = [spec for spec in every if spec.name not in magnitudes]
    nbytes = [spec.nbytes for spec in specs]
    model = Selection(plan.base.merged_elements, grid_ranks(plan.base.merged_elements))
    highs: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for high in _reporting(
        in_order(lambda spec: walk.high(spec, [source]), specs, threads=threads), nbytes, 0, progress
    ):
        model.high += high
        bins = np.flatnonzero(high)
        highs.append((bins, high[bins]))
    for known in magnitudes.values():
        model.add_high(known)
    model.open_bins()
    opened = np.flatnonzero(model.row_of >= 0)

    def select(item: tuple[TensorSpec, tuple[NDArray[np.int64], NDArray[np.int64]]]) -> Selection:
        spec, (bins, counts) = item
        own = Selection(spec.elements, grid_ranks(spec.elements))
        own.high[bins] = counts
        own.open_bins(opened)
        own.low = walk.low(spec, [source], own)
        return own

    cuts = {name: known.cut(grid_ranks(known.elements)) for name, known in magnitudes.items()}
    items = list(zip(specs, highs, strict=True))
    results = in_order(select, items, threads=min(threads, _GRID_THREADS), ahead=0)
    for spec, own in zip(specs, _reporting(results, nbytes, sum(nbytes), progress), strict=True):
        model.low += own.low[own.row_of[opened]]
        cuts[spec.name] = own.cut()
    for known in magnitudes.values():
        model.add_low(known)
    return CutoffTable.of_cuts([*(cuts[spec.name] for spec in every), model.cut()])


def _reporting(
    results: Iterator[Result], nbytes: list[int], before: int, progress: Progress | None
) -> Iterator[Result]:
    """`results`, with progress over two passes."""
    done = before
    for result, size in zip(results, nbytes, strict=True):
        done += size
        if progress:
            progress(FINDING_CUTOFFS, done, 2 * sum(nbytes))
        yield result


def _on_grid(plan: Plan, source: Source, density: float) -> Mapping[str, float] | None:
    """The cut-offs of one vector from its grid, by tensor name, or under "" for the whole model."""
    rules = plan.recipe.rules
    if on_grid(density) is None:
        return None
    specs = reached(plan, source)
    kept = CutoffTable.read(plan.store, plan.cache_id(source), len(specs))
    if kept is None:
        return None
    if rules.trim == "global":
        return {"": kept.model(rules.rank or "", density)}
    return kept.tensors(specs, rules.rank or "", density)


def _of_vector(
    plan: Plan, source: Source, density: float, names: set[str], threads: int, progress: Progress | None
) -> dict[str, Found]:
    """The cut-offs of one vector by tensor name, or under "" for the whole model."""
    rank = plan.recipe.rules.rank or ""
    if plan.recipe.rules.trim == "global":
        return {"": _whole_model(plan, source, [density], threads, progress)[density]}
    cache = _cache_of(plan, source, density)
    keys = [spec.name for spec in reached(plan, source)]
    found = _decode(cache.read(), keys)
    missing = [plan.by_name[name] for name in sorted(names - found.keys())]
    if missing:

        def select(tensor: TensorPlan, walk: Walk) -> Found:
            rank_of = cut_rank(rank, density, tensor.spec.elements)
            return walk.select(tensor.spec, [source], tensor.spec.elements, rank_of)

        found.update(for_each_tensor(plan, missing, select, threads, progress))
        cache.write(_encode(found, keys))
    return found


def _cache_of(plan: Plan, source: Source, density: float) -> CacheFile:
    """The cache of the cut-offs of one vector at a density."""
    rules = plan.recipe.rules
    id = plan.cache_id(source)[:32]
    return plan.store.cache(f"{CACHE}/{id}-{rules.trim}-{rules.rank or ''}-{density.hex()}")


def _whole_model(
    plan: Plan, source: Source, densities: Sequence[float], threads: int, progress: Progress | None
) -> dict[float, Found]:
    """The cut-offs of one vector over all that the base merges, by density.

    All that no cache holds are found together, in two passes over the vector.
    """
    caches = {density: _cache_of(plan, source, density) for density in densities}
    kept = {density: _decode(cache.read(), [""]) for density, cache in caches.items()}
    found = {density: values[""] for density, values in kept.items() if values}
    missing = [density for density in densities if density not in found]
    if missing:
        elements, rank = plan.base.merged_elements, plan.recipe.rules.rank or ""
        ranks = [cut_rank(rank, density, elements) for density in missing]
        cuts = _whole(plan, source, ranks, threads, progress)
        for density, cut in zip(missing, cuts, strict=True):
            found[density] = cut
            caches[density].write(_encode({"": cut}, [""]))
    return found


def _find_joint(found: Cutoffs, tensors: list[TensorPlan], threads: int, progress: Progress | None) -> None:
    plan = found.plan
    density = float(plan.recipe.rules.density or "1")
    wanted = [tensor for tensor in tensors if min(tensor.densities, default=1.0) < 1.0]
    merged = [tensor for tensor in plan.tensors if tensor.terms]
    stacks = [
        [tensor.spec.name, tensor.admitted, [source.identity for source in _stack(plan, tensor)]]
        for tensor in merged
    ]
    seed = canonical.encode([plan.base.digest, density.hex(), stacks])
    cache = plan.store.cache(f"{CACHE}/joint-{blake3(seed).hexdigest()[:32]}")
    keys = [tensor.spec.name for tensor in merged]
    found.by_tensor = _decode(cache.read(), keys)
    missing = [tensor for tensor in wanted if tensor.spec.name not in found.by_tensor]
    if missing:

        def select(tensor: TensorPlan, walk: Walk) -> Found:
            elements = tensor.admitted * tensor.spec.elements
            return walk.select(tensor.spec, _stack(plan, tensor), elements, joint_rank(density, elements))

        found.by_tensor.update(for_each_tensor(plan, missing, select, threads, progress))
        cache.write(_encode(found.by_tensor, keys))


def _stack(plan: Plan, tensor: TensorPlan) -> list[Source]:
    """The sources of the terms that reach a tensor, sorted, so that no α moves one."""
    return sorted((plan.sources[index] for index in tensor.terms), key=lambda source: source.identity)


def _majority(found: Cutoffs, rules: MergeRules, budget: Budget, progress: Progress | None) -> int:
    """Σ sign(e) over all coordinates of the model, an exact integer."""
    plan = found.plan
    seed = blake3("".join(tensor.key for tensor in plan.tensors).encode()).hexdigest()[:32]
    cache = plan.store.cache(f"{CACHE}/majority-{seed}")
    if (data := cache.read()) is not None and len(data) == 8:
        return int.from_bytes(data, "little", signed=True)
    rows = StoredRows(plan.rows, budget, Workspaces(plan.base.tensors, plan.base.chunk), found.filter)
    wanted = [tensor for tensor in plan.tensors if tensor.terms]
    total, done, majority = sum(tensor.spec.nbytes for tensor in wanted), 0, 0
    signs = in_order(partial(_signs, rows, found, rules), wanted, threads=budget.threads, ahead=64)
    for tensor, sum_ in zip(wanted, signs, strict=True):
        majority += sum_
        done += tensor.spec.nbytes
        if progress:
            progress(COUNTING_SIGNS, done, total)
    cache.write(majority.to_bytes(8, "little", signed=True))
    return majority


def _signs(rows: StoredRows, cuts: Cutoffs, rules: MergeRules, tensor: TensorPlan) -> int:
    """Σ sign(e) over one tensor, of the terms that vote."""
    plan, total, code = cuts.plan, 0, element_of(tensor.spec.dtype).code
    votes = [index for index in tensor.terms if plan.recipe.terms[index].join == "vote"]
    for index in range(plan.chunks(tensor)):
        for part in rows.parts(tensor.spec, votes, index) or ():
            theta = cuts.theta(tensor, part.present)
            alpha = np.array([tensor.alpha_of[term] for term in part.present], np.float32)
            total += cpu.sum_of_signs(part, theta, alpha, rules, code)
    return total


def _whole(
    plan: Plan, source: Source, ranks: list[int], threads: int, progress: Progress | None
) -> list[Found]:
    """The cut-off of one vector over all that the base merges, for each rank."""
    walk = Walk(plan)
    selection = Selection(plan.base.merged_elements, ranks)
    specs = sorted(reached(plan, source), key=lambda spec: -spec.elements)
    nbytes = [spec.nbytes for spec in specs]
    highs = in_order(lambda spec: walk.high(spec, [source]), specs, threads=threads)
    for high in _reporting(highs, nbytes, 0, progress):
        selection.high += high
    if selection.open_bins():
        lows = in_order(lambda spec: walk.low(spec, [source], selection), specs, threads=threads)
        for low in _reporting(lows, nbytes, sum(nbytes), progress):
            selection.low += low
    return [(float(theta), int(kept)) for theta, kept in zip(*selection.cut(), strict=True)]


def _encode(found: dict[str, Found], keys: list[str]) -> bytes:
    return b"".join(_FOUND.pack(*found.get(key, (NO_TRIM, _UNKNOWN))) for key in keys)


def _decode(data: bytes | None, keys: list[str]) -> dict[str, Found]:
    if data is None or len(data) != len(keys) * _FOUND.size:
        return {}
    values = _FOUND.iter_unpack(data)
    return {key: (theta, kept) for key, (theta, kept) in zip(keys, values, strict=True) if kept != _UNKNOWN}
