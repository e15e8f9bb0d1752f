"""Passes over the rows of vectors that count or add their magnitudes, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from persona.codec.elements import of as element_of
from persona.merge.arithmetic import cpu
from persona.merge.arithmetic.filters import MagnitudeSum
from persona.merge.plan import Plan, TensorPlan
from persona.merge.rows.reader import Workspaces
from persona.merge.rows.source import OpenedChunk, Source
from persona.merge.rows.stored import RowFilter
from persona.merge.trim.selection import Selection
from persona.merge.workers import in_order
from persona.objects.tensors import TensorSpec
from persona.progress import FINDING_CUTOFFS, Progress

Result = TypeVar("Result")
Found = tuple[float, int]
"""θ as binary32, and how many elements of its scope it keeps."""


def reached(plan: Plan, source: Source) -> list[TensorSpec]:
    """The tensors that a vector changes, in byte order of names."""
    return [spec for spec in plan.base.tensors if source.reaches(spec.name)]


def for_each_tensor(
    plan: Plan,
    tensors: list[TensorPlan],
    select: Callable[[TensorPlan, Walk], Result],
    threads: int,
    progress: Progress | None,
) -> dict[str, Result]:
    """`select` for each tensor, the largest first, so that no thread is left with it at the end."""
    walk = Walk(plan)
    ordered = sorted(tensors, key=lambda tensor: -tensor.spec.elements)
    total, done = sum(tensor.spec.nbytes for tensor in ordered), 0
    found: dict[str, Result] = {}
    results = in_order(lambda tensor: select(tensor, walk), ordered, threads=threads, ahead=64)
    for tensor, result in zip(ordered, results, strict=True):
        found[tensor.spec.name] = result
        done += tensor.spec.nbytes
        if progress:
            progress(FINDING_CUTOFFS, done, total)
    return found


class Walk:
    """Counts or adds magnitudes over the chunks of a tensor; called by many threads."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.workspaces = Workspaces(plan.base.tensors, plan.base.chunk)

    def select(self, spec: TensorSpec, sources: list[Source], elements: int, rank: int) -> Found:
        """The rank-th largest |t| of some vectors' elements of one tensor, and how many of them are kept."""
        selection = Selection(elements, [rank], high=self.high(spec, sources))
        if selection.open_bins():
            selection.low = self.low(spec, sources, selection)
        return only_cut(selection)

    def high(self, spec: TensorSpec, sources: list[Source]) -> NDArray[np.int64]:
        """Counts of the upper 16 bits of |t|."""
        counts = np.zeros(1 << 16, np.int64)
        code = element_of(spec.dtype).code
        self._each(
            spec,
            sources,
            lambda base, z: cpu.count_high(base, z, code, counts),
            lambda t: cpu.count_numbers_high(t, counts),
        )
        return counts

    def low(self, spec: TensorSpec, sources: list[Source], selection: Selection) -> NDArray[np.int64]:
        """Counts of the lower 16 bits of |t| in the bins that `selection` opened."""
        counts = np.zeros_like(selection.low)
        code = element_of(spec.dtype).code
        self._each(
            spec,
            sources,
            lambda base, z: cpu.count_low(base, z, code, selection.row_of, counts),
            lambda t: cpu.count_numbers_low(t, selection.row_of, counts),
        )
        return counts

    def masses(
        self, spec: TensorSpec, source: Source, row_filter: RowFilter
    ) -> tuple[MagnitudeSum, MagnitudeSum]:
        """Σ|t| of all elements of a tensor, and of those that a filter keeps."""
        every, kept = MagnitudeSum(), MagnitudeSum()
        space = self.workspaces.get(spec)
        for index in range(self.plan.chunks_of(spec)):
            if source.chunk_id(spec, index) is None:
                continue
            chunk = OpenedChunk.open(self.plan.rows.chunks, spec, index, space)
            t = space.numbers(1, chunk.size)[0]
            source.read_numbers(chunk, 0, chunk.size, t)
            every.add(t)
            row_filter.numbers(t, chunk.first)
            kept.add(t)
        return every, kept

    def _each(
        self,
        spec: TensorSpec,
        sources: list[Source],
        steps: Callable[[NDArray[Any], NDArray[Any]], None],
        numbers: Callable[[NDArray[np.float32]], None],
    ) -> None:
        """Counts every row of some sources: steps with the base in their order, or numbers."""
        chunks, space = self.plan.rows.chunks, self.workspaces.get(spec)
        for index in range(self.plan.chunks_of(spec)):
            chunk: OpenedChunk | None = None
            size = chunks.size(spec, index)
            for source in sources:
                if not source.reaches(spec.name) or source.chunk_id(spec, index) is None:
                    continue
                if chunk is None:
                    chunk = OpenedChunk.open(chunks, spec, index, space)
                if source.steps(spec):
                    z = space.rows(1, size)[0]
                    source.read_steps(spec, index, z)
                    steps(chunk.sorted_base, z)
                else:
                    t = space.numbers(1, size)[0]
                    in_order = chunk.sorted() if source.elementwise(spec) else chunk
                    source.read_numbers(in_order, 0, size, t)
                    numbers(t)


def only_cut(selection: Selection) -> Found:
    """The cut-off of a search for one rank."""
    theta, kept = selection.cut()
    return float(theta[0]), int(kept[0])
