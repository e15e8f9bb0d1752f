"""What `fsck`, `count-objects` and `cat-file` answer with, in the form of `results`.

They stand by themselves because every command imports `results`, and each of these classes takes a part of a
millisecond to make.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from persona.history.results import UNPRINTED


@dataclass(frozen=True)
class Problem:
    """Something wrong in the store."""

    kind: str | None
    id: str | None
    problem: str


@dataclass(frozen=True)
class Dangling:
    """A commit, tag or vector that nothing names."""

    kind: str
    id: str


@dataclass(frozen=True)
class Leftover:
    """A file that a command left when it died, or an idx whose pack is gone; `bytes` on disk."""

    file: str
    bytes: int


@dataclass(frozen=True)
class FsckResult:
    """What `fsck` found. `ok` when there is no problem; what dangles and what is left over is none.

    `unreachable`: how many objects no ref, reflog or recipe reaches; `dangling`: those of them by which the
    rest would be reached.
    """

    ok: bool
    objects: int
    problems: tuple[Problem, ...]
    unreachable: int = field(default=0, metadata=UNPRINTED)
    dangling: tuple[Dangling, ...] = ()
    leftovers: tuple[Leftover, ...] = ()


@dataclass(frozen=True)
class ObjectCount:
    """Objects, packs, and bytes on disk of packs, indexes and loose objects; and what is left over."""

    objects: int
    packs: int
    bytes: int
    leftovers: tuple[Leftover, ...] = field(default=(), metadata=UNPRINTED)


@dataclass(frozen=True)
class ObjectText:
    """An object for `cat-file`: its kind, its payload's size, and its text (hex lines for a table, prose for
    chunks).
    """

    id: str
    kind: str
    size: int
    text: bytes
