"""**row cache** — decoded chunks that stay in memory from one merge to the next.

So a later merge of the same chunks needs only the arithmetic. The cache holds chunks of the base and rows, in
the order of their elements. They are found by what decides them, so any merge that names the same chunks can
use them: with another α, beside other vectors, in another revision.

When the cache is full, rows that the current merge has not used are evicted, never rows that it has used. So
even a model larger than the cache finds part of its rows there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from persona.merge.arithmetic import cpu
from persona.merge.arithmetic.arguments import DecodedChunk
from persona.merge.rows.source import OpenedChunk
from persona.merge.rows.stored import StoredRows
from persona.objects.dtypes import uint
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
        """Copies a row of n elements in this order, if there is room. row: any of 16 or 32 bits [n]."""
        if self.reserve(row.nbytes):
            copy = np.empty_like(row)
            bits = uint(row.itemsize)
            cpu.scatter(row.view(bits), order, copy.view(bits))
            self.put(key, copy, row.nbytes)


class CachedRows:
    """Rows from the row cache; rows that are not there are read by `stored` and put there.

    A chunk whose base is cached has the order of its elements.
    """

    def __init__(self, stored: StoredRows, cache: RowCache) -> None:
        self._stored = stored
        self._cache = cache
        cache.begin()

    def base(self, spec: TensorSpec, index: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """See `RowSource.base`."""
        return self._stored.base(spec, index, out)

    def parts(
        self, spec: TensorSpec, terms: Sequence[int], index: int, *, cache: bool = True
    ) -> Iterable[DecodedChunk] | None:
        """See `RowSource.parts`; slices are not cached."""
        stored = self._stored
        changes = stored.changes(spec, terms, index)
        if not changes or not cache or not stored.fits(spec, terms, index):
            return stored.parts(spec, terms, index)
        base_key = spec.dtype, stored.chunks.id(spec, index)
        keys: dict[int, Key] = {
            term: (*base_key, self._holds(spec, term), id)
            for term, id in changes.items()
            if self._keeps(spec, term)
        }
        base = self._cache.find(base_key)
        if base is not None:
            return (self._from_cache(spec, index, base, list(changes), keys),)
        parts = stored.parts(spec, terms, index)
        for part in parts or ():
            self._cache.keep(base_key, part.sorted_base, part.order)
            for place, term in enumerate(part.present):
                if term in keys:
                    self._cache.keep(keys[term], part.row(place), part.order)
        return parts

    def _holds(self, spec: TensorSpec, term: int) -> str:
        return "steps" if self._stored.terms.steps(spec, term) else "numbers"

    def _keeps(self, spec: TensorSpec, term: int) -> bool:
        terms = self._stored.terms
        return terms.steps(spec, term) or terms.sources[term].keep

    def _from_cache(
        self, spec: TensorSpec, index: int, base: NDArray[Any], present: list[int], keys: dict[int, Key]
    ) -> DecodedChunk:
        """A chunk whose base is cached; the rows that are not are read."""
        stored = self._stored
        chunk = OpenedChunk(spec, index, base, stored.workspaces.get(spec), stored.chunks.chunk)
        found = {term: self._cache.find(key) for term, key in keys.items()}
        kept = {term: row for term, row in found.items() if row is not None}
        made = stored.element_order(chunk, present, 0, chunk.size, kept)
        for place, term in enumerate(present):
            if term in keys and term not in kept:
                self._cache.keep(keys[term], made.row(place), made.order)
        return made
