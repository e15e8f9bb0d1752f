"""**kept chunks** — opened chunks that stay in memory from one merge to the next, so that only the arithmetic
is left to do.

A chunk is kept in the order of its elements, so that it needs no order of its own: with K vectors that change
it (1 + K) n elements. It is known by the ids of what it was made from, so whoever names the same chunks again
may have it, whatever the recipe. Where there is no room, a chunk that the current merge did not use makes
place; one that it used stays, so that a model larger than the room still finds a part of itself.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from persona.merge import cpu
from persona.merge.chunks import Empty, Opened
from persona.merge.cutoffs import Cutoffs
from persona.merge.plan import Plan, TensorPlan
from persona.merge.room import Room
from persona.merge.stream import Merger

Key = tuple[str, ...]
Value = TypeVar("Value")


@dataclass
class _Chunk:
    """base: uint[n] and z: uint[K, n] of a chunk, in the order of its elements; `present`: which of the terms
    of its key changed it.
    """

    present: list[int]
    base: NDArray[Any]
    z: NDArray[Any]


@dataclass
class _Held(Generic[Value]):
    """A value with its size; `used`: by which merge last."""

    value: Value
    nbytes: int
    used: int


class Shelf(Generic[Value]):
    """Values by what they were made from, `limit` bytes of them at most. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._held: dict[Key, _Held[Value]] = {}  # those used last come last
        self._merge = 0
        self._lock = threading.Lock()

    def begin(self) -> None:
        """A merge begins: what the one before used may make place."""
        with self._lock:
            self._merge += 1

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
        """Whether there is room for so many bytes more; then they count, until `put` or `refund`."""
        with self._lock:
            while self.nbytes + nbytes > self.limit:
                oldest = next(iter(self._held), None)
                if oldest is None or self._held[oldest].used == self._merge:
                    return False
                self.nbytes -= self._held.pop(oldest).nbytes
            self.nbytes += nbytes
            return True

    def put(self, key: Key, value: Value, nbytes: int) -> None:
        """Keeps a value for which so many bytes were reserved."""
        with self._lock:
            if key in self._held:
                self.nbytes -= nbytes
            else:
                self._held[key] = _Held(value, nbytes, self._merge)

    def refund(self, nbytes: int) -> None:
        """Reserved bytes are not needed after all."""
        with self._lock:
            self.nbytes -= nbytes


class Kept(Shelf[_Chunk]):
    """Opened chunks in the memory of the host."""

    def keep(self, key: Key, present: list[int], opened: Opened) -> None:
        """Copies an opened chunk, if there is room."""
        rows = [opened.sorted_base, *opened.z[: len(present)]]
        nbytes = len(rows) * opened.sorted_base.nbytes
        if self.reserve(nbytes):
            found = np.empty((len(rows), opened.order.size), opened.sorted_base.dtype)
            for row, out in zip(rows, found, strict=True):
                cpu.scatter(row[: out.size], opened.order, out)
            self.put(key, _Chunk(present, found[0], found[1:]), nbytes)


class KeepingMerger(Merger):
    """A merger that opens a chunk from what is kept, and keeps what it opens."""

    def __init__(
        self, plan: Plan, cuts: Cutoffs, kept: Kept, room: Room | None = None, empty: Empty = np.empty
    ) -> None:
        super().__init__(plan, cuts, room, empty=empty)
        self._kept = kept
        longest = max((spec.units for spec in plan.base.tensors), default=0)
        self._in_order = np.arange(min(longest, plan.base.chunk), dtype=np.uint32)
        kept.begin()

    def open(self, tensor: TensorPlan, index: int, base_id: str, size: int) -> Opened | None:
        """As `Merger.open`; the arrays are only read."""
        if tensor.spec.name in self.elsewhere:
            return super().open(tensor, index, base_id, size)
        plan, spec = self.plan, tensor.spec
        vectors = [plan.recipe.terms[term].vector for term in tensor.terms]
        key = (spec.dtype, base_id, *(plan.tables[vector].chunk(spec.name, index) for vector in vectors))
        chunk = self._kept.find(key)
        if chunk is not None:
            present = [tensor.terms[place] for place in chunk.present]
            return Opened(present, chunk.base, chunk.z, self._in_order[: chunk.base.size])
        opened = super().open(tensor, index, base_id, size)
        if opened is not None:
            self._kept.keep(key, [tensor.terms.index(term) for term in opened.present], opened)
        return opened
