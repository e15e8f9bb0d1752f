"""**row cache** — decoded chunks that stay in memory from one merge to the next.

So a later merge of the same chunks needs only the arithmetic. A row is a decoded chunk of the base or of a
vector, in the order of its elements. It is found by the ids of its source, so any merge that names the same
chunks can use it: with another α, beside other vectors, in another revision.

When the cache is full, rows that the current merge has not used are evicted, never rows that it has used. So
even a model larger than the cache finds part of its rows there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from persona.codec.delta import exponent_order
from persona.merge.arithmetic import cpu
from persona.merge.arithmetic.arguments import DecodedChunk
from persona.merge.rows.stored import StoredRows
from persona.objects.tensors import TensorSpec

Key = tuple[str, ...]
Value = TypeVar("Value")


@dataclass
class _Held(Generic[Value]):
    """A value with its size; `used`: by which merge last."""

    value: Value
    nbytes: int
    used: int


class BoundedCache(Generic[Value]):
    """Values by the ids of their source, at most `limit` bytes, `allowed` in this merge. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit = self.allowed = limit
        self.nbytes = 0
        self._held: dict[Key, _Held[Value]] = {}  # the most recently used come last
        self._merge = 0
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Begins a merge: values that the merge before used may be evicted."""
        with self._lock:
            self._merge += 1
            self.allowed = self.limit

    def leave(self, nbytes: int) -> None:
        """This merge may add at most this many bytes."""
        with self._lock:
            self.allowed = min(self.allowed, self.nbytes + nbytes)

    def find(self, key: Key) -> Value | None:
        """A value that is kept."""
        with self._lock:
            held = self._held.pop(key, None)
            if held is None:
                return None
            held.used = self._merge
            self._held[key] = held
            return held.value

    def reserve(self, nbytes: int) -> bool:
        """Whether there is room for this many bytes more; they count until `put` or `refund`."""
        with self._lock:
            while self.nbytes + nbytes > self.allowed:
                oldest = next(iter(self._held), None)
                if oldest is None or self._held[oldest].used == self._merge:
                    return False
                self.nbytes -= self._held.pop(oldest).nbytes
            self.nbytes += nbytes
            return True

    def put(self, key: Key, value: Value, nbytes: int) -> None:
        """Keeps a value whose bytes were reserved."""
        with self._lock:
            if key in self._held:
                self.nbytes -= nbytes
            else:
                self._held[key] = _Held(value, nbytes, self._merge)

    def evict(self, *, all: bool) -> None:
        """Evicts values that this merge has not used, or all."""
        with self._lock:
            for key, held in list(self._held.items()):
                if all or held.used != self._merge:
                    self.nbytes -= self._held.pop(key).nbytes

    def refund(self, nbytes: int) -> None:
        """Reserved bytes are not needed after all."""
        with self._lock:
            self.nbytes -= nbytes


class RowCache(BoundedCache[NDArray[Any]]):
    """Rows in the memory of the host."""

    def keep(self, key: Key, row: NDArray[Any], order: NDArray[np.uint32]) -> None:
        """Copies a row that stands in exponent order, if there is room."""
        if self.reserve(row.nbytes):
            copy = np.empty_like(row)
            cpu.scatter(row, order, copy)
            self.put(key, copy, row.nbytes)


class CachedRows:
    """Rows from the row cache; rows that are not there are decoded by `stored` and put there.

    A chunk whose base is cached has element order.
    """

    def __init__(self, stored: StoredRows, cache: RowCache) -> None:
        self._stored = stored
        self._cache = cache
        base = stored.plan.base
        longest = max((spec.units for spec in base.tensors), default=0)
        self._in_order = np.arange(min(longest, base.chunk), dtype=np.uint32)
        cache.begin()

    def base(self, spec: TensorSpec, index: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """See `RowSource.base`."""
        return self._stored.base(spec, index, out)

    def parts(
        self, spec: TensorSpec, terms: Sequence[int], index: int, *, cache: bool = True
    ) -> Iterable[DecodedChunk] | None:
        """See `RowSource.parts`; slices are not cached."""
        stored = self._stored
        if not cache or not stored.fits(spec, terms, index):
            return stored.parts(spec, terms, index)
        changes = stored.changes(spec, terms, index)
        base_key = spec.dtype, stored.plan.base_table.chunk(spec.name, index)
        base = self._cache.find(base_key)
        if base is not None and changes:
            return (self._from_cache(spec, index, base, changes, len(terms)),)
        parts = stored.parts(spec, terms, index)
        for part in parts or ():
            self._cache.keep(base_key, part.sorted_base, part.order)
            for term, row in zip(part.present, part.z, strict=True):
                self._cache.keep((*base_key, changes[term]), row[: part.order.size], part.order)
        return parts

    def _from_cache(
        self, spec: TensorSpec, index: int, base: NDArray[Any], changes: Mapping[int, str], terms: int
    ) -> DecodedChunk:
        """A chunk whose base is cached; the vectors' rows that are not are decoded."""
        size, reader = base.size, self._stored.reader
        space = self._stored.workspaces.get(spec)
        rows, order = space.rows(terms, size)[: len(changes)], space.order[:size]
        base_id = self._stored.plan.base_table.chunk(spec.name, index)
        ordered = False
        for row, id in zip(rows, changes.values(), strict=True):
            cached = self._cache.find((spec.dtype, base_id, id))
            if cached is not None:
                row[:] = cached
                continue
            if not ordered:
                exponent_order(base, spec.dtype, order, space.sorted_base[:size])
                ordered = True
            reader.delta(spec, id, base_id, index, space.other[:size])
            self._cache.keep((spec.dtype, base_id, id), space.other[:size], order)
            cpu.scatter(space.other[:size], order, row)
        return DecodedChunk(list(changes), base, rows, self._in_order[:size])
