"""`restore`: text files as a commit has them, or as one side of a conflict has them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from persona.errors import (
    Call,
    Hint,
    Keyword,
    PersonaError,
    Refused,
    UnknownName,
    UsageError,
    WorkFile,
    listed,
)
from persona.history.act_results import Restored
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.recipes.text import RECIPE_FILE
from persona.history.worktree import text_files, tracking
from persona.history.worktree.changing import changing
from persona.history.worktree.sequence import is_sequence_under_way, is_unmerged
from persona.objects.ids import is_id
from persona.objects.recipe import Recipe
from persona.weights.foreign import is_weight_name

if TYPE_CHECKING:
    from persona.history.sequencing.unmerged import Unmerged

Side = Literal["ours", "theirs", "merge"]


def restore(
    history: History,
    paths: str | Sequence[str],
    rev: str | None = None,
    *,
    ours: bool = False,
    theirs: bool = False,
    merge: bool = False,
) -> Restored:
    """Puts tracked text files of `rev` (HEAD by default) back into the work tree; returns their paths.

    `paths`: files, or directories, from the root of the work tree. While a merge waits and without `rev`, a
    file becomes what the merge has made of it. If it has a conflict, this raises `Refused`, unless `ours` or
    `theirs` takes one side as a whole, or `merge` writes the conflict again.
    """
    paths = [paths] if isinstance(paths, str) else paths
    if not paths:
        raise UsageError(
            "no file to restore", hint=("name one or more; ", Call("status"), " lists those that changed")
        )
    side: Side | None = "ours" if ours else "theirs" if theirs else "merge" if merge else None
    if ours + theirs + merge + (rev is not None) > 1:
        raise UsageError(
            "a file is restored from one place",
            hint=("give one of ", Keyword("rev"), ", ", Keyword("ours"), ", ", Keyword("theirs", "merge")),
        )
    with changing(history) as tree:
        target, known = history.files_of(resolve(history, rev or "HEAD", history.notes)), history.last_files()
        tracked = tracking.tracked(history).paths
        left = _left(history)
        if left is not None and rev is None:
            target = _at_a_stop(history, target, left, side)
        chosen = _chosen(history.root, paths, target, known, tracked, rev or "HEAD")
        conflicts = _conflicted(left, chosen)
        if rev is None:
            _refuse_unmerged(conflicts, target, side)
        near = [path for path in {*tracked, *target} if _is_near(path, chosen)]
        here = tracking.ids(history, near)  # no other file has to be read
        way = [path for path in here if path not in target and _gives_way(history, path, chosen, here, known)]
        tree.track([path for path in chosen if path in target and path not in tracked])
        before = _recipe(history) if RECIPE_FILE in chosen else None
        done = Restored(tree.put(target, here, dict.fromkeys([*chosen, *way])))
        if left is not None and conflicts:
            from persona.history.sequencing import unmerged

            unmerged.settle(tree, left, conflicts, again=side == "merge")
            if side != "merge":
                done.notes = tuple(unmerged.whole_notes(left, conflicts, rev, side))
        if before is not None and (after := _recipe(history)) is not None:
            from persona.history.vectors.trained_from import left_behind

            done.notes = (*done.notes, *left_behind(history, after, before))
        return done


def _recipe(history: History) -> Recipe | None:
    """The recipe of `recipe.toml`; None if it is none."""
    with suppress(PersonaError):
        return text_files.recipe(history).recipe
    return None


# -- files with a conflict -----------------------------------------------------------------------------------


def _left(history: History) -> Unmerged | None:
    """What a merge, a pick or a stash has left in the work tree; None if none waits."""
    if not (is_sequence_under_way(history) or is_unmerged(history)):
        return None
    from persona.history.sequencing import unmerged

    return unmerged.found(history)


def _at_a_stop(
    history: History, committed: Mapping[str, str], left: Unmerged, side: Side | None
) -> dict[str, str]:
    """The files as a merge has left them, those with a conflict as one side has them."""
    stop, target = left.stop, dict(committed)
    others = history.files_of(stop.theirs) if side == "theirs" else {}
    conflicted = {conflict.path for conflict in stop.conflicts}
    for path, blob in stop.left.items():
        if path in conflicted and side == "ours":
            continue
        if path in conflicted and side == "theirs":
            blob = others.get(path)
        if blob is None:
            target.pop(path, None)
        else:
            target[path] = blob
    return target


def _conflicted(left: Unmerged | None, chosen: Collection[str]) -> list[str]:
    """The chosen files that have a conflict."""
    conflicts = () if left is None else left.stop.conflicts
    return list(dict.fromkeys(conflict.path for conflict in conflicts if conflict.path in chosen))


def _refuse_unmerged(conflicted: Sequence[str], target: Mapping[str, str], side: Side | None) -> None:
    """`Refused` for files with a conflict if no side is named, or if a side does not have them."""
    if not conflicted:
        return
    if side is None:
        file = WorkFile(conflicted[0])
        raise Refused(
            f"{listed(conflicted)}: unmerged; the text of HEAD would leave out the other side's changes",
            hint=(
                Call("restore", file, ours=True),
                " takes your side, ",
                Call("restore", file, theirs=True),
                " the other side, ",
                Call("restore", file, merge=True),
                " writes the conflict again",
            ),
        )
    missing = [path for path in conflicted if path not in target]
    if missing and side != "merge":
        whose = "your side" if side == "ours" else "the other side"
        raise Refused(f"{whose} has no file {listed(missing)}", hint="delete the file to take that")


# -- the files -----------------------------------------------------------------------------------------------


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
