"""`diff`: the difference between two revisions, or between a revision and the work tree."""

from __future__ import annotations

from persona.history.history import History
from persona.history.names.sides import sides
from persona.history.results import Diff
from persona.history.worktree.changes import diff_commits, diff_worktree
from persona.store.refs import Told


def diff(history: History, a: str | None, b: str | None, told: Told) -> Diff:
    """See `Repository.diff`."""
    before, after = sides(history, a, b, told)
    if after is not None:
        return diff_commits(history, before, after)
    assert before is not None
    return diff_worktree(history, before)
