"""`switch`, `reset` and `restore`: HEAD and text files, without weights."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from persona.errors import Blank, Call, Hint, Keyword, UnknownName, UsageError
from persona.history.act_results import Restored
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.results import Head, SwitchResult
from persona.history.worktree import tracking, weights
from persona.history.worktree.changing import changing
from persona.history.worktree.locked import LockedTree
from persona.history.worktree.move import NO_MOVE, Target, left_behind, new_branch, plan_files, target_of
from persona.history.worktree.sequence import is_sequence_under_way
from persona.objects.ids import is_id
from persona.store.refs import NoteList
from persona.weights.foreign import is_weight_name


def switch(
    history: History,
    target: str | None = None,
    *,
    create: str | None = None,
    detach: bool = False,
    force: bool = False,
) -> SwitchResult:
    """Moves HEAD and the text files to a branch ("-": the one before), computing no weights.

    `create` makes that branch at `target` (HEAD by default). Anything but a branch needs `detach`. `force`
    throws edits away that are not committed.
    """
    with changing(history, force=force) as tree:
        if is_sequence_under_way(history):
            from persona.history.sequencing.state import refuse_second

            refuse_second(history, "switch branches")
        notes: list[str] = []
        goal = _goal(history, target, create, detach, notes)
        move = plan_files(history, goal.id, force=force)
        before = history.head_or_name()
        with tree.moving(move):
            start = (target or "HEAD") if create is not None else None
            left = tree.move_head(goal, history.committer(), typed=target or "HEAD", created=start)
        return replace(_where(tree, [*notes, *move.notes, *left], before), carried=move.carried)


def _goal(history: History, target: str | None, create: str | None, detach: bool, notes: NoteList) -> Target:
    """The destination of `switch`."""
    if create is not None:
        if detach:
            raise UsageError(
                "a switch cannot both make a branch and leave HEAD on no branch",
                hint=("give one of ", Keyword("create"), " and ", Keyword("detach")),
            )
        return new_branch(history, create, resolve(history, target or "HEAD", notes))
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
        move = plan_files(history, to, force=True) if mode == "hard" else NO_MOVE
        tree.remember(head)
        if mode == "soft":
            tree.track(set(history.files_of(head)) - set(history.files_of(to)))
        with tree.moving(move):
            left = left_behind(history, before, Target(to, None))
            tree.advance(to, history.committer(), f"reset: moving to {rev}", expect=head)
        if mode == "mixed":
            tree.forget()
        if dropped is not None:
            moving.settle_with(tree, dropped)
        return _where(tree, [*notes, *move.notes, *left], before)


def restore(history: History, paths: str | Sequence[str], rev: str = "HEAD") -> Restored:
    """Puts tracked text files of `rev` back into the work tree; returns their paths.

    `paths`: files, or directories, from the root of the work tree.
    """
    paths = [paths] if isinstance(paths, str) else paths
    if not paths:
        raise UsageError(
            "no file to restore", hint=("name one or more; ", Call("status"), " lists those that changed")
        )
    with changing(history) as tree:
        target, known = history.files_of(resolve(history, rev, history.notes)), history.last_files()
        tracked = tracking.tracked(history).paths
        chosen = _chosen(history.root, paths, target, known, tracked, rev)
        near = [path for path in {*tracked, *target} if _is_near(path, chosen)]
        here = tracking.ids(history, near)  # no other file has to be read
        way = [path for path in here if path not in target and _gives_way(history, path, chosen, here, known)]
        tree.track([path for path in chosen if path in target and path not in tracked])
        return Restored(tree.put(target, here, dict.fromkeys([*chosen, *way])))


def _is_near(path: str, chosen: Collection[str]) -> bool:
    """Whether a file is chosen, or is in the way of a chosen one, or the other way around."""
    if path in chosen:
        return True
    return any(path.startswith(f"{other}/") or other.startswith(f"{path}/") for other in chosen)


def _gives_way(
    history: History, path: str, chosen: Iterable[str], here: Mapping[str, str], known: Mapping[str, str]
) -> bool:
    """Whether a file makes room for a chosen one.

    It does if it lies in a directory that must become a file, or the other way around. A file that HEAD does
    not track, or an edit of a file that was not named, must be in the store.
    """
    below = any(path.startswith(f"{other}/") for other in chosen)
    if not below and not any(other.startswith(f"{path}/") for other in chosen):
        return False
    id = here[path]
    return (below and path in known) or (is_id(id) and history.store.objects.kind_of(id) == "blob")


def _chosen(
    root: Path,
    paths: Sequence[str],
    target: Mapping[str, str],
    known: Mapping[str, str],
    tracked: Iterable[str],
    rev: str,
) -> list[str]:
    """The files that `paths` name, of `rev` and of HEAD.

    Files that only HEAD has are removed. A file that no commit holds stays.
    """
    found: dict[str, None] = {}
    for path in paths:
        matches = [name for name in sorted({*target, *known}) if tracking.is_among(name, [path])]
        if not matches:
            named = [name for name in tracked if tracking.is_among(name, [path])]
            new = any(os.path.lexists(root / name) for name in named)
            hint: Hint = (Call("status"), " lists those that changed")
            if is_weight_name(path):
                hint = ("weights come back with ", Call("checkout"))
            elif new:
                hint = "the file is new: delete it to drop it"
            raise UnknownName(f"{rev} has no file {path}", hint=hint)
        found.update(dict.fromkeys(matches))
    return list(found)


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
