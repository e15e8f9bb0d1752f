"""The rows of a plan's terms, decoded from the store, whole chunks or slices of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from persona.codec.delta import exponent_order
from persona.merge.arithmetic.arguments import DecodedChunk
from persona.merge.memory import Budget
from persona.merge.plan import Plan
from persona.merge.rows.reader import ChunkReader, Workspaces
from persona.objects.ids import NULL_ID
from persona.objects.tensors import TensorSpec, chunk_span


class RowSource(Protocol):
    """The source of the rows of a merge. Thread-safe."""

    def parts(
        self, spec: TensorSpec, terms: Sequence[int], index: int, *, cache: bool = True
    ) -> Iterable[DecodedChunk] | None:
        """One chunk of a tensor with the rows of some terms, whole, or in slices if memory is short.

        None if none of the terms changed it. The arrays of a part are only read, and are valid until the next
        part is asked for. `cache`: whether its rows may be kept for the next merge.
        """

    def base(self, spec: TensorSpec, index: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """The base's elements of a chunk: uint[n].

        In `out`, or without it in an array of this thread that devices can copy.
        """


class StoredRows:
    """The rows of a plan's vectors, decoded from the store into the workspaces of the threads."""

    def __init__(self, plan: Plan, budget: Budget, workspaces: Workspaces | None = None) -> None:
        """`workspaces`: shared with another source whose parts no thread uses at the same time."""
        self.plan = plan
        self.budget = budget
        self.reader = ChunkReader(plan.store.objects, plan.base.chunk)
        self.workspaces = workspaces or Workspaces(plan.base.tensors, plan.base.chunk)

    def parts(
        self, spec: TensorSpec, terms: Sequence[int], index: int, *, cache: bool = True
    ) -> Iterable[DecodedChunk] | None:
        """See `RowSource.parts`; nothing is kept."""
        changes = self.changes(spec, terms, index)
        if not changes:
            return None
        length = self._length(spec, terms, index)
        rows = self.workspaces.get(spec).rows(len(terms), length)[: len(changes)]
        if length < self._size(spec, index):
            return self._slices(spec, changes, index, rows)
        for row, delta in zip(rows, changes.values(), strict=True):
            self.reader.delta(spec, delta, self._base_id(spec, index), index, row)
        return (self._ordered(spec, index, list(changes), rows),)

    def base(self, spec: TensorSpec, index: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """See `RowSource.base`."""
        if out is None:
            out = self.workspaces.get(spec).sorted_base
        return self.reader.base(spec, self._base_id(spec, index), index, out)

    def changes(self, spec: TensorSpec, terms: Sequence[int], index: int) -> dict[int, str]:
        """The terms that changed a chunk, each with the id of its differences there."""
        plan = self.plan
        ids = {term: plan.tables[plan.recipe.terms[term].vector].chunk(spec.name, index) for term in terms}
        return {term: id for term, id in ids.items() if id != NULL_ID}

    def fits(self, spec: TensorSpec, terms: Sequence[int], index: int) -> bool:
        """Whether the budget holds the rows of a whole chunk."""
        return self._length(spec, terms, index) == self._size(spec, index)

    def _length(self, spec: TensorSpec, terms: Sequence[int], index: int) -> int:
        return self.budget.slice(self._size(spec, index), spec.unit, len(terms))

    def _size(self, spec: TensorSpec, index: int) -> int:
        start, stop = chunk_span(spec, index, self.plan.base.chunk)
        return stop - start

    def _base_id(self, spec: TensorSpec, index: int) -> str:
        return self.plan.base_table.chunk(spec.name, index)

    def _slices(
        self, spec: TensorSpec, changes: Mapping[int, str], index: int, rows: NDArray[Any]
    ) -> Iterator[DecodedChunk]:
        """The chunk in slices of its exponent order, as long as `rows`.

        Every vector is decoded again for each slice.
        """
        size, length, space = self._size(spec, index), rows.shape[1], self.workspaces.get(spec)
        whole: DecodedChunk | None = None
        for start in range(0, size, length):
            stop = min(start + length, size)
            for row, delta in zip(rows, changes.values(), strict=True):
                self.reader.delta(spec, delta, self._base_id(spec, index), index, space.other[:size])
                row[: stop - start] = space.other[start:stop]
            if whole is None:
                whole = self._ordered(spec, index, list(changes), rows)
            yield DecodedChunk(whole.present, whole.sorted_base[start:stop], rows, whole.order[start:stop])

    def _ordered(self, spec: TensorSpec, index: int, present: list[int], rows: NDArray[Any]) -> DecodedChunk:
        space = self.workspaces.get(spec)
        base = self.reader.base(spec, self._base_id(spec, index), index, space.base)
        order, sorted_base = space.order[: base.size], space.sorted_base[: base.size]
        exponent_order(base, spec.dtype, order, sorted_base)
        return DecodedChunk(present, sorted_base, rows, order)
