"""`switch` and `reset`: HEAD and text files, without weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from persona.errors import Blank, Call, Keyword, UsageError
from persona.history.history import History
from persona.history.names.revisions import branch_named, resolve
from persona.history.results import Head, SwitchResult
from persona.history.vectors.trained_from import left_behind_at
from persona.history.worktree import weights
from persona.history.worktree.changing import changing
from persona.history.worktree.locked import LockedTree
from persona.history.worktree.move import NO_MOVE, Target, left_behind, new_branch, plan_files, target_of
from persona.history.worktree.sequence import is_sequence_under_way, is_unmerged
from persona.store.refs import NoteList


def switch(
    history: History,
    target: str | None = None,
    *,
    create: str | None = None,
    force_create: str | None = None,
    detach: bool = False,
    force: bool = False,
) -> SwitchResult:
    """Moves HEAD and the text files to a branch ("-": the one before), computing no weights.

    `create` makes that branch at `target` (HEAD by default); `force_create` also moves one there that exists,
    whose commits are in its reflog then. Anything but a branch needs `detach`. `force`
    throws edits away that are not committed.
    """
    with changing(history, force=force) as tree:
        stays = create is not None and target is None
        if is_sequence_under_way(history) or (is_unmerged(history) and not stays):
            from persona.history.sequencing.state import refuse_second

            refuse_second(history, "switch branches")
        notes: list[str] = []
        goal = _goal(history, target, create, force_create, detach, notes)
        move = plan_files(history, goal.id, force=force)
        before = history.head_or_name()
        with tree.moving(move):
            over = force_create is not None
            start = (target or "HEAD") if over or create is not None else None
            who = history.committer()
            left = tree.move_head(goal, who, typed=target or "HEAD", created=start, over=over)
        lost = left_behind_at(history, goal.id, before.id)
        return replace(_where(tree, [*notes, *move.notes, *left, *lost], before), carried=move.carried)


def _goal(
    history: History,
    target: str | None,
    create: str | None,
    force_create: str | None,
    detach: bool,
    notes: NoteList,
) -> Target:
    """The destination of `switch`."""
    if create is not None or force_create is not None:
        if detach or None not in (create, force_create):
            raise UsageError(
                "a switch makes one branch, or leaves HEAD on no branch",
                hint=("give one of ", Keyword("create", "force_create"), " and ", Keyword("detach")),
            )
        branch = None if target is None else branch_named(history, target, notes)
        id = resolve(history, branch or target or "HEAD", notes)
        return new_branch(history, create or force_create or "", id, over=force_create is not None)
    if target is None:
        if not detach:
            raise UsageError(
                "no branch to switch to",
                hint=("name one, or make one with ", Call("switch", create=Blank("NEW"))),
            )
        return Target(history.head_commit(), None)
    if detach:
        return Target(resolve(history, target, notes), None)
    goal = target_of(history, target, notes)
    if target in ("HEAD", "@") or (goal.branch is None and target != "-"):
        raise UsageError(
            f"{target} is not a branch",
            hint=(
                Call("switch", target, detach=True),
                " goes there without one, ",
                Call("switch", target, create=Blank("NEW")),
                " makes one there",
            ),
        )
    return goal


def reset(
    history: History, rev: str = "HEAD", mode: Literal["soft", "mixed", "hard"] = "mixed"
) -> SwitchResult:
    """Moves the branch, or a detached HEAD, to `rev`.

    "hard" puts its text files in place too. There is no staging area, so "soft" and "mixed" both keep the
    work tree; "mixed" no longer tracks files that were only added.
    """
    with changing(history, force=mode == "hard") as tree:
        before = history.head()
        notes: list[str] = []
        head, to = history.head_commit(), resolve(history, rev, notes)
        dropped = None
        if is_sequence_under_way(history):
            from persona.history.sequencing import moving

            dropped = moving.sequence_before_reset(tree, mode)
        if mode == "soft" and is_unmerged(history):
            from persona.history.sequencing.state import refuse_second

            refuse_second(history, "do a soft reset")
        move = plan_files(history, to, force=True) if mode == "hard" else NO_MOVE
        tree.remember(head)
        if mode == "soft":
            tree.track(set(history.files_of(head)) - set(history.files_of(to)))
        with tree.moving(move):
            left = left_behind(history, before, Target(to, None))
            tree.advance(to, history.committer(), f"reset: moving to {rev}", expect=head)
        if mode == "mixed":
            tree.forget()
        tree.unmerged(None)
        if dropped is not None:
            moving.settle_with(tree, dropped)
        lost = left_behind_at(history, to, head) if mode == "hard" else []
        return _where(tree, [*notes, *move.notes, *left, *lost], before)


def _where(tree: LockedTree, notes: list[str], before: Head) -> SwitchResult:
    head = tree.history.head()
    return SwitchResult(
        branch=head.branch,
        id=head.id,
        weights=weights.standing(tree.history, tree),
        detached=head.branch is None,
        before=before,
        notes=tuple(dict.fromkeys(notes)),
    )
