"""**note** — a fact learned about a commit, a vector, a recipe or weights after they were made.

Refs in refs/notes/ name the notes, so learning a fact never changes the id of the object that it is about.
"""

from __future__ import annotations

from typing import Any, Final

from persona.frozen import dataclass
from persona.objects import canonical, fields
from persona.objects.ids import require_id

NOTE_KINDS: Final = ("provenance", "scores", "measured", "weights", "text")
ABOUT_KINDS: Final = ("commit", "vector", "recipe", "weights")


@dataclass(frozen=True)
class Note:
    """A fact.

    `about`: the id of a commit or a vector, the key of a recipe, or the hex digits of a weights digest, as
    `about_kind` says. `kind`: one of `NOTE_KINDS`. `data`: canonical JSON.
    """

    about: str
    about_kind: str
    kind: str
    data: dict[str, Any]

    def encode(self) -> bytes:
        """The canonical payload."""
        return canonical.encode(
            {"about": self.about, "about_kind": self.about_kind, "data": self.data, "kind": self.kind}
        )

    @classmethod
    def decode(cls, payload: bytes) -> Note:
        """The note of canonical bytes; `IntegrityError` for anything else."""
        value = fields.mapping(
            canonical.decode(payload, "note"), "note", ("about", "about_kind", "data", "kind")
        )
        if type(value["data"]) is not dict:
            fields.mapping(value["data"], "note data", ())
        return cls(
            about=require_id(value["about"], "note about"),
            about_kind=fields.one_of(value["about_kind"], "note about_kind", ABOUT_KINDS),
            kind=fields.one_of(value["kind"], "note kind", NOTE_KINDS),
            data=value["data"],
        )
