"""The sources of vectors by their kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from persona.errors import IntegrityError, InvalidInput
from persona.merge.rows import expression
from persona.merge.rows.cache import BoundedCache
from persona.merge.rows.delta import DeltaSource
from persona.merge.rows.lowrank import FACTOR_CACHE, FactorReader, LowRankSource
from persona.merge.rows.reader import BaseChunks
from persona.merge.rows.source import NUMBER_BYTES, Source
from persona.objects.base import Base
from persona.objects.ids import abbreviate
from persona.objects.table import decode_vector_table
from persona.objects.vector import Vector
from persona.store.objects import ObjectStore


class Sources:
    """Makes the sources of some vectors of one base, each once."""

    def __init__(
        self, objects: ObjectStore, base: Base, chunks: BaseChunks, vectors: Mapping[str, Vector]
    ) -> None:
        """`vectors`: the manifests by id, with those of the vectors that expressions name."""
        self.objects = objects
        self.base = base
        self.chunks = chunks
        self.vectors = vectors
        self.factors = FactorReader(chunks.reader, BoundedCache(FACTOR_CACHE))
        self._made: dict[str, Source] = {}
        self._factor_bytes = 0

    @property
    def shared_bytes(self) -> int:
        """Bytes of the decoded factors that all threads share, for the sources made so far."""
        return min(FACTOR_CACHE, self._factor_bytes)

    def low_rank(self, id: str, vector: Vector) -> LowRankSource:
        """The source of a vector with factors."""
        for a, b in vector.parts.values():
            self._factor_bytes += NUMBER_BYTES * (a.elements + b.elements)
        return LowRankSource(_delta(self, id, vector), vector, self.factors)

    def source(self, id: str) -> Source:
        """The source of a vector.

        Raises `InvalidInput` for a kind that cannot be merged, `IntegrityError` for a manifest that
        contradicts its base.
        """
        if id not in self._made:
            vector = self.vectors[id]
            if vector.base != self.base.digest:
                raise IntegrityError(
                    f"vector {abbreviate(id)} has another base than the expression that names it",
                    kind="vector",
                    id=id,
                )
            make = _KINDS.get(vector.kind)
            if make is None:
                raise InvalidInput(
                    f"vector {abbreviate(id)} is of kind {vector.kind}, which this persona cannot merge;"
                    " install a newer one"
                )
            self._made[id] = make(self, id, vector)
        return self._made[id]

    def check_tensors(self, id: str, vector: Vector) -> None:
        """Raises `IntegrityError` if the chunks or tensors of a vector are not those of its base."""
        if vector.table is None or vector.chunk != self.base.chunk:
            raise IntegrityError(
                f"vector {abbreviate(id)} and its base must have chunks of one length", kind="vector", id=id
            )
        for spec in vector.tensors:
            if self.base.spec.get(spec.name) != spec:
                raise IntegrityError(
                    f"vector {abbreviate(id)} changes the tensor {spec.name}, which its base lacks",
                    kind="vector",
                    id=id,
                )


def _delta(sources: Sources, id: str, vector: Vector) -> DeltaSource:
    sources.check_tensors(id, vector)
    data = sources.objects.get(vector.table or "", "table")
    return DeltaSource(id, sources.chunks, decode_vector_table(data, vector, f"vector {abbreviate(id)}"))


def _expression(sources: Sources, id: str, vector: Vector) -> Source:
    terms = [(coefficient, sources.source(part)) for part, coefficient in vector.expression]
    return expression.source_of(id, terms, sources.base.chunk)


_KINDS: Final[Mapping[str, Callable[[Sources, str, Vector], Source]]] = {
    "delta": _delta,
    "expression": _expression,
    "lowrank": Sources.low_rank,
}
