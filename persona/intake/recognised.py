"""A checkpoint under the names of a base, as an import finds them: for a comparison that stores nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona.codec.floats import in_default_environment
from persona.errors import InvalidInput
from persona.intake.choices import Choices
from persona.intake.match import match_tensors
from persona.intake.parts import View
from persona.merge.rows.growth import KnownBase
from persona.objects.base import Base
from persona.store.store import Store
from persona.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Recognised(Checkpoint):
    """A checkpoint whose tensors are those of a view. It shares the open files of the checkpoint."""

    def __init__(self, checkpoint: Checkpoint, view: View) -> None:
        super().__init__(checkpoint.path)
        self._checkpoint, self._view = checkpoint, view
        self.tensors = {name: (spec, 0) for name, spec in sorted(view.specs.items())}

    def read_into(self, name: str, start_byte: int, out: WriteableBuffer) -> None:
        """See `Checkpoint.read_into`."""
        self._view.read_into(name, start_byte, out)

    def check_unchanged(self) -> None:
        """As for the checkpoint."""
        self._checkpoint.check_unchanged()

    def close(self) -> None:
        """Does nothing: who opened the checkpoint closes it."""


@in_default_environment
def recognised(store: Store, base: Base, checkpoint: Checkpoint) -> Recognised | None:
    """A checkpoint under the names of a base, or None if an import would not take it, whatever the flags.

    Its parts of wrappers, its renamed, stacked and fused tensors are found as by `commit --rename`.
    """
    choices = Choices(rename=True, cast=True, extend_vocab=True, untie=True)
    known = KnownBase.of(store.objects, base)
    try:
        found = match_tensors(base, known.chunks, checkpoint, choices, lambda name: [])
    except InvalidInput:
        return None
    held = {
        match.spec.name: found.view.held[match.source.name].named(match.spec.name)
        for match in found.matches
        if match.source is not None
    }
    return Recognised(checkpoint, View(checkpoint, held))
