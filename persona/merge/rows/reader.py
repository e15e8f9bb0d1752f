"""Chunks out of the store, ready for arithmetic: verified, decoded, in exponent order.

**workspace** — the arrays of one thread, reused from chunk to chunk: the base's elements, their exponent
order, the base in that order, and a row for each vector.

The memory of a merge is a few chunks for each thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.codec.base import decode_base, raw_chunk
from persona.codec.delta import Scratch, decode_delta, exponent_order
from persona.codec.elements import parse_form
from persona.errors import IntegrityError
from persona.frozen import dataclass
from persona.limits import MAX_PAYLOAD_BYTES
from persona.objects.base import Base
from persona.objects.dtypes import uint
from persona.objects.ids import NULL_ID, abbreviate
from persona.objects.table import Table, decode_table
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
        self._plain = np.empty(0, bits)
        self._numbers = np.empty(0, np.float32)
        self._products = np.empty(0, np.float32)

    def rows(self, count: int, length: int) -> NDArray[Any]:
        """`count` rows for z of `length` elements each."""
        if self.z.size < count * length:
            self.z = self.empty((-(-count * length // self.chunk), self.chunk), uint(self.width))
        return self.z.reshape(-1)[: count * length].reshape(count, length)

    def numbers(self, count: int, length: int) -> NDArray[np.float32]:
        """`count` rows of numbers of `length` elements each."""
        if self._numbers.size < count * length:
            self._numbers = self.empty(count * length, np.float32)
        return self._numbers[: count * length].reshape(count, length)

    def products(self, size: int) -> NDArray[np.float32]:
        """An array for the numbers of one vector of a sum."""
        if self._products.size < size:
            self._products = np.empty(self.chunk, np.float32)
        return self._products[:size]

    def plain(self, size: int) -> NDArray[Any]:
        """An array for `size` elements in their own order."""
        if self._plain.size < size:
            self._plain = np.empty(self.chunk, uint(self.width))
        return self._plain[:size]


class Workspaces:
    """One workspace for each thread and element width, as long as the longest chunk of that width."""

    def __init__(self, specs: Sequence[TensorSpec], chunk: int, empty: Empty = np.empty) -> None:
        self._empty = empty
        self._longest = {2: 0, 4: 0}
        for spec in specs:
            if spec.merged:
                self._longest[spec.unit] = max(self._longest[spec.unit], min(spec.units, chunk))
        self._local = threading.local()

    @cached_property
    def in_order(self) -> NDArray[np.uint32]:
        """0, 1, 2, …: the order of elements that stand in their own, for the longest chunk."""
        return np.arange(max(self._longest.values()), dtype=np.uint32)

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


@dataclass(frozen=True)
class BaseChunks:
    """The chunks of a base in the store. Thread-safe."""

    reader: ChunkReader
    table: Table

    @classmethod
    def of(cls, objects: ObjectStore, base: Base) -> BaseChunks:
        """The chunks of a base. Raises `IntegrityError` for a table that does not fit its manifest."""
        table = decode_table(objects.get(base.table, "table"), base.tensors, base.chunk, "the base's table")
        return cls(ChunkReader(objects, base.chunk), table)

    @property
    def chunk(self) -> int:
        """Elements of a chunk."""
        return self.reader.chunk

    def id(self, spec: TensorSpec, index: int) -> str:
        """The id of a chunk."""
        return self.table.chunk(spec.name, index)

    def size(self, spec: TensorSpec, index: int) -> int:
        """The number of storage elements of a chunk."""
        start, stop = chunk_span(spec, index, self.chunk)
        return stop - start

    def read(self, spec: TensorSpec, index: int, out: NDArray[Any]) -> NDArray[Any]:
        """The elements of a chunk in the front of `out`; returns that part."""
        return self.reader.base(spec, self.id(spec, index), index, out)

    def raw(self, spec: TensorSpec, index: int) -> memoryview:
        """The raw bytes of a chunk of a dtype that is not merged."""
        return self.reader.base_bytes(spec, self.id(spec, index), index)

    def delta(self, spec: TensorSpec, id: str, index: int, out: NDArray[Any]) -> bool:
        """See `ChunkReader.delta`."""
        return self.reader.delta(spec, id, self.id(spec, index), index, out)
