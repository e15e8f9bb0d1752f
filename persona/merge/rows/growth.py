"""The chunks of an extended base, and the rows of vectors that know a smaller one (`persona.objects.growth`).

Most chunks of an extended base are chunks of the base. The others are the chunk in which a tensor's own
elements end, and chunks of zeros; the tables of the vectors that grow the tensor name them.

**fitted source** — a source that gives the rows of a vector at the tensors of an extended base.

Beyond the elements that the vector knows, it changes nothing. At a tensor with an origin, a vector that does
not know the tensor changes it as its origin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.codec.delta import exponent_starts
from persona.errors import IntegrityError
from persona.frozen import dataclass
from persona.merge.rows.delta import differences
from persona.merge.rows.reader import BaseChunks
from persona.merge.rows.source import OpenedChunk, Source
from persona.objects import growth
from persona.objects.base import Base
from persona.objects.table import decode_grown_table
from persona.objects.tensors import TensorSpec, chunk_count
from persona.objects.vector import Vector
from persona.store.objects import ObjectStore


@dataclass(frozen=True)
class KnownBase:
    """A base, or an extended one, and its chunks."""

    base: Base
    chunks: BaseChunks
    origins: Mapping[str, str | None]
    """Of the grown tensors: see `objects.growth`."""

    @classmethod
    def of(cls, objects: ObjectStore, base: Base) -> KnownBase:
        """A base of the store. Raises `IntegrityError` for a table that does not fit its manifest."""
        return cls(base, BaseChunks.of(objects, base), {})

    def extended(self, objects: ObjectStore, vectors: Sequence[tuple[str, Vector]]) -> KnownBase:
        """This base as some vectors grow it, each given with its name for messages.

        It is the same object if none of them does. Raises the errors of `objects.growth.extended`, and
        `IntegrityError` for a vector whose chunks of a grown tensor are not those of this base.
        """
        base = growth.extended(self.base, vectors)
        if base is self.base:
            return self
        manifests = [vector for _, vector in vectors]
        ids = _ids_of_grown(objects, self, manifests)
        table = self.chunks.table.extended(base.tensors, base.chunk, ids)
        return KnownBase(base, BaseChunks(self.chunks.reader, table), growth.origins(manifests))


def _ids_of_grown(objects: ObjectStore, base: KnownBase, vectors: Sequence[Vector]) -> dict[str, list[str]]:
    """The ids of the chunks of the tensors that some vectors grow."""
    found: dict[str, list[str]] = {}
    for vector in vectors:
        if not vector.grown:
            continue
        table = decode_grown_table(objects.get(vector.grown_table or "", "table"), vector)
        for name, origin in vector.grown:
            if origin is not None:
                continue
            ids, own = table.chunks(name), base.base.spec[name]
            known = found.get(name) or base.chunks.table.chunks(name)[: own.units // base.base.chunk]
            if ids[: len(known)] != known:
                raise IntegrityError(f"a vector grows the tensor {name} from other chunks than its base's")
            found[name] = ids
    for name, origin in growth.origins(vectors).items():
        if origin is not None:
            found[name] = found.get(origin) or base.chunks.table.chunks(origin)
    return found


def fitted(source: Source, own: KnownBase, whole: KnownBase) -> Source:
    """A source of the rows of a vector at the tensors of `whole`; `own`: the base that the source knows."""
    known: dict[str, TensorSpec] = {}
    for name, origin in whole.origins.items():
        spec = own.base.spec.get(name) or own.base.spec[origin or name]
        if spec != whole.base.spec[name]:
            known[name] = spec
    return FittedSource(source, known, own.chunks, whole.chunks) if known else source


class FittedSource:
    """A `Source` over another one that knows some tensors by other names, or shorter."""

    def __init__(
        self, source: Source, known: Mapping[str, TensorSpec], chunks: BaseChunks, whole: BaseChunks
    ) -> None:
        """`known`: by name, what the other source calls a tensor. `chunks`: of its base; `whole`: of this."""
        self._source = source
        self._known = known
        self._chunks = chunks
        self._whole = whole
        self._zeros: dict[str, int] = {}

    @property
    def identity(self) -> str:
        """See `Source`."""
        return self._source.identity

    @property
    def keep(self) -> bool:
        """See `Source`."""
        return self._source.keep

    def reaches(self, name: str) -> bool:
        """See `Source`."""
        known = self._known.get(name)
        return self._source.reaches(name if known is None else known.name)

    def steps(self, spec: TensorSpec) -> bool:
        """See `Source`."""
        return self._source.steps(self._own(spec))

    def elementwise(self, spec: TensorSpec) -> bool:
        """See `Source`."""
        whole = spec.name not in self._known
        return self._source.elementwise(self._own(spec)) and (whole or self.steps(spec))

    def chunk_id(self, spec: TensorSpec, index: int) -> str | None:
        """See `Source`."""
        own = self._own(spec)
        if index >= chunk_count(own, self._chunks.chunk):
            return None
        id = self._source.chunk_id(own, index)
        size = self._whole.size(spec, index)
        return id if id is None or self._chunks.size(own, index) == size else f"{id} of {size}"

    def scratch_bytes(self, spec: TensorSpec) -> int:
        """See `Source`."""
        return self._source.scratch_bytes(self._own(spec))

    def read_steps(self, spec: TensorSpec, index: int, out: NDArray[Any]) -> None:
        """See `Source`: in exponent order, the zeros at the end follow the base's own zeros."""
        own = self._own(spec)
        size = self._chunks.size(own, index)
        self._source.read_steps(own, index, out[:size])
        if size < out.size:
            first, added = self._zeros_of(own, index), out.size - size
            out[first + added :] = out[first:size].copy()
            out[first : first + added] = 0

    def read_numbers(self, chunk: OpenedChunk, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """See `Source`."""
        spec, own = chunk.spec, self._own(chunk.spec)
        if self._source.steps(own):
            differences(self, chunk, start, stop, out)
        elif own is spec:
            self._source.read_numbers(chunk, start, stop, out)
        else:
            size = self._chunks.size(own, chunk.index) if self.chunk_id(spec, chunk.index) else 0
            known = OpenedChunk(own, chunk.index, chunk.base[:size], chunk.space, self._chunks.chunk)
            end = max(start, min(stop, size))
            if end > start:
                self._source.read_numbers(known, start, end, out[: end - start])
            out[end - start :] = 0

    def _own(self, spec: TensorSpec) -> TensorSpec:
        """A tensor as the other source knows it."""
        return self._known.get(spec.name, spec)

    def _zeros_of(self, own: TensorSpec, index: int) -> int:
        """How many elements of the last chunk of a tensor have the exponent 0: they come first."""
        if own.name not in self._zeros:
            base = np.empty(self._chunks.size(own, index), own.bits_dtype)
            self._chunks.read(own, index, base)
            self._zeros[own.name] = int(exponent_starts(base, own.dtype)[1])
        return self._zeros[own.name]
