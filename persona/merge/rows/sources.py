"""The sources of vectors by their kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from persona.errors import IntegrityError, InvalidInput
from persona.merge.rows import expression
from persona.merge.rows.cache import BoundedCache
from persona.merge.rows.delta import DeltaSource
from persona.merge.rows.growth import KnownBase, fitted
from persona.merge.rows.lowrank import FACTOR_CACHE, FactorReader, LowRankSource
from persona.merge.rows.source import NUMBER_BYTES, Source
from persona.objects.ids import NULL_ID, abbreviate
from persona.objects.table import decode_vector_table
from persona.objects.vector import Vector
from persona.store.objects import ObjectStore


class Sources:
    """Makes the sources of some vectors of one base, each once."""

    def __init__(
        self, objects: ObjectStore, base: KnownBase, whole: KnownBase, vectors: Mapping[str, Vector]
    ) -> None:
        """`vectors`: the manifests by id, with those of the vectors that expressions name.

        `whole`: the base as the vectors of the recipe grow it, whose tensors the rows belong to.
        """
        self.objects = objects
        self.base = base
        self.whole = whole
        self.vectors = vectors
        self.factors = FactorReader(base.chunks.reader, BoundedCache(FACTOR_CACHE))
        self._made: dict[str, Source] = {}
        self._factor_bytes = 0

    @property
    def shared_bytes(self) -> int:
        """Bytes of the decoded factors that all threads share, for the sources made so far."""
        return min(FACTOR_CACHE, self._factor_bytes)

    def source(self, id: str) -> Source:
        """The source of a vector.

        Raises `InvalidInput` for a kind that cannot be merged, `IntegrityError` for a manifest that
        contradicts its base.
        """
        if id not in self._made:
            vector = self.vectors[id]
            if vector.base != self.base.base.digest:
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

    def low_rank(self, id: str, vector: Vector) -> Source:
        """The source of a vector with factors."""
        for a, b in vector.parts.values():
            self._factor_bytes += NUMBER_BYTES * (a.elements + b.elements)
        known = self._known(id, vector)
        return self._fitted(LowRankSource(self._dense(id, vector, known), vector, self.factors), known)

    def delta(self, id: str, vector: Vector) -> Source:
        """The source of a delta."""
        known = self._known(id, vector)
        return self._fitted(self._dense(id, vector, known), known)

    def expression(self, id: str, vector: Vector) -> Source:
        """The source of an expression."""
        terms = [(coefficient, self.source(part)) for part, coefficient in vector.expression]
        return expression.source_of(id, terms, self.base.base.chunk)

    def _known(self, id: str, vector: Vector) -> KnownBase:
        """The base as a vector grows it by itself.

        Raises `IntegrityError` if the chunks or tensors of the vector are not those of its base.
        """
        if vector.table is None or vector.chunk != self.base.base.chunk:
            raise IntegrityError(
                f"vector {abbreviate(id)} and its base must have chunks of one length", kind="vector", id=id
            )
        known = self.base.extended(self.objects, [(abbreviate(id), vector)])
        for spec in vector.tensors:
            if known.base.spec.get(spec.name) != spec:
                raise IntegrityError(
                    f"vector {abbreviate(id)} changes the tensor {spec.name}, which its base lacks",
                    kind="vector",
                    id=id,
                )
        return known

    def _dense(self, id: str, vector: Vector, known: KnownBase) -> DeltaSource:
        """The table of a vector as that of a delta. A tensor may grow by zeros, and then does not change."""
        data = self.objects.get(vector.table or "", "table")
        table = decode_vector_table(data, vector, f"vector {abbreviate(id)}")
        same = [name for name, _ in vector.grown if set(table.chunks(name)) == {NULL_ID}]
        return DeltaSource(id, known.chunks, table.without(same) if same else table)

    def _fitted(self, source: Source, known: KnownBase) -> Source:
        return source if known is self.whole else fitted(source, known, self.whole)


_KINDS: Final[Mapping[str, Callable[[Sources, str, Vector], Source]]] = {
    "delta": Sources.delta,
    "expression": Sources.expression,
    "lowrank": Sources.low_rank,
}
