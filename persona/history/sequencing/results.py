"""The results of merge, cherry-pick, revert and rebase; fields are named as the JSON keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from typing import Any, Literal

from persona.errors import PersonaError
from persona.frozen import dataclass
from persona.history.recipes.conflicts import Conflict
from persona.history.results import (
    UNPRINTED,
    Carried,
    CheckoutResult,
    CommitResult,
    Head,
    Result,
    VectorChange,
    WeightsState,
    as_json,
)
from persona.history.sequence_views import ConflictView
from persona.history.sequencing.state import value_json

State = Literal[
    "up to date", "fast-forward", "done", "prepared", "edit", "aborted", "nothing", "list", "quit"
]
"""Nothing to do; HEAD went to a commit that was there; commits were made; a merge waits for `commit`; a
rebase waits for `--continue`; HEAD is back where it was; no commit was left to make; the list of commits was
edited; the command was forgotten."""


@dataclass(frozen=True, repr=False)
class SequenceResult(Result):
    """A merge, cherry-pick, revert or rebase.

    `commits`: the new commits, in the order in which they were made. `head` and `before`: HEAD now, and
    before the call. `left`: how many commits still wait.
    """

    verb: str
    state: State
    head: Head
    before: Head
    commits: tuple[CommitResult, ...] = ()
    left: int = 0
    stopped: str | None = None
    """The commit at which a rebase stopped for an edit."""
    carried: tuple[Carried, ...] = ()
    """Edits that are not committed and came along."""
    command: str | None = field(default=None, metadata=UNPRINTED)
    """The command of an "exec" at which a rebase stopped."""
    weights: WeightsState | None = field(default=None, metadata=UNPRINTED)
    onto: str | None = field(default=None, metadata=UNPRINTED)
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)
    """Sentences for the user, those about the new commits too."""

    @property
    def last(self) -> CommitResult | None:
        """The last commit that was made."""
        return self.commits[-1] if self.commits else None

    @property
    def id(self) -> str | None:
        """The last commit that was made; None if none was."""
        return None if self.last is None else self.last.id

    @property
    def branch(self) -> str | None:
        """The branch that HEAD is on; None if it is detached."""
        return self.head.branch

    @property
    def checkout(self) -> CheckoutResult | None:
        """The weights of the last commit, with `commit.checkout = true`."""
        return None if self.last is None else self.last.checkout

    @property
    def failure(self) -> PersonaError | None:
        """Why they could not be computed, though the commit was made."""
        return None if self.last is None else self.last.failure

    @property
    def parents(self) -> tuple[str, ...]:
        """The parents of the last commit."""
        return () if self.last is None else self.last.parents

    @property
    def subject(self) -> str:
        """The first line of the message of the last commit."""
        return "" if self.last is None else self.last.subject

    @property
    def vectors(self) -> tuple[VectorChange, ...]:
        """The vectors that the last commit added, replaced or removed."""
        return () if self.last is None else self.last.vectors

    def to_json(self) -> dict[str, Any]:
        """As printed with `--json`: the keys of the last commit, and those of the sequence."""
        last = self.last or CommitResult(None, self.head.branch, (), ())
        found: dict[str, Any] = as_json(last)
        return found | {
            "verb": self.verb,
            "state": self.state,
            "head": self.head,
            "commits": [commit.id for commit in self.commits],
            "left": self.left,
            "stopped": self.stopped,
            "carried": self.carried,
        }


def view(conflict: Conflict) -> ConflictView:
    """A conflict as it is shown."""
    base, theirs, ours = map(value_json, (conflict.base, conflict.theirs, conflict.ours))
    return ConflictView(conflict.path, conflict.key or None, base, theirs, ours, conflict.problem)


def views(conflicts: Iterable[Conflict]) -> tuple[ConflictView, ...]:
    """Conflicts as they are shown."""
    return tuple(map(view, conflicts))
