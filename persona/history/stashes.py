"""**stash** — edits of the work tree that were put aside: a commit whose parent is the HEAD that they are of.

`state/stash` lists the stashes, the newest first. `stash@{0}` is the newest.
"""

from __future__ import annotations

import re
from typing import Any, Final

from persona.errors import Call, Refused, UnknownRevision, UsageError
from persona.frozen import dataclass
from persona.history.history import History
from persona.objects.ids import require_id
from persona.objects.names import file_path_problem

STASH: Final = "stash"
_SELECTOR: Final = re.compile(r"(?:(?:refs/)?stash@\{)?(\d{1,9})\}?")


@dataclass(frozen=True)
class Stashed:
    """A stash: its commit, and the files of it that only `add` had named."""

    id: str
    added: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The form of `state/stash`."""
        return {"id": self.id, "added": self.added}


def stashes(history: History) -> list[Stashed]:
    """The stashes, the newest first."""
    cost = ("the stashes are then forgotten; ", Call("fsck"), " lists their commits")
    return history.store.state(STASH).decoded(_decoded, *cost) or []


def place_of(history: History, selector: str | int | None) -> int:
    """The place of the stash that `stash@{1}`, `1` or None (the newest) names. Raises if there is none."""
    match = _SELECTOR.fullmatch(str(selector)) if selector not in (None, STASH) else None
    if match is None and selector not in (None, STASH):
        raise UsageError(
            f"{selector!r:.60} is not a stash", hint=("name it by its number, or as stash@{1}; ", _LISTS)
        )
    place = int(match[1]) if match else 0
    count = len(stashes(history))
    if count == 0:
        raise Refused("no stash entries found", hint=(Call("stash.push"), " makes one"))
    if place >= count:
        entries = "one entry" if count == 1 else f"{count} entries"
        raise UnknownRevision(f"stash@{{{place}}}: the stash has {entries}", hint=_LISTS_THEM)
    return place


_LISTS: Final = Call("stash.list")
_LISTS_THEM: Final = (_LISTS, " lists them")


def _decoded(value: Any) -> list[Stashed]:
    if type(value) is not list:
        raise TypeError
    found = []
    for item in value:
        added = tuple(item["added"])
        if any(type(path) is not str or file_path_problem(path) for path in added):
            raise TypeError
        found.append(Stashed(require_id(item["id"], STASH), added))
    return found
