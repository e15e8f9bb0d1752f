"""The rows of an adapter: numbers, computed from the factors A and B; steps for its dense tensors.

t[i, j] = s·Σ B[i, r]·A[r, j] (docs/numerics.md). Nothing of t is stored. A thread computes the elements that
it needs, from A and from the rows of B that these elements lie in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from persona.frozen import dataclass
from persona.limits import MIB
from persona.merge.arithmetic import casts, lowrank
from persona.merge.rows.cache import BoundedCache
from persona.merge.rows.delta import DeltaSource
from persona.merge.rows.reader import ChunkReader
from persona.merge.rows.source import OpenedChunk
from persona.objects.recipe import to_binary32
from persona.objects.table import factor_chunks
from persona.objects.tensors import TensorSpec, chunk_span
from persona.objects.vector import LowRankFactor, Vector

FACTOR_CACHE: Final = 16 * MIB
"""Bytes of factors that stay decoded from one chunk to the next, for all vectors of a plan together."""

Numbers = NDArray[np.float32]


@dataclass(frozen=True)
class FactorReader:
    """Reads parts of factors, widened to binary32. `cache`: the parts that were used last. Thread-safe."""

    reader: ChunkReader
    cache: BoundedCache[Numbers]

    def matrix(self, part: TensorSpec, ids: Sequence[str], start: int, stop: int, *, keep: bool) -> Numbers:
        """The elements [start, stop) of A, float32[stop − start]; `keep`: they are kept as a whole."""
        if not keep:
            return self._joined(part, ids, start, stop, keep=False)
        key = ("elements", part.dtype, *ids, str(start), str(stop))
        return self._kept(key, lambda: self._joined(part, ids, start, stop, keep=False))

    def rows(self, part: TensorSpec, ids: Sequence[str], start: int, stop: int, *, keep: bool) -> Numbers:
        """The elements [start, stop) of B, float32[stop − start]; `keep`: their whole chunks are kept."""
        return self._joined(part, ids, start, stop, keep=keep)

    def _joined(self, part: TensorSpec, ids: Sequence[str], start: int, stop: int, *, keep: bool) -> Numbers:
        length = self.reader.chunk
        first, last = start // length, (stop - 1) // length
        read = self._chunk_kept if keep else self._chunk
        if first == last:
            return read(part, ids[first], first)[start - first * length : stop - first * length]
        found = np.empty(stop - start, np.float32)
        for index in range(first, last + 1):
            begin, end = max(start, index * length), min(stop, (index + 1) * length)
            chunk = read(part, ids[index], index)
            found[begin - start : end - start] = chunk[begin - index * length : end - index * length]
        return found

    def _chunk(self, part: TensorSpec, id: str, index: int) -> Numbers:
        start, stop = chunk_span(part, index, self.reader.chunk)
        bits = np.empty(stop - start, part.bits_dtype)
        return casts.widen32(self.reader.base(part, id, index, bits), part.dtype)

    def _chunk_kept(self, part: TensorSpec, id: str, index: int) -> Numbers:
        return self._kept(("chunk", part.dtype, id), lambda: self._chunk(part, id, index))

    def _kept(self, key: tuple[str, ...], make: Callable[[], Numbers]) -> Numbers:
        found = self.cache.find(key)
        if found is None:
            found = make()
            self.cache.begin()  # so older parts may be evicted
            if self.cache.reserve(found.nbytes):
                self.cache.put(key, found, found.nbytes)
        return found


class LowRankSource:
    """A `Source` of numbers, and of steps at dense tensors. `identity`: the vector's id."""

    keep = False

    def __init__(self, dense: DeltaSource, vector: Vector, factors: FactorReader) -> None:
        """`dense`: the vector's table as that of a delta, which it is for dense tensors."""
        self.identity = dense.identity
        self._dense = dense
        self._vector = vector
        self._factors = factors

    @cached_property
    def _scales(self) -> dict[str, float]:
        return {name: to_binary32(factor.scale) for name, factor in self._vector.factor.items()}

    @cached_property
    def _ids(self) -> dict[str, tuple[list[str], list[str]]]:
        """The ids of the chunks of A and B by tensor."""
        spec = self._vector.spec
        return {
            name: factor_chunks(self._dense.table, self._vector, spec[name]) for name in self._vector.factor
        }

    def reaches(self, name: str) -> bool:
        """See `Source`."""
        return self._dense.reaches(name)

    def steps(self, spec: TensorSpec) -> bool:
        """See `Source`."""
        return spec.name not in self._vector.factor

    def elementwise(self, spec: TensorSpec) -> bool:
        """See `Source`: t of a factor follows from the row and the column of an element."""
        return self.steps(spec)

    def chunk_id(self, spec: TensorSpec, index: int) -> str | None:
        """See `Source`."""
        if self.steps(spec):
            return self._dense.chunk_id(spec, index)
        return f"{self.identity} {spec.name} {index}"

    def scratch_bytes(self, spec: TensorSpec) -> int:
        """See `Source`: A of a block, the rows of B for a chunk, and a chunk of factors in decoding."""
        factor = self._vector.factor.get(spec.name)
        if factor is None:
            return 0
        columns, chunk = factor.columns(spec), self._factors.reader.chunk
        rows = min(factor.rows(spec), min(spec.elements, chunk) // columns + 2)
        decoded = max(min(part.elements, chunk) * (part.unit + 4) for part in self._vector.parts[spec.name])
        return 4 * factor.rank * (columns + rows) + lowrank.scratch_bytes(factor.rank) + decoded

    def read_steps(self, spec: TensorSpec, index: int, out: NDArray[Any]) -> None:
        """See `Source`."""
        self._dense.read_steps(spec, index, out)

    def read_numbers(self, chunk: OpenedChunk, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """See `Source`."""
        factor = self._vector.factor.get(chunk.spec.name)
        if factor is None:
            self._dense.read_numbers(chunk, start, stop, out)
        else:
            self._multiply(chunk.spec, factor, chunk.first + start, out)

    def _multiply(self, spec: TensorSpec, factor: LowRankFactor, first: int, out: Numbers) -> None:
        """t of the elements from `first` on, block by block.

        Factors are kept for the rest of the tensor, if there is one.
        """
        keep = out.size < spec.units
        rank, columns = factor.rank, factor.columns(spec)
        size = factor.rows(spec) * columns
        (part_a, part_b), (ids_a, ids_b) = self._vector.parts[spec.name], self._ids[spec.name]
        done = 0
        while done < out.size:
            block, place = divmod(first + done, size)
            count = min(size - place, out.size - done)
            row, last = place // columns, (place + count - 1) // columns
            begin = block * rank * columns
            a = self._factors.matrix(part_a, ids_a, begin, begin + rank * columns, keep=keep)
            begin = (block * factor.rows(spec) + row) * rank
            b = self._factors.rows(part_b, ids_b, begin, begin + (last + 1 - row) * rank, keep=keep)
            lowrank.low_rank(
                a.reshape(rank, columns),
                b.reshape(-1, rank),
                self._scales[spec.name],
                place % columns,
                out[done : done + count],
            )
            done += count
