"""`reflog expire`: old moves leave the reflogs, so that `reflog` stays short and lost commits are let go."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from persona.errors import Call, UnknownName, UnknownRevision
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.names.revisions import full_ref
from persona.history.names.walk import walk_links
from persona.history.results import Result
from persona.store.reflog import Entry
from persona.store.refs import HEADS, TAGS

KEPT: Final = "90 days"
"""How long a move is kept, as in git."""
UNREACHABLE_KEPT: Final = "30 days"
"""How long a move to a commit is kept that the ref does not reach any more."""


@dataclass(frozen=True, repr=False)
class Expired(Result):
    """How many moves left the reflog of a ref, and how many stay in it."""

    ref: str
    removed: int
    kept: int


def expire_reflog(
    history: History,
    *refs: str,
    all: bool = False,
    expire: str = KEPT,
    expire_unreachable: str = UNREACHABLE_KEPT,
    dry_run: bool = False,
) -> list[Expired]:
    """Drops the moves of refs that are older than `expire`, a date or "never"; by default those of HEAD.

    Moves to commits that the ref does not reach any more go if they are older than `expire_unreachable`.
    `all`: of HEAD and all branches and tags, also those that were deleted. The newest move of a ref always
    stays. `dry_run` only counts.
    """
    names = history.store.refs.logged() if all else [_named(history, ref) for ref in refs or ("HEAD",)]
    limits = _date(expire), _date(expire_unreachable)
    found = []
    for name in names:
        keeps = _keeps(history, name, *limits)
        moves = history.store.refs.log(name)
        stale = sum(not keeps(move) for move in moves[1:])
        if stale and not dry_run:
            stale = history.store.refs.expire_log(name, keeps)
        short = name.removeprefix(HEADS)
        found.append(Expired(short, stale, len(moves) - stale))
    return found


def _named(history: History, ref: str) -> str:
    name = full_ref(history, ref, history.notes, branch_first=True)
    if name is None:
        logged = history.store.refs.logged()
        name = next((prefix + ref for prefix in (HEADS, TAGS, "") if prefix + ref in logged), None)
    if name is None:
        hint = (Call("branches.values"), " lists the branches")
        raise UnknownName(f"no branch or tag is named {ref}", hint=hint)
    return name


def _date(text: str) -> int | None:
    """The second before which moves go; None for never."""
    if text in ("never", "false"):
        return None
    if text == "all":
        text = "now"
    from persona.history.names.dates import parse_date

    now = int(time.time())
    found = parse_date(text, now)
    if found is None:
        raise UnknownRevision(f"{text!r:.60} is not a date; write '90 days', 2026-11-15, now or never")
    return found[0] + (found[0] == now)


def _keeps(history: History, name: str, old: int | None, lost: int | None) -> Callable[[Entry], bool]:
    """Whether a move stays, by its time, and by whether the ref still reaches its commit."""
    reached: set[str] | None = None

    def keeps(entry: Entry) -> bool:
        nonlocal reached
        if old is not None and entry.time < old:
            return False
        if lost is None or entry.time >= lost:
            return True
        if reached is None:
            tip = _tip(history, name)
            reached = {id for id, _ in walk_links(history, [tip])} if tip is not None else set()
        return entry.new in reached

    return keeps


def _tip(history: History, name: str) -> str | None:
    """The commit that a ref leads to; None for one that is gone, and for a tag of another object."""
    id = history.head_or_name().id if name == "HEAD" else history.store.refs.read(name)
    if id is None:
        return None
    id, kind = history.peeled(id)
    return id if kind == "commit" else None
