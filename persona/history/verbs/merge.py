"""`merge`: joins the history of another branch to the current one.

Three states meet: the merge base's, HEAD's, and the other branch's. A change that one branch made is in the
merge. If both changed the same value, each to another one, that is a conflict: the merge waits in the work
tree (`persona.history.sequencing`), and HEAD stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from persona.errors import Call, Keyword, Refused, UsageError
from persona.history import commit_checkout
from persona.history.commit_builder import build, tidy
from persona.history.history import History
from persona.history.names.revisions import branch_named, full_ref, resolve
from persona.history.names.walk import is_ancestor, walk
from persona.history.results import iso_date
from persona.history.sequencing import moving, running, unrecorded
from persona.history.sequencing.picking import of_merge, pick
from persona.history.sequencing.results import SequenceResult
from persona.history.sequencing.running import Made
from persona.history.sequencing.state import Sequence, Stop, refuse_second, under_way
from persona.history.sequencing.words import lost_notes, merge_message
from persona.history.worktree.changing import changing
from persona.history.worktree.locked import LockedTree
from persona.history.worktree.move import plan_files
from persona.objects.commit import Person
from persona.objects.ids import abbreviate


def merge(
    history: History,
    rev: str | None = None,
    *,
    no_ff: bool = False,
    ff_only: bool = False,
    no_commit: bool = False,
    squash: bool = False,
    message: str | None = None,
    edit: Callable[[str], str] | None = None,
    strategy: Literal["ours", "theirs", "mean"] | None = None,
    continue_: bool = False,
    abort: bool = False,
    quit_: bool = False,
) -> SequenceResult:
    """Joins the history of `rev` to HEAD, in a commit with two parents.

    If HEAD has nothing that `rev` has not, HEAD moves there without a commit, unless `no_ff`. `ff_only`:
    `Refused` if that is not possible. A conflict raises `Conflicted`: it is written into the work tree, and
    HEAD stays. `strategy` decides conflicts: "ours" or "theirs" takes one side, "mean" the mean of two
    numbers. `edit` takes the message and returns the new one. `no_commit`: the merge waits for `commit`.
    `squash`: only edits the work tree; the next commit has one parent, and a message that names the commits
    of `rev`. `continue_` commits a merge whose conflicts are resolved, or that `strategy` resolves; `abort`
    goes back; `quit_` forgets that there is a merge, and changes nothing. The setting `commit.checkout`
    applies as for `commit`.
    """
    if sum((rev is not None, continue_, abort, quit_)) != 1:
        raise UsageError(
            "give one thing to merge",
            hint=("or, while a merge is under way, ", Keyword(continue_=True), " or ", Keyword(abort=True)),
        )
    if no_ff and ff_only:
        raise UsageError(
            "a merge that must make a commit cannot be a fast-forward",
            hint=("give one of ", Keyword(no_ff=True), " and ", Keyword(ff_only=True)),
        )
    if squash and (no_ff or message is not None or edit is not None):
        raise UsageError(
            "a merge with squash makes no commit",
            hint=("leave out the other options; ", Call("commit"), " takes the message"),
        )
    if abort or quit_:
        with changing(history) as tree:
            return (running.abort if abort else running.forget)(tree, "merge")
    wanted = None if no_commit or squash else commit_checkout.wanted(history)
    if edit is not None:  # before the lock, which no editor should hold
        if rev is not None:
            refuse_second(history, "merge")
        message = edit(message or _message(history, rev))
    with changing(history) as tree:
        if continue_:
            made = running.go_on(tree, "merge", message=message, strategy=strategy)
        else:
            assert rev is not None
            made = _merge(tree, rev, no_ff, ff_only, no_commit, squash, message, strategy)
    return running.at_once(history, made, wanted)


def _squashed(history: History, head: str, theirs: str) -> str:
    """The message of a commit that has the changes of others, in git's words."""
    parts = ["Squashed commit of the following:"]
    for id, commit in walk(history, [theirs], [head]):
        author = commit.author
        lines = [f"commit {id}"]
        if len(commit.parents) > 1:
            lines.append(f"Merge: {' '.join(map(abbreviate, commit.parents))}")
        lines += [f"Author: {author.name} <{author.email}>", f"Date:   {_date(author)}", ""]
        lines += [f"    {line}".rstrip() for line in commit.message.rstrip("\n").split("\n")]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _date(person: Person) -> str:
    """A date as git writes it: Sun Nov 22 09:30:00 2026 +0100."""
    from datetime import datetime

    moment = datetime.fromisoformat(iso_date(person))
    return f"{moment:%a %b} {moment.day} {moment:%H:%M:%S} {moment.year:04} {moment:%z}"


