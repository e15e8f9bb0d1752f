"""`diff` and `show`: the difference between two revisions, or between a revision and the work tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from persona.history.history import History
from persona.history.names.entries import Entries
from persona.history.names.revisions import resolve
from persona.history.names.sides import sides
from persona.history.results import Diff
from persona.history.worktree import text_files
from persona.history.worktree.changes import diff_commits, diff_worktree, of_paths
from persona.store.refs import SCORES

if TYPE_CHECKING:
    from persona.history.query_results import CommitEntry
    from persona.history.score_results import ScoresDiff


def diff(
    history: History,
    a: str | None = None,
    b: str | None = None,
    *,
    paths: str | Sequence[str] | None = None,
) -> Diff:
    """The difference between two revisions, or between a revision and the work tree.

    Without an argument: from HEAD to the work tree. With `a`: from `a` to the work tree. With both: from `a`
    to `b`. `a` may also be `A..B` or `A...B`. `paths`: only these files or directories.
    """
    before, after = sides(history, a, b, history.notes)
    if after is not None:
        return of_paths(diff_commits(history, before, after), paths)
    assert before is not None
    return of_paths(diff_worktree(history, before), paths)


def diff_scores(history: History, a: str | None = None, b: str | None = None) -> ScoresDiff | None:
    """What `verify` found of two revisions, side by side; `a` and `b` as for `diff`.

    None if they were not both measured, with the same probes or on the same text. The work tree counts as
    HEAD if `recipe.toml` means the recipe of HEAD. A damaged note is a note to the user.
    """
    before, after = sides(history, a, b, history.notes)
    if before is None or not history.ref_names(SCORES, history.notes):
        return None
    if after is None:
        after = history.head_commit()
        if text_files.recipe(history).recipe.key != history.recipe_of(after).key:
            return None
    if before == after:
        return None
    from persona.history.scores import compared, readable

    found = [readable(history, id, history.notes) for id in (before, after)]
    return None if found[0] is None or found[1] is None else compared(found[0], found[1])


def show(
    history: History, rev: str = "HEAD", *, paths: str | Sequence[str] | None = None
) -> tuple[CommitEntry, Diff]:
    """A commit, and its changes against its first parent. `paths` as for `diff`."""
    entry = Entries(history, history.notes).of(resolve(history, rev, history.notes))
    before = entry.parents[0] if entry.parents else None
    return entry, of_paths(diff_commits(history, before, entry.id), paths)
