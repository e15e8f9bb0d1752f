"""A merge, cherry-pick, revert or rebase that is under way, and its conflicts, as `status` shows them.

They are a module of their own because a status needs them only while one is under way.
"""

from __future__ import annotations

from typing import Any

from persona.frozen import dataclass
from persona.history.results import Result


@dataclass(frozen=True, repr=False)
class ConflictView(Result):
    """A conflict: a key of recipe.toml, or a file, with the values before, in theirs, and in ours."""

    path: str
    key: str | None
    base: Any
    theirs: Any
    ours: Any
    problem: str


@dataclass(frozen=True, repr=False)
class UnderWay(Result):
    """A merge, cherry-pick, revert or rebase that is under way.

    `stopped`: the commit that could not be taken over, or None. `why`: "conflict", "prepared" (a merge that
    was not to be committed) or "edit". `conflicts`: those that stand. `left`: how many commits wait.
    `branch` and `onto`: of a rebase. `cut_short`: a command was cut short, and has to be finished by
    `--continue` or `--abort`.
    """

    verb: str
    stopped: str | None
    why: str | None
    conflicts: tuple[ConflictView, ...]
    left: int
    branch: str | None = None
    onto: str | None = None
    cut_short: bool = False
