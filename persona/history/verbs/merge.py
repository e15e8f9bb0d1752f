"""`merge`: joins the history of another branch to the current one.

Three states meet: the merge base's, HEAD's, and the other branch's. A change that one branch made is in the
merge. If both changed the same value, each to another one, that is a conflict: the merge waits in the work
tree (`persona.history.sequencing`), and HEAD stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from persona.errors import Keyword, Refused, UsageError
from persona.history import placing
from persona.history.commit_builder import build, tidy
from persona.history.history import History
from persona.history.names.revisions import branch_named, full_ref, resolve
from persona.history.names.walk import is_ancestor
from persona.history.sequencing import moving, running
from persona.history.sequencing.picking import of_merge, pick
from persona.history.sequencing.results import SequenceResult
from persona.history.sequencing.running import Made
from persona.history.sequencing.state import Sequence, Stop, refuse_second, under_way
from persona.history.sequencing.words import lost_notes, merge_message
from persona.history.worktree.changing import changing
from persona.history.worktree.locked import LockedTree
from persona.history.worktree.move import plan_files
from persona.objects.ids import abbreviate


def merge(
    history: History,
    rev: str | None = None,
    *,
    no_ff: bool = False,
    ff_only: bool = False,
    no_commit: bool = False,
    message: str | None = None,
    edit: Callable[[str], str] | None = None,
    strategy: Literal["ours", "theirs", "mean"] | None = None,
    continue_: bool = False,
    abort: bool = False,
) -> SequenceResult:
    """Joins the history of `rev` to HEAD, in a commit with two parents.

    If HEAD has nothing that `rev` has not, HEAD moves there without a commit, unless `no_ff`. `ff_only`:
    `Refused` if that is not possible. A conflict raises `Conflicted`: it is written into the work tree, and
    HEAD stays. `strategy` decides conflicts: "ours" or "theirs" takes one side, "mean" the mean of two
    numbers. `edit` takes the message and returns the new one. `no_commit`: the merge waits for `commit`.
    `continue_` commits a merge whose conflicts are resolved, or that `strategy` resolves; `abort` goes back.
    The setting `commit.checkout` applies as for `commit`.
    """
    if sum((rev is not None, continue_, abort)) != 1:
        raise UsageError(
            "give one thing to merge",
            hint=("or, while a merge is under way, ", Keyword(continue_=True), " or ", Keyword(abort=True)),
        )
    if no_ff and ff_only:
        raise UsageError(
            "a merge that must make a commit cannot be a fast-forward",
            hint=("give one of ", Keyword(no_ff=True), " and ", Keyword(ff_only=True)),
        )
    if abort:
        with changing(history) as tree:
            return running.abort(tree, "merge")
    wanted = None if no_commit else placing.wanted_at_once(history)
    if edit is not None:  # before the lock, which no editor should hold
        if rev is not None:
            refuse_second(history, "merge")
        message = edit(message or _message(history, rev))
    with changing(history) as tree:
        if continue_:
            made = running.go_on(tree, "merge", message=message, strategy=strategy)
        else:
            assert rev is not None
            made = _merge(tree, rev, no_ff, ff_only, no_commit, message, strategy)
    return running.at_once(history, made, wanted)


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
    if is_ancestor(history, head, theirs) and not no_ff:
        files = plan_files(history, theirs, force=False, can_force=False)
        tree.remember(head)
        notes += moving.travel(tree, [(theirs, f"merge {rev}: Fast-forward")], files=files)
        done = Made(before, (), tuple(notes))
        return running.result(tree, "merge", "fast-forward", done, carried=files.carried)
    if ff_only:
        raise Refused(
            f"not possible to fast-forward: {before.branch or 'HEAD'} and {rev} have both moved on",
            hint=("leave out ", Keyword(ff_only=True), " to make a merge"),
        )
    shown = rev if ref is not None else abbreviate(theirs)
    change = of_merge(history, head, theirs, ("HEAD", shown))
    with history.store.transaction() as tx:
        picked = pick(history, tx, change, head, strategy)  # type: ignore[arg-type]
    notes += lost_notes(picked.lost, shown)
    said = tidy(message if message is not None else merge_message(history, rev, ref, before.branch))
    stop = Stop(
        why="prepared" if picked.tree is not None else "conflict",
        commit=theirs,
        parents=(head, theirs),
        message=said,
        author=None,
        theirs=theirs,
        left=moving.files_left(history, {**picked.edits}, picked.conflicts, head),
        conflicts=picked.conflicts,
        labels=change.labels,
    )
    sequence = Sequence("merge", before, head, stop)
    if picked.tree is None or no_commit:
        tree.remember(head)
        notes += moving.stop_here(tree, sequence, ())
        if picked.tree is None:
            moving.raise_conflict(sequence, picked.told, moving.stopped_at(history, sequence))
        return running.result(tree, "merge", "prepared", Made(before, (), tuple(notes)))
    with history.store.transaction() as tx:
        tx.rely_on(picked.tree)
        committer = history.committer()
        id = build(
            tx, picked.tree, (head, theirs), author=history.author(), committer=committer, message=said
        )
    tree.remember(head)
    notes += moving.travel(tree, [(id, f"merge {rev}: Merge made by the 'three-way' strategy.")])
    return running.result(tree, "merge", "done", Made(before, (id,), tuple(notes)))
