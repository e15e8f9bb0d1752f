"""**kept chunks** — opened chunks that stay in memory from one merge to the next, so that only the arithmetic
is left to do.

A chunk of n elements with K vectors that change it takes 4 n bytes for its order and (1 + K) n elements. It
is known by the ids of what it was made from, so whoever names the same chunks again may have it, whatever the
recipe. Where there is no room, a chunk that the current merge did not use makes place; one that it used
stays, so that a model larger than the room still finds a part of itself.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.merge.chunks import Opened
from persona.merge.cutoffs import Cutoffs
from persona.merge.plan import Plan, TensorPlan
from persona.merge.room import Room
from persona.merge.stream import Merger

Key = tuple[str, ...]


@dataclass
class _Chunk:
    """The arrays of an opened chunk; `present`: which of the terms of its key changed it; `used`: by which
    merge last.
    """

    present: list[int]
    sorted_base: NDArray[Any]
    z: NDArray[Any]
    order: NDArray[np.uint32]
    used: int

    @property
    def nbytes(self) -> int:
        return self.sorted_base.nbytes + self.z.nbytes + self.order.nbytes


class Kept:
    """Opened chunks, `limit` bytes of them at most. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._chunks: dict[Key, _Chunk] = {}  # those used last come last
        self._merge = 0
        self._lock = threading.Lock()

    def begin(self) -> None:
        """A merge begins: what the one before used may make place."""
        with self._lock:
            self._merge += 1

    def find(self, key: Key) -> _Chunk | None:
        """A chunk that is kept."""
        with self._lock:
            chunk = self._chunks.pop(key, None)
            if chunk is not None:
                chunk.used = self._merge
                self._chunks[key] = chunk
            return chunk

    def keep(self, key: Key, present: list[int], opened: Opened) -> None:
        """Copies an opened chunk, if there is room."""
        size = opened.order.size
        nbytes = opened.order.nbytes + (1 + len(present)) * opened.sorted_base.nbytes
        if not self._make_room(nbytes):
            return
        arrays = opened.sorted_base.copy(), opened.z[:, :size].copy(), opened.order.copy()
        with self._lock:
            if key in self._chunks:
                self.nbytes -= nbytes
            else:
                self._chunks[key] = _Chunk(present, *arrays, self._merge)

    def _make_room(self, nbytes: int) -> bool:
        with self._lock:
            while self.nbytes + nbytes > self.limit:
                oldest = next(iter(self._chunks), None)
                if oldest is None or self._chunks[oldest].used == self._merge:
                    return False
                self.nbytes -= self._chunks.pop(oldest).nbytes
            self.nbytes += nbytes
            return True


class KeepingMerger(Merger):
    """A merger that opens a chunk from what is kept, and keeps what it opens."""

    def __init__(self, plan: Plan, cuts: Cutoffs, kept: Kept, room: Room | None = None) -> None:
        super().__init__(plan, cuts, room)
        self._kept = kept
        kept.begin()

    def open(self, tensor: TensorPlan, index: int, base_id: str, size: int) -> Opened | None:
        """As `Merger.open`; the arrays are only read."""
        plan, spec = self.plan, tensor.spec
        vectors = [plan.recipe.terms[term].vector for term in tensor.terms]
        key = (spec.dtype, base_id, *(plan.tables[vector].chunk(spec.name, index) for vector in vectors))
        chunk = self._kept.find(key)
        if chunk is not None:
            present = [tensor.terms[place] for place in chunk.present]
            return Opened(present, chunk.sorted_base, chunk.z, chunk.order)
        opened = super().open(tensor, index, base_id, size)
        if opened is not None:
            self._kept.keep(key, [tensor.terms.index(term) for term in opened.present], opened)
        return opened
