"""**tally** — how much one tensor differs between two recipes.

It is counted chunk by chunk on all cores, in a few chunks of memory for each thread. Counts are exact
integers. Sums are binary64 over blocks. Blocks, chunks and tensors are added in order, so no result depends
on the number of threads. Elements that are not finite are left out of sums.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.codec.floats import DefaultEnvironment, in_default_environment
from persona.cores import thread_count
from persona.errors import InvalidInput
from persona.frozen import dataclass
from persona.measure.elections import BLOCK, ChunkVotes, Election, Scratch, scratch_bytes
from persona.merge.arithmetic.casts import widen32
from persona.merge.memory import budget_of
from persona.merge.plan import Plan, TensorPlan
from persona.merge.rows.reader import Workspaces
from persona.merge.rows.slices import Budget
from persona.merge.rows.stored import StoredRows
from persona.merge.run.merger import Merger
from persona.merge.trim.cutoffs import cutoffs
from persona.merge.workers import first_run, in_order
from persona.objects.dtypes import uint
from persona.objects.growth import extends
from persona.objects.tensors import TensorSpec, chunk_span
from persona.progress import COMPARING, Progress


@dataclass
class Tally:
    """Elements; how many have other bits; Σ (after − before)²; Σ before²; how many turned not finite."""

    elements: int = 0
    changed: int = 0
    change: float = 0.0
    before: float = 0.0
    not_finite: int = 0

    def add(self, other: Tally) -> None:
        """Adds the counts and sums of other elements."""
        self.elements += other.elements
        self.changed += other.changed
        self.change += other.change
        self.before += other.before
        self.not_finite += other.not_finite


@dataclass(frozen=True)
class Comparison:
    """One float tensor, from one recipe to another, and the election that the other one holds in it."""

    spec: TensorSpec
    tally: Tally
    election: Election


def comparable(before: Plan, after: Plan) -> list[TensorSpec]:
    """The float tensors of `after` that can be compared, in byte order of names.

    `before` has them with the same dtype and shape, or `after` grows them (`objects.growth`): then the new
    rows were zeros before, and a tensor with an origin had its elements.
    """
    return [spec for spec in after.base.tensors if spec.merged and _before(before, after, spec) is not None]


def _before(before: Plan, after: Plan, spec: TensorSpec) -> TensorPlan | None:
    """The tensor that `before` has for one of `after`."""
    name = spec.name
    found = before.by_name.get(name) or before.by_name.get(after.origins.get(name) or "")
    if found is None or found.spec.dtype != spec.dtype:
        return None
    shape = found.spec.shape
    return found if shape == spec.shape or (name in after.origins and extends(shape, spec.shape)) else None


def compare(
    before: Plan,
    after: Plan,
    *,
    elections: bool = True,
    threads: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Comparison]:
    """The tally and the election of every tensor of `comparable`, in its order.

    The elections are of `after`; without `elections` they have no term. `memory`: bytes for chunks, see
    `persona.merge.memory`; no sum depends on it. Weights that are not finite are counted, not refused. Raises
    `InvalidInput` for bases whose chunks have different lengths, `UsageError` for too little memory, and the
    errors of reading the store.
    """
    if before.base.chunk != after.base.chunk:
        raise InvalidInput(
            "the two bases are stored in chunks of different lengths; import one of them again"
        )
    specs = comparable(before, after)
    total, done = sum(spec.nbytes for spec in specs), 0
    with first_run(progress) as progress:
        counter = _Counter(before, after, specs, elections, thread_count(threads), memory, progress)
        spans = [(spec, index) for spec in specs for index in range(after.chunks_of(spec))]
        results = in_order(lambda span: counter.chunk(*span), spans, threads=counter.threads)
        for spec in specs:
            made = Comparison(spec, Tally(), counter.election())
            for _ in range(after.chunks_of(spec)):
                tally, election = next(results)
                with DefaultEnvironment():
                    made.tally.add(tally)
                    if election is not None:
                        made.election.add(election)
            done += spec.nbytes
            if progress:
                progress(COMPARING, done, total)
            yield made


class _Scratch:
    """The arrays of one thread for elements of one width."""

    def __init__(self, longest: int, width: int) -> None:
        self.old, self.new = np.empty((2, longest), uint(width))
        self.counting = Scratch(width)


class _Counter:
    """Counts single chunks; called by many threads."""

    @in_default_environment
    def __init__(
        self,
        before: Plan,
        after: Plan,
        specs: list[TensorSpec],
        elections: bool,
        threads: int,
        memory: int | None,
        progress: Progress | None,
    ) -> None:
        self.before, self.after, self.elections = before, after, elections
        self.olds = {spec.name: _before(before, after, spec) or after.by_name[spec.name] for spec in specs}
        same = [self.olds[spec.name].key == after.by_name[spec.name].key for spec in specs]
        self.unchanged = {spec.name for spec, equal in zip(specs, same, strict=True) if equal}
        old = [self.olds[spec.name] for spec in specs if spec.name not in self.unchanged]
        new = [after.by_name[spec.name] for spec in specs]
        beside = scratch_bytes(len(after.recipe.terms) if elections else 1)
        sides = [(before, old), (after, new)]
        budgets = [budget_of(plan, tensors, threads, memory, beside=beside) for plan, tensors in sides]
        self.threads = min(budget.threads for budget in budgets)
        # Shared: a thread is done with the one merger before it begins with the other.
        workspaces = Workspaces(after.base.tensors, after.base.chunk)
        self.old, self.new = (
            _merger(plan, tensors, replace(budget, threads=self.threads), workspaces, progress)
            for (plan, tensors), budget in zip(sides, budgets, strict=True)
        )
        self.longest = min(after.base.chunk, max((spec.units for spec in specs), default=0))
        self._local = threading.local()

    def election(self) -> Election:
        """An empty one."""
        return Election(len(self.after.recipe.terms) if self.elections else 0)

    def chunk(self, spec: TensorSpec, index: int) -> tuple[Tally, Election | None]:
        """The tally and the election of one chunk; no election if no term changes it."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return self._chunk(spec, index)

    def _chunk(self, spec: TensorSpec, index: int) -> tuple[Tally, Election | None]:
        start, stop = chunk_span(spec, index, self.after.base.chunk)
        scratch = self._scratch(spec.unit)
        old, new = scratch.old[: stop - start], scratch.new[: stop - start]
        election = self._after(spec, index, new, scratch.counting)
        if spec.name in self.unchanged:
            return _tally(spec.dtype, new, new, scratch.counting), election
        tensor = self.olds[spec.name]
        size = 0
        if index < self.before.chunks(tensor):
            first, last = chunk_span(tensor.spec, index, self.before.base.chunk)
            size = last - first
            self.old.chunk_into(tensor, index, old[:size])
        old[size:] = 0
        return _tally(spec.dtype, old, new, scratch.counting), election

    def _after(self, spec: TensorSpec, index: int, out: NDArray[Any], scratch: Scratch) -> Election | None:
        """Merges a chunk of the second recipe into `out` and holds its election."""
        tensor, merger = self.after.by_name[spec.name], self.new
        parts = merger.parts(tensor, index)
        if parts is None:
            merger.rows.base(spec, index, out)
            return None
        found = self.election()
        for part in parts:
            merger.merge(tensor, (part,), out)
            if self.elections:
                ChunkVotes.of(tensor, part, merger.rules, merger.cuts).count(found, scratch)
        return found if self.elections else None

    def _scratch(self, width: int) -> _Scratch:
        held: dict[int, _Scratch] | None = getattr(self._local, "held", None)
        if held is None:
            held = self._local.held = {}
        if width not in held:
            held[width] = _Scratch(self.longest, width)
        return held[width]