def _message(history: History, rev: str | None) -> str:
    """The message of a merge of `rev`, or of the one that is under way."""
    if rev is None:
        stop = under_way(history, "merge").stop
        return stop.message if stop is not None else ""
    return merge_message(history, rev, full_ref(history, rev, []), history.head().branch)


def _merge(
    tree: LockedTree,
    rev: str,
    no_ff: bool,
    ff_only: bool,
    no_commit: bool,
    squash: bool,
    message: str | None,
    strategy: str | None,
) -> SequenceResult:
    history = tree.history
    refuse_second(history, "merge")
    notes: list[str] = []
    before, head = history.head(), history.head_commit()
    branch = branch_named(history, rev, notes) if rev == "-" or rev.startswith("@{-") else None
    theirs = resolve(history, branch or rev, notes)
    ref = branch or full_ref(history, rev, [])
    if is_ancestor(history, theirs, head):
        return running.result(tree, "merge", "up to date", Made(before, (), tuple(notes)))
    if is_ancestor(history, head, theirs) and not (no_ff or squash):
        files = plan_files(history, theirs, force=False, can_force=False)
        tree.remember(head)
        notes += moving.travel(tree, [(theirs, f"merge {rev}: Fast-forward")], files=files)
        done = Made(before, (), tuple(notes))
        return running.result(tree, "merge", "fast-forward", done, carried=files.carried)
    if ff_only and not (squash and is_ancestor(history, head, theirs)):
        raise Refused(
            f"not possible to fast-forward: {before.branch or 'HEAD'} and {rev} have both moved on",
            hint=("leave out ", Keyword(ff_only=True), " to make a merge"),
        )
    shown = rev if ref is not None else abbreviate(theirs)
    change = of_merge(history, head, theirs, ("HEAD", shown))
    with history.store.transaction() as tx:
        picked = pick(history, tx, change, head, strategy)  # type: ignore[arg-type]
    notes += lost_notes(picked.lost, shown)
    if squash:
        message = _squashed(history, head, theirs)
    said = tidy(message if message is not None else merge_message(history, rev, ref, before.branch))
    stop = Stop(
        why="prepared" if picked.tree is not None else "conflict",
        commit=theirs,
        parents=(head,) if squash else (head, theirs),
        message=said,
        author=None,
        theirs=theirs,
        left=moving.files_left(history, {**picked.edits}, picked.conflicts, head),
        conflicts=picked.conflicts,
        labels=change.labels,
    )
    sequence = Sequence("merge", before, head, stop)
    if squash and picked.tree is not None:
        unrecorded.put(tree, picked.edits, "merge")
        made = unrecorded.prepared(tree, said, tuple(notes), [theirs])
        return replace(
            running.result(tree, "merge", "prepared", Made(before)), commits=(made,), notes=made.notes
        )
    if picked.tree is None or no_commit:
        tree.remember(head)
        notes += moving.stop_here(tree, sequence, ())
        if picked.tree is None:
            moving.raise_conflict(sequence, picked.told, moving.stopped_at(history, sequence), picked.lost)
        return running.result(tree, "merge", "prepared", Made(before, (), tuple(notes)))
    with history.store.transaction() as tx:
        tx.rely_on(picked.tree)
        committer = history.committer()
        id = build(
            tx, picked.tree, (head, theirs), author=history.author(), committer=committer, message=said
        )
    tree.remember(head)
    notes += moving.travel(tree, [(id, f"merge {rev}: Merge made by the 'three-way' strategy.")])
    return running.result(tree, "merge", "done", Made(before, (id,), tuple(notes), (theirs,)))
