"""**unmerged file** — a file with a conflict that a command has left in the work tree.

A merge, cherry-pick, revert or rebase stops there. `stash pop` and `stash apply` do not: nothing waits, but
no commit is made while their conflicts stand. `state/unmerged` has them, in the form of a stop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from persona.errors import Call, Conflicted, Note, WorkFile, listed
from persona.history.history import History
from persona.history.recipes.conflicts import IN_RECIPE, Conflict, is_new
from persona.history.recipes.pairs import renamed_key
from persona.history.sequencing.results import views
from persona.history.sequencing.state import (
    METHODS,
    Stop,
    read_sequence,
    standing,
    stop_json,
    under_way,
    unmerged,
)
from persona.history.sequencing.words import sentences, way_to_name
from persona.history.worktree import tracking
from persona.history.worktree.locked import LockedTree
from persona.history.worktree.sequence import is_sequence_under_way

WHOLE = ("presence", "binary", "json", "style")
"""The problems of files into which no conflict can be written."""


class Unmerged(NamedTuple):
    """What left the conflicts, a verb or "stash", and how it left the files."""

    verb: str
    stop: Stop


def keep(tree: LockedTree, stop: Stop | None) -> None:
    """Keeps the conflicts that a stash has left; None drops them."""
    tree.unmerged(None if stop is None else stop_json(stop))


def found(history: History) -> Unmerged | None:
    """How a merge, a pick or a stash has left the files that it changed; None if none waits."""
    if is_sequence_under_way(history):
        sequence = read_sequence(history)
        if sequence is not None and sequence.stop is not None and sequence.stop.why != "edit":
            return Unmerged(sequence.verb, sequence.stop)
    stop = unmerged(history)
    return None if stop is None else Unmerged("stash", stop)


def refuse_standing(history: History) -> None:
    """`Conflicted` if conflicts that a stash has left stand."""
    stop = unmerged(history)
    if stop is None:
        return
    conflicts = standing(history, stop)
    files = listed(list(dict.fromkeys(conflict.path for conflict in conflicts)))
    count = "a conflict stands" if len(conflicts) == 1 else f"{len(conflicts)} conflicts stand"
    told = [f"  {line}" for line in sentences("merge", conflicts, stop.labels)]
    raise Conflicted(
        "\n".join([f"{count} in {files}", *dict.fromkeys(told)]),
        conflicts=views(conflicts),
        hint=(*ways_out(conflicts), "; then run the command again"),
    )


def ways_out(conflicts: Iterable[Conflict]) -> tuple[str | Call, ...]:
    """The beginning of a hint: how the conflicts in files are resolved."""
    conflicts = list(conflicts)
    whole = [conflict.path for conflict in conflicts if conflict.problem in WHOLE]
    found: list[str | Call] = []
    if len(whole) < len(conflicts):
        found += ["edit the files and delete the markers", *way_to_name(conflicts)]
    if whole:
        file = WorkFile(whole[0])
        found += ["; " if found else "", Call("add", file), " keeps a file as it is, "]
        found += [Call("restore", file, theirs=True), " takes the other one"]
    return tuple(found)


def settle(tree: LockedTree, left: Unmerged, paths: Iterable[str], *, again: bool = False) -> None:
    """Notes that the conflicts of files are resolved; `again`: that they are not.

    Conflicts that are written into a file are resolved when they are gone from there.
    """
    stop = left.stop
    named = set(paths)
    whole = {conflict.path for conflict in stop.conflicts if conflict.problem in WHOLE}
    settled = set(stop.settled) - named if again else set(stop.settled) | (named & whole)
    _write(tree, left, replace(stop, settled=tuple(sorted(settled))))


def settle_named(tree: LockedTree, names: Iterable[str]) -> None:
    """Notes that files which `add` has named are resolved, whatever is in them."""
    left = found(tree.history)
    if left is None:
        return
    conflicts = dict.fromkeys(conflict.path for conflict in left.stop.conflicts)
    if named := {path for path in conflicts if tracking.is_among(path, names)}:
        _write(tree, left, replace(left.stop, settled=tuple(sorted({*left.stop.settled, *named}))))


def rename(tree: LockedTree, old: str, new: str) -> None:
    """Gives the conflicts about a vector its new name."""
    left = found(tree.history)
    if left is None:
        return
    before = left.stop.conflicts
    conflicts = tuple(renamed_key(one, old, new) if one.problem in IN_RECIPE else one for one in before)
    if conflicts != before:
        _write(tree, left, replace(left.stop, conflicts=conflicts))


def _write(tree: LockedTree, left: Unmerged, stop: Stop) -> None:
    if left.verb == "stash":
        keep(tree, stop)
    else:
        tree.sequence(replace(under_way(tree.history), stop=stop).to_json())


def whole_notes(left: Unmerged, paths: Iterable[str], rev: str | None, side: str | None) -> Iterator[str]:
    """The notes on files that are taken from one side as a whole, though parts of them had no conflict."""
    stop = left.stop
    named = set(paths)
    parts = (c.path for c in stop.conflicts if c.path in named and c.problem not in WHOLE and not is_new(c))
    where = rev if rev is not None else stop.labels[side == "theirs"]
    for path in dict.fromkeys(parts):
        said = f"{path} is that of {where} as a whole, also where it had no conflict"
        if side is None or left.verb == "stash":
            yield said
        else:
            go_on = Call(METHODS[left.verb], continue_=True, strategy=side)
            yield Note(
                said,
                (
                    Call("restore", WorkFile(path), merge=True),
                    " and then ",
                    go_on,
                    " decide only the conflicts",
                ),
            )
