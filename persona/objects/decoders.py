"""The decoder of each kind of structured object. An object that it refuses is not stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from persona.objects.base import Base
from persona.objects.commit import Commit, Tag
from persona.objects.recipe import Recipe
from persona.objects.tree import Tree
from persona.objects.vector import Vector


def _note(data: bytes) -> object:
    from persona.objects.note import Note  # rare: everyday commands do not need it

    return Note.decode(data)


DECODERS: Final[Mapping[str, Callable[[bytes], object]]] = {
    "base": Base.decode,
    "vector": Vector.decode,
    "recipe": Recipe.decode,
    "tree": Tree.decode,
    "commit": Commit.decode,
    "tag": Tag.decode,
    "note": _note,
}
"""Each raises `IntegrityError` for anything but canonical bytes."""
