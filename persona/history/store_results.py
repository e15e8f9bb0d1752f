"""The results of `fsck`, `count-objects` and `cat-file`; see `results`.

They are a module of their own because every command imports `results`, and each of these classes takes part
of a millisecond to make.
"""

from __future__ import annotations

from dataclasses import field

from persona.frozen import dataclass
from persona.history.results import UNPRINTED, Result


@dataclass(frozen=True, repr=False)
class Problem(Result):
    """Something wrong in the store."""

    kind: str | None
    id: str | None
    problem: str


@dataclass(frozen=True, repr=False)
class Dangling(Result):
    """A commit, tag or vector that nothing names."""

    kind: str
    id: str


@dataclass(frozen=True, repr=False)
class Leftover(Result):
    """A file that a command left when it died, or an idx whose pack is gone; `bytes` on disk."""

    file: str
    bytes: int


@dataclass(frozen=True, repr=False)
class FsckResult(Result):
    """The result of `fsck`. It is `ok` if there is no problem; dangling objects and leftovers are none.

    `unreachable`: how many objects no ref, reflog or recipe reaches. `dangling`: the unreachable objects that
    no other one names.
    """

    ok: bool
    objects: int
    problems: tuple[Problem, ...]
    unreachable: int = field(default=0, metadata=UNPRINTED)
    dangling: tuple[Dangling, ...] = ()
    leftovers: tuple[Leftover, ...] = ()


@dataclass(frozen=True, repr=False)
class ObjectCount(Result):
    """Objects, packs, and leftovers, with bytes on disk of packs, indexes and loose objects."""

    objects: int
    packs: int
    bytes: int
    leftovers: tuple[Leftover, ...] = field(default=(), metadata=UNPRINTED)


@dataclass(frozen=True, repr=False)
class ObjectText(Result):
    """An object for `cat-file`: its kind, its payload's size, and its text.

    The text of a table is hex lines, the text of a chunk a description.
    """

    id: str
    kind: str
    size: int
    text: bytes