def _merger(
    plan: Plan, tensors: list[TensorPlan], budget: Budget, workspaces: Workspaces, progress: Progress | None
) -> Merger:
    cuts = cutoffs(plan, tensors, budget, progress)
    return Merger(plan, cuts, StoredRows(plan.rows, budget, workspaces, cuts.filter), budget)


def _tally(dtype: str, old: NDArray[Any], new: NDArray[Any], scratch: Scratch) -> Tally:
    found = Tally(elements=new.size)
    for start in range(0, new.size, BLOCK):
        before_bits, after_bits = old[start : start + BLOCK], new[start : start + BLOCK]
        before = widen32(before_bits, dtype)
        wide = scratch.wide[0, : before.size]
        np.copyto(wide, before)
        found.before += _sum_of_squares(wide)
        changed = 0 if old is new else int(np.count_nonzero(before_bits != after_bits))
        if changed:
            found.changed += changed
            after = widen32(after_bits, dtype)
            np.subtract(after, before, out=wide, dtype=np.float64)
            found.change += _sum_of_squares(wide)
            finite = np.isfinite(after)
            if not finite.all():
                found.not_finite += int(np.count_nonzero(~finite & (before_bits != after_bits)))
    return found


def _sum_of_squares(values: NDArray[np.float64]) -> float:
    """Σ x² over the finite ones; overwrites `values`."""
    np.multiply(values, values, out=values)
    total = float(np.add.reduce(values))
    if not np.isfinite(total):
        values[~np.isfinite(values)] = 0.0
        total = float(np.add.reduce(values))
    return total
