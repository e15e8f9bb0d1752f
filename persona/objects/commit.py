"""**commit** — a tree, its parents, its author and committer with their times, and a message.

**tag** — a name for an object, with a tagger and a message.
**person** — name, e-mail, seconds since 1970-01-01 UTC, and the offset from UTC in minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from persona.errors import IntegrityError
from persona.frozen import dataclass
from persona.objects import canonical, fields
from persona.objects.ids import KINDS, require_id

MAX_PARENTS = 16
MIN_SECONDS = -62135510400
MAX_SECONDS = 253402214399
"""The years 1 to 9999, less a day at either end: every time is a calendar date at every offset."""
MAX_OFFSET = 1439
"""Minutes: less than a day from UTC."""


@dataclass(frozen=True)
class Person:
    """A name, an e-mail address and a time.

    `time` is in seconds since 1970 UTC, `offset` in minutes east of UTC.
    """

    name: str
    email: str
    time: int
    offset: int

    def to_json(self) -> dict[str, Any]:
        """The canonical form."""
        return {"email": self.email, "name": self.name, "offset": self.offset, "time": self.time}

    @classmethod
    def from_json(cls, value: Any, where: str) -> Person:
        """The person of a canonical form."""
        item = fields.mapping(value, where, ("email", "name", "offset", "time"))
        for key in ("email", "name"):
            if any(ord(char) < 0x20 or char in "<>\x7f" for char in fields.text(item[key], f"{where} {key}")):
                raise IntegrityError(f"{where} {key} must not have a control character, < or >")
        return cls(
            name=item["name"],
            email=item["email"],
            time=fields.integer(item["time"], f"{where} time", MIN_SECONDS, MAX_SECONDS),
            offset=fields.integer(item["offset"], f"{where} offset", -MAX_OFFSET, MAX_OFFSET),
        )


Signer = Person | Callable[[], Person] | None
"""A person, or a function that is asked for one when something is signed; None for the user of the config."""


def subject(message: str) -> str:
    """The first line of a message."""
    return message.split("\n", 1)[0]


@dataclass(frozen=True)
class Commit:
    """One point of history."""

    tree: str
    parents: tuple[str, ...]
    author: Person
    committer: Person
    message: str

    @property
    def subject(self) -> str:
        """The first line of the message."""
        return subject(self.message)

    def encode(self) -> bytes:
        """The canonical payload."""
        return canonical.encode(
            {
                "author": self.author.to_json(),
                "committer": self.committer.to_json(),
                "message": self.message,
                "parents": list(self.parents),
                "tree": self.tree,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Commit:
        """The commit of canonical bytes; `IntegrityError` for anything else."""
        value = fields.mapping(
            canonical.decode(data, "commit"), "commit", ("author", "committer", "message", "parents", "tree")
        )
        parents = fields.items(value["parents"], "commit parents", MAX_PARENTS)
        return cls(
            tree=require_id(value["tree"], "commit tree"),
            parents=tuple(require_id(parent, "commit parent") for parent in parents),
            author=Person.from_json(value["author"], "commit author"),
            committer=Person.from_json(value["committer"], "commit committer"),
            message=fields.text(value["message"], "commit message"),
        )


def links(data: bytes) -> tuple[str, list[str]]:
    """The tree and the parents of the canonical bytes of a commit; nothing else of them is read.

    A walk through a whole history takes a third of the time of `Commit.decode`. The bytes have to be verified
    by their id. Raises `IntegrityError` if they are no commit.
    """
    # The last two fields by name. In a message, quotation marks are escaped.
    words = data[data.rfind(b'"parents":[') :].decode("ascii", "replace").split('"')
    if len(words) < 7 or words[1] != "parents" or words[-4] != "tree":
        Commit.decode(data)
        raise IntegrityError("commit: not in canonical form")
    return words[-2], words[3:-5:2]


def committer_time(data: bytes) -> int:
    """The time of the committer in the canonical bytes of a commit, as `links` reads them."""
    at = data.find(b'"time":', data.find(b'"committer":{'))
    try:
        return int(data[at + 7 : data.index(b"}", at)])
    except ValueError:
        return Commit.decode(data).committer.time


@dataclass(frozen=True)
class Tag:
    """An annotated tag: its object and that object's kind, its own name, its tagger, and a message."""

    object: str
    kind: str
    name: str
    tagger: Person
    message: str

    @property
    def subject(self) -> str:
        """The first line of the message."""
        return subject(self.message)

    def encode(self) -> bytes:
        """The canonical payload."""
        return canonical.encode(
            {
                "kind": self.kind,
                "message": self.message,
                "name": self.name,
                "object": self.object,
                "tagger": self.tagger.to_json(),
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Tag:
        """The tag of canonical bytes; `IntegrityError` for anything else."""
        value = fields.mapping(
            canonical.decode(data, "tag"), "tag", ("kind", "message", "name", "object", "tagger")
        )
        return cls(
            object=require_id(value["object"], "tag object"),
            kind=fields.one_of(value["kind"], "tag kind", KINDS),
            name=fields.text(value["name"], "tag name"),
            tagger=Person.from_json(value["tagger"], "tag tagger"),
            message=fields.text(value["message"], "tag message"),
        )
