"""Ids name what an object means, not how it is stored.

**id** — BLAKE3-256 of ``kind ‖ 00 ‖ version in decimal ‖ 00 ‖ canonical payload`` as 64 lowercase hex digits.
Compressing, permuting or packing an object never changes its id.
**null id** — 64 zeros; in a vector's table, a chunk in which nothing changed.
"""

from __future__ import annotations

from typing import Final

from blake3 import blake3

from persona.errors import IntegrityError

Bytes = bytes | bytearray | memoryview

ID_CHARS: Final = 64
ABBREVIATED_CHARS: Final = 8
"""Hex digits of an id in output."""
NULL_ID: Final = "0" * ID_CHARS

KINDS: Final = (
    "chunk",
    "delta",
    "table",
    "blob",
    "base",
    "vector",
    "recipe",
    "tree",
    "commit",
    "tag",
    "note",
)
"""Every kind of object: base chunks, vector chunks, and the structured ones that name them."""

_HEX = frozenset("0123456789abcdef")


def object_id(kind: str, *parts: Bytes, version: int = 1) -> str:
    """The id of an object whose canonical payload is the concatenation of `parts`."""
    hasher = blake3(b"%s\x00%d\x00" % (kind.encode("ascii"), version))
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def is_id(text: object) -> bool:
    """Whether `text` is a whole id: 64 lowercase hex digits."""
    return isinstance(text, str) and len(text) == ID_CHARS and _HEX.issuperset(text)


def abbreviate(id: str) -> str:
    """The first 8 digits, as output shows an id."""
    return id[:ABBREVIATED_CHARS]


def require_id(value: object, where: str, *, null: bool = False) -> str:
    """`value` as an id; raises `IntegrityError` that names `where`. `null` allows the null id."""
    if not isinstance(value, str) or not is_id(value) or (value == NULL_ID and not null):
        raise IntegrityError(f"{where}: {value!r:.80} is not an object id")
    return value
