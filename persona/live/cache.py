"""**row cache** — decoded chunks that stay in memory from one merge to the next.

So a later merge of the same chunks needs only the arithmetic. A row is a decoded chunk of the base or of a
vector, in the order of its elements. It is found by the ids of its source, so any merge that names the same
chunks can use it: with another α, beside other vectors, in another revision.

When the cache is full, rows that the current merge has not used are evicted, never rows that it has used. So
even a model larger than the cache finds part of its rows there.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from persona.codec.delta import exponent_order
from persona.merge.arithmetic import cpu
from persona.merge.arithmetic.arguments import DecodedChunk
from persona.merge.chunks import Empty
from persona.merge.cutoffs import Cutoffs
from persona.merge.memory import Budget
from persona.merge.plan import Plan, TensorPlan
from persona.merge.run.merger import Merger
from persona.objects.ids import NULL_ID
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
    """Values by the ids of their source: at most `limit` bytes, of them `room` in this merge. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit = self.room = limit
        self.nbytes = 0
        self._held: dict[Key, _Held[Value]] = {}  # the most recently used come last
        self._merge = 0
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Begins a merge: values that the merge before used may be evicted."""
        with self._lock:
            self._merge += 1
            self.room = self.limit

    def leave(self, nbytes: int) -> None:
        """This merge may add at most this many bytes."""
        with self._lock:
            self.room = min(self.room, self.nbytes + nbytes)

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
            while self.nbytes + nbytes > self.room:
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
            kept = np.empty_like(row)
            cpu.scatter(row, order, kept)
            self.put(key, kept, row.nbytes)


class CachingMerger(Merger):
    """A merger that takes chunks from a row cache, and puts the chunks that it decodes there."""

    def __init__(
        self, plan: Plan, cuts: Cutoffs, kept: RowCache, room: Budget | None = None, empty: Empty = np.empty
    ) -> None:
        super().__init__(plan, cuts, room, empty=empty)
        self._kept = kept
        longest = max((spec.units for spec in plan.base.tensors), default=0)
        self._in_order = np.arange(min(longest, plan.base.chunk), dtype=np.uint32)
        kept.begin()

    def open(self, tensor: TensorPlan, index: int, base_id: str, size: int) -> DecodedChunk | None:
        """Like `Merger.open`, in element order if the base's row is cached; that array is only read."""
        spec = tensor.spec
        if spec.name in self.elsewhere:
            return super().open(tensor, index, base_id, size)
        keys = {
            term: (spec.dtype, base_id, id)
            for term in tensor.terms
            if (id := self._delta(term, spec, index)) != NULL_ID
        }
        base = self._kept.find((spec.dtype, base_id))
        if base is not None and keys:
            return self._from_kept(tensor, index, base, keys)
        opened = super().open(tensor, index, base_id, size)
        if opened is not None:
            self._kept.keep((spec.dtype, base_id), opened.sorted_base, opened.order)
            for term, row in zip(opened.present, opened.z, strict=True):
                self._kept.keep(keys[term], row[:size], opened.order)
        return opened

    def _delta(self, term: int, spec: TensorSpec, index: int) -> str:
        return self.plan.tables[self.plan.recipe.terms[term].vector].chunk(spec.name, index)

    def _from_kept(
        self, tensor: TensorPlan, index: int, base: NDArray[Any], keys: Mapping[int, Key]
    ) -> DecodedChunk:
        """A chunk whose base is kept; the vectors' rows that are not are decoded."""
        spec, size = tensor.spec, base.size
        space = self.workspaces.get(spec)
        rows, order = space.rows(len(tensor.terms), size), space.order[:size]
        ordered = False
        for place, (term, key) in enumerate(keys.items()):
            row = rows[place, :size]
            kept = self._kept.find(key)
            if kept is not None:
                row[:] = kept
                continue
            if not ordered:
                exponent_order(base, spec.dtype, order, space.sorted_base[:size])
                ordered = True
            self.reader.delta(spec, self._delta(term, spec, index), key[1], index, space.other[:size])
            self._kept.keep(key, space.other[:size], order)
            cpu.scatter(space.other[:size], order, row)
        return DecodedChunk(list(keys), base, rows[: len(keys)], self._in_order[:size])
