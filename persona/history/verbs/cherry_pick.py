"""`cherry-pick`: makes the changes of commits again, each in a new commit on HEAD.

Three states meet: the parent's of the picked commit, the commit's, and HEAD's. If HEAD has changed the same
value as the commit, each to another one, that is a conflict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from persona.errors import Refused
from persona.history import commit_checkout
from persona.history.history import History
from persona.history.sequencing import running, unrecorded
from persona.history.sequencing.choosing import chosen, one_of_these
from persona.history.sequencing.results import SequenceResult
from persona.history.sequencing.running import Made, message_of
from persona.history.sequencing.state import Sequence, Todo, refuse_second
from persona.history.worktree.changing import changing
from persona.history.worktree.locked import LockedTree


def cherry_pick(
    history: History,
    *revs: str,
    mainline: int | None = None,
    no_commit: bool = False,
    origin: bool = False,
    strategy: Literal["ours", "theirs", "mean"] | None = None,
    message: str | None = None,
    edit: Callable[[str], str] | None = None,
    continue_: bool = False,
    abort: bool = False,
    skip: bool = False,
    quit_: bool = False,
) -> SequenceResult:
    """Makes the changes of commits again, each in a new commit with the author and message of the old one.

    `revs`: revisions, in this order, or ranges, oldest first. A conflict raises `Conflicted`: it is written
    into the work tree, and HEAD stays at the commits made so far. `strategy` decides conflicts, as for
    `merge`. `continue_` goes on after that, with `message` if it is given; `skip` leaves the commit out;
    `abort` goes back; `quit_` forgets the commits that wait, and changes nothing. `mainline`: the parent of a
    merge that its change is against, from 1. `origin`: the message names the old commit. `edit` takes each
    message and returns the new one. `no_commit`: only edits the work tree; a conflict then changes nothing.
    The setting `commit.checkout` applies as for `commit`.
    """
    one_of_these(bool(revs), continue_, abort, skip, quit_)
    wanted = None if no_commit or abort else commit_checkout.wanted(history)
    todo: tuple[Todo, ...] | None = None
    if edit is not None and revs:  # before the lock, which no editor should hold
        refuse_second(history, "cherry-pick")
        todo = _todo(history, revs, mainline, [])
        state = replace(Sequence("cherry-pick", history.head(), "", None), origin=origin)
        todo = tuple(replace(one, message=edit(message_of(history, state, one))) for one in todo)
    with changing(history) as tree:
        if abort:
            return running.abort(tree, "cherry-pick")
        if quit_:
            return running.forget(tree, "cherry-pick")
        if skip:
            made = running.skip(tree, "cherry-pick")
        elif continue_:
            made = running.go_on(tree, "cherry-pick", message=message, strategy=strategy)
        else:
            made = _pick(tree, revs, mainline, no_commit, origin, strategy, todo)
    return running.at_once(history, made, wanted)


def _pick(
    tree: LockedTree,
    revs: tuple[str, ...],
    mainline: int | None,
    no_commit: bool,
    origin: bool,
    strategy: str | None,
    todo: tuple[Todo, ...] | None,
) -> SequenceResult:
    history = tree.history
    refuse_second(history, "cherry-pick")
    notes: list[str] = []
    todo = _todo(history, revs, mainline, notes) if todo is None else todo
    before, head = history.head(), history.head_commit()
    state = replace(Sequence("cherry-pick", before, head, None, todo), strategy=strategy, origin=origin)
    if no_commit:
        made = unrecorded.make(tree, state, None, tuple(notes))
        return SequenceResult("cherry-pick", "prepared", history.head(), before, (made,), notes=made.notes)
    done = running.run(tree, state, Made(before, (), tuple(notes)), alone=len(todo) == 1)
    if done.state == "nothing":
        raise Refused(f"nothing to cherry-pick: {'; '.join(done.notes)}")
    return done


def _todo(
    history: History, revs: tuple[str, ...], mainline: int | None, notes: list[str]
) -> tuple[Todo, ...]:
    """The commits to pick, in order."""
    ids = chosen(history, revs, notes, newest_first=False)
    return tuple(Todo("pick", id, mainline) for id in ids)
