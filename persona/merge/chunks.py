"""Chunks out of the store, ready for arithmetic: verified, decoded, in exponent order.

**workspace** — the arrays of one thread, reused from chunk to chunk: the base's elements, their exponent
order, the base in that order, and one row of z for each vector.

The memory of a merge is a few chunks for each thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from persona.codec.base import decode_base, raw_chunk
from persona.codec.delta import Scratch, decode_delta, exponent_order
from persona.codec.elements import parse_form
from persona.errors import IntegrityError
from persona.frozen import dataclass
from persona.limits import MAX_PAYLOAD_BYTES
from persona.merge.arithmetic.arguments import DecodedChunk
from persona.merge.memory import Budget
from persona.merge.plan import Plan
from persona.objects.dtypes import uint
from persona.objects.ids import NULL_ID, abbreviate
from persona.objects.tensors import TensorSpec, chunk_span
from persona.store.objects import ObjectStore

Empty = Callable[[Any, Any], NDArray[Any]]
"""Makes a host array of a shape and dtype: `numpy.empty`, or one that makes memory which devices reach."""


@dataclass
class Workspace:
    """Arrays of `chunk` elements of `width` bytes.

    `z` has one row for each vector and grows on demand. `empty` makes the arrays that a device may have to
    copy.
    """

    chunk: int
    width: int
    empty: Empty = np.empty

    def __post_init__(self) -> None:
        bits = uint(self.width)
        self.base = np.empty(self.chunk, bits)
        self.other = np.empty(self.chunk, bits)
        self.sorted_base = self.empty(self.chunk, bits)
        self.order = self.empty(self.chunk, np.uint32)
        self.z = np.empty((0, self.chunk), bits)
        self.scratch = Scratch()

    def rows(self, count: int, length: int) -> NDArray[Any]:
        """`count` rows for z of `length` elements each."""
        if self.z.size < count * length:
            self.z = self.empty((-(-count * length // self.chunk), self.chunk), uint(self.width))
        return self.z.reshape(-1)[: count * length].reshape(count, length)


class Workspaces:
    """One workspace for each thread and element width, as long as the longest chunk of that width."""

    def __init__(self, specs: Sequence[TensorSpec], chunk: int, empty: Empty = np.empty) -> None:
        self._empty = empty
        self._longest = {2: 0, 4: 0}
        for spec in specs:
            if spec.merged:
                self._longest[spec.unit] = max(self._longest[spec.unit], min(spec.units, chunk))
        self._local = threading.local()

    def get(self, spec: TensorSpec) -> Workspace:
        """This thread's workspace for a tensor."""
        held: dict[int, Workspace] | None = getattr(self._local, "held", None)
        if held is None:
            held = self._local.held = {}
        found = held.get(spec.unit)
        if found is None:
            found = held[spec.unit] = Workspace(self._longest[spec.unit], spec.unit, self._empty)
        return found


@dataclass(frozen=True)
class ChunkReader:
    """Reads chunks of one base and of vectors relative to it. Thread-safe."""

    objects: ObjectStore
    chunk: int

    def base_bytes(self, spec: TensorSpec, id: str, index: int) -> memoryview:
        """The raw bytes of a base chunk of a dtype that is not merged."""
        start, stop = chunk_span(spec, index, self.chunk)
        expected = (stop - start) * spec.unit
        record = self.objects.read(id, "chunk", max_raw=expected)
        data = raw_chunk(record.form, record.segments)
        if data.nbytes != expected:
            raise self._mismatch("chunk", id, spec)
        return data

    def base(self, spec: TensorSpec, id: str, index: int, out: NDArray[Any]) -> NDArray[Any]:
        """The elements of a base chunk, decoded into the front of `out`; returns that part."""
        start, stop = chunk_span(spec, index, self.chunk)
        part = out[: stop - start]
        record = self.objects.read(id, "chunk", max_raw=part.nbytes)
        _, element = parse_form(record.form)
        if element is not None and element.nbytes == spec.unit:
            decode_base(record.form, record.segments, part)
        else:  # the same bytes were first stored for a tensor of another dtype; their meaning is the same
            part.view(np.uint8)[:] = np.frombuffer(self.base_bytes(spec, id, index), np.uint8)
        return part

    def delta(self, spec: TensorSpec, id: str, base_id: str, index: int, out: NDArray[Any]) -> bool:
        """z of a vector's chunk in exponent order into all of `out`; False when nothing changed there."""
        if id == NULL_ID:
            return False
        limit = min(2 * out.nbytes + (1 << 16), MAX_PAYLOAD_BYTES["delta"])
        record = self.objects.read(id, "delta", max_raw=limit)
        if record.relative != base_id:
            raise IntegrityError(
                f"delta {abbreviate(id)} of tensor {spec.name} is relative to another chunk than its base's",
                kind="delta",
                id=id,
            )
        decode_delta(record.form, record.segments, out)
        _, element = parse_form(record.form)
        if element is not None and element.name != spec.dtype:
            self._reorder(spec, base_id, index, element.name, out)
        return True

    def _reorder(self, spec: TensorSpec, base_id: str, index: int, dtype: str, z: NDArray[Any]) -> None:
        """z in the exponent order of `spec`, from that of the dtype that the bytes were first stored for."""
        base = self.base(spec, base_id, index, np.empty_like(z))
        order, sorted_base, plain = np.empty(z.size, np.uint32), np.empty_like(z), np.empty_like(z)
        exponent_order(base, dtype, order, sorted_base)
        plain[order] = z
        exponent_order(base, spec.dtype, order, sorted_base)
        z[:] = plain[order]

    def _mismatch(self, kind: str, id: str, spec: TensorSpec) -> IntegrityError:
        return IntegrityError(
            f"{kind} {abbreviate(id)} does not hold as many elements as tensor {spec.name} needs",
            kind=kind,
            id=id,
        )


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
