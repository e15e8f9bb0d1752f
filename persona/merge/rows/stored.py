"""The rows of a recipe's terms, read from their sources, whole chunks or slices of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from persona.frozen import dataclass
from persona.merge.arithmetic.arguments import DecodedChunk
from persona.merge.rows.reader import Workspaces
from persona.merge.rows.slices import Budget
from persona.merge.rows.source import OpenedChunk
from persona.merge.rows.terms import TermSources
from persona.objects.tensors import TensorSpec


class RowFilter(Protocol):
    """What a trim does to the rows of one term at one tensor, before they are merged. Thread-safe.

    An element that it drops counts as unchanged: its z or t becomes 0.
    """

    @property
    def identity(self) -> str:
        """Decides, with a row, what becomes of it."""

    def steps(
        self, base: NDArray[Any], z: NDArray[Any], first: int, order: NDArray[np.uint32] | None, dtype: str
    ) -> None:
        """Changes a row of steps in place. base, z: uint[n] in one order.

        Position j is element first + order[j] of the tensor, or first + j without an order.
        """

    def numbers(self, t: NDArray[np.float32], first: int) -> None:
        """Changes a row of numbers in place. Position j is element first + j of the tensor."""


Filters = Callable[[TensorSpec, int], RowFilter | None]
"""The filter of a term at a tensor that it reaches, or None if its rows are merged as they are."""


def unfiltered(spec: TensorSpec, term: int) -> RowFilter | None:
    """The `Filters` of a recipe that has none."""
    return None


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


_NO_NUMBERS: Final = np.empty((0, 0), np.float32)


class StoredRows:
    """The rows of a recipe's terms, read from the store into the workspaces of the threads.

    A chunk has exponent order, in which steps are stored, if all of its rows can be read in this order. Else
    it has the order of its elements.
    """

    def __init__(
        self,
        terms: TermSources,
        budget: Budget,
        workspaces: Workspaces,
        filters: Filters = unfiltered,
    ) -> None:
        """`workspaces`: may be shared with another source whose parts no thread uses at the same time."""
        self.terms = terms
        self.budget = budget
        self.chunks = terms.chunks
        self.filters = filters
        self.workspaces = workspaces
        self._known: dict[tuple[str, tuple[int, ...]], tuple[int, bool]] = {}

    def parts(
        self, spec: TensorSpec, terms: Sequence[int], index: int, *, cache: bool = True
    ) -> Iterable[DecodedChunk] | None:
        """See `RowSource.parts`; nothing is kept."""
        present = list(self.changes(spec, terms, index))
        if not present:
            return None
        length = self._length(spec, terms, index)
        whole = length == self.chunks.size(spec, index)
        if self._of(spec, terms)[1] or all(self._is_elementwise(spec, term) for term in present):
            slices = self._exponent_order(spec, present, index, length)
        else:
            chunk = self.open(spec, index)
            slices = (
                self.element_order(chunk, present, start, min(start + length, chunk.size))
                for start in range(0, chunk.size, length)
            )
        return (next(slices),) if whole else slices

    def base(self, spec: TensorSpec, index: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """See `RowSource.base`."""
        if out is None:
            out = self.workspaces.get(spec).sorted_base
        return self.chunks.read(spec, index, out)

    def open(self, spec: TensorSpec, index: int) -> OpenedChunk:
        """A chunk of the base, read into this thread's workspace."""
        return OpenedChunk.open(self.chunks, spec, index, self.workspaces.get(spec))

    def changes(self, spec: TensorSpec, terms: Sequence[int], index: int) -> dict[int, str]:
        """The terms that changed a chunk, each with what decides its row there."""
        found: dict[int, str] = {}
        for term in terms:
            id = self.terms.sources[term].chunk_id(spec, index)
            if id is not None:
                row_filter = self.filters(spec, term)  # equal chunks at two places are filtered differently
                found[term] = id if row_filter is None else f"{id} {index} {row_filter.identity}"
        return found

    def fits(self, spec: TensorSpec, terms: Sequence[int], index: int) -> bool:
        """Whether the budget holds the rows of a whole chunk."""
        return self._length(spec, terms, index) == self.chunks.size(spec, index)

    def element_order(
        self,
        chunk: OpenedChunk,
        present: list[int],
        start: int,
        stop: int,
        kept: Mapping[int, NDArray[Any]] = MappingProxyType({}),
    ) -> DecodedChunk:
        """The elements [start, stop) of a chunk in their own order.

        `kept`: rows of terms that need not be read, each as long.
        """
        rows = self._rows(chunk.spec, present, stop - start)
        for term, out in zip(present, rows.by_term, strict=True):
            if term in kept:
                out[:] = kept[term]
            else:
                self.read(chunk, term, start, stop, out)
        order = self.workspaces.in_order[start:stop]
        return rows.chunk(present, chunk.base[start:stop], order, in_order=True)

    def read(self, chunk: OpenedChunk, term: int, start: int, stop: int, out: NDArray[Any]) -> None:
        """The row of a term for the elements [start, stop) of a chunk in their own order, filtered.

        out: uint[stop − start] for steps, float32[stop − start] for numbers.
        """
        spec, source, first = chunk.spec, self.terms.sources[term], chunk.first + start
        row_filter = self.filters(spec, term)
        if self.terms.steps(spec, term):
            if stop - start == chunk.size:
                chunk.z(source, out)
            else:
                out[:] = chunk.z(source)[start:stop]
            if row_filter is not None:
                row_filter.steps(chunk.base[start:stop], out, first, None, spec.dtype)
        else:
            source.read_numbers(chunk, start, stop, out)
            if row_filter is not None:
                row_filter.numbers(out, first)

    def _length(self, spec: TensorSpec, terms: Sequence[int], index: int) -> int:
        return self.budget.slice(self.chunks.size(spec, index), self._of(spec, terms)[0])

    def _of(self, spec: TensorSpec, terms: Sequence[int]) -> tuple[int, bool]:
        """Bytes of one element of all rows of a tensor, and whether all can be read in exponent order."""
        key = spec.name, tuple(terms)
        found = self._known.get(key)
        if found is None:
            elementwise = all(self._is_elementwise(spec, term) for term in terms)
            found = self._known[key] = self.terms.row_bytes(spec, terms), elementwise
        return found

    def _is_elementwise(self, spec: TensorSpec, term: int) -> bool:
        """Whether the rows of a term at a tensor can be read in exponent order, and filtered there."""
        if self.terms.steps(spec, term):
            return True
        return self.terms.elementwise(spec, term) and self.filters(spec, term) is None

    def _rows(self, spec: TensorSpec, present: Sequence[int], length: int) -> _Rows:
        """This thread's arrays for the rows of some terms."""
        holds_steps = [self.terms.steps(spec, term) for term in present]
        space, count = self.workspaces.get(spec), sum(holds_steps)
        z = space.rows(count, length)
        if count == len(present):
            return _Rows(z, _NO_NUMBERS, None)
        row_of = np.cumsum(holds_steps) - 1
        row_of = np.where(holds_steps, row_of, row_of - np.arange(len(present)))
        return _Rows(z, space.numbers(len(present) - count, length), row_of.astype(np.int32))

    def _exponent_order(
        self, spec: TensorSpec, present: list[int], index: int, length: int
    ) -> Iterator[DecodedChunk]:
        """A chunk in exponent order, whole or in slices; every row is decoded again for each slice."""
        space, size = self.workspaces.get(spec), self.chunks.size(spec, index)
        rows = self._rows(spec, present, length)
        chunk: OpenedChunk | None = None
        for start in range(0, size, length):
            stop = min(start + length, size)
            steps = [
                (term, out)
                for term, out in zip(present, rows.by_term, strict=True)
                if self.terms.steps(spec, term)
            ]
            for term, out in steps:
                if length == size:
                    self.terms.sources[term].read_steps(spec, index, out)
                else:
                    self.terms.sources[term].read_steps(spec, index, space.other[:size])
                    out[: stop - start] = space.other[start:stop]
            if chunk is None:
                chunk = self.open(spec, index)
            order, base = chunk.order[start:stop], chunk.sorted_base[start:stop]
            for term, out in steps:
                row_filter = self.filters(spec, term)
                if row_filter is not None:
                    row_filter.steps(base, out[: stop - start], chunk.first, order, spec.dtype)
            if len(rows.numbers):
                in_order = chunk.sorted()
                for term, out in zip(present, rows.by_term, strict=True):
                    if not self.terms.steps(spec, term):
                        self.terms.sources[term].read_numbers(in_order, start, stop, out[: stop - start])
            yield rows.chunk(present, base, order)


@dataclass
class _Rows:
    """Arrays for rows: z: uint[Kz, n], numbers: float32[Kt, n]; row_of: see `DecodedChunk`."""

    z: NDArray[Any]
    numbers: NDArray[np.float32]
    row_of: NDArray[np.int32] | None

    @cached_property
    def by_term(self) -> list[NDArray[Any]]:
        """The row of each term."""
        if self.row_of is None:
            return list(self.z)
        return [self.z[row] if row >= 0 else self.numbers[~row] for row in self.row_of.tolist()]

    def chunk(
        self, present: list[int], base: NDArray[Any], order: NDArray[np.uint32], *, in_order: bool = False
    ) -> DecodedChunk:
        """The rows with the base in this order."""
        return DecodedChunk(present, base, self.z, order, self.numbers, self.row_of, in_order)
