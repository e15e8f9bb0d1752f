"""The payloads that the ids of chunks cover: decoded elements, which the store does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from persona.errors import IntegrityError, PersonaError
from persona.objects.ids import abbreviate

if TYPE_CHECKING:
    from persona.store.objects import ObjectStore
    from persona.store.records import Record


class Payloads:
    """Canonical payloads of the kinds whose ids are over decoded elements."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def of(self, record: Record) -> list[Any] | None:
        """The parts of a record's payload; None when its base chunk cannot be read."""
        return [self._chunk(record)] if record.kind == "chunk" else self._delta(record)

    def _chunk(self, record: Record) -> memoryview:
        from persona.codec.base import raw_chunk

        try:
            return raw_chunk(record.form, record.segments)
        except IntegrityError as error:
            raise IntegrityError(f"chunk {abbreviate(record.id)}: {error.message}") from None

    def _delta(self, record: Record) -> list[Any] | None:
        import numpy as np

        from persona.codec.delta import decode_delta, delta_payload, exponent_order
        from persona.codec.elements import parse_form

        _, element = parse_form(record.form)
        if element is None or record.relative is None:
            raise IntegrityError(
                f"delta {abbreviate(record.id)}: its record lacks the base chunk or the element type"
            )
        try:
            raw = self._chunk(self._objects.read(record.relative, "chunk"))
        except PersonaError:
            return None
        if raw.nbytes % element.nbytes:
            raise IntegrityError(
                f"delta {abbreviate(record.id)}: its base chunk is no whole number of {element.name} elements"
            )
        base = np.frombuffer(raw, np.uint8).view(element.uint)
        order, sorted_base = np.empty(base.size, np.uint32), np.empty_like(base)
        exponent_order(base, element.name, order, sorted_base)
        z_sorted, z = np.empty_like(base), np.empty_like(base)
        decode_delta(record.form, record.segments, z_sorted)
        z[order] = z_sorted
        return list(delta_payload(record.relative, z))
