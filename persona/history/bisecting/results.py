"""The results of bisect: frozen values whose fields have the names of the JSON keys of docs/commands.md."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from persona.frozen import dataclass
from persona.history.bisecting.stepping import State
from persona.history.results import UNPRINTED, Carried, Head, Result, WeightsState


@dataclass(frozen=True, repr=False)
class Tested(Result):
    """A commit that `run` tested: the mark that it got, and the exit code, None for a function's answer."""

    id: str
    mark: str
    exit_code: int | None


@dataclass(frozen=True, repr=False)
class Bisection(Result):
    """A bisect, and what comes next.

    `state`: "none" (no bisect is under way), "waiting" (for marks), "testing" (`commit` is to be tested),
    "found" (`commit` is the first bad one), or "undecided" (only skipped commits are left). `candidates`: the
    commits that may be the first bad one, newest first. `left`: how many at most are left after this test.
    `steps`: about how many tests follow.
    """

    state: State
    commit: str | None = None
    subject: str | None = None
    merge_base: bool = False
    """Whether `commit` is tested because good commits are no ancestors of the bad one."""
    left: int = 0
    steps: int = 0
    candidates: tuple[str, ...] = ()
    bad: str | None = None
    good: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    terms: tuple[str, str] = ("bad", "good")
    """The user's words for bad and good."""
    begin: Head | None = None
    """Where HEAD was before the bisect."""
    head: Head | None = None
    """HEAD now."""
    tests: tuple[Tested, ...] = ()
    """The tests of `run`, in order."""
    carried: tuple[Carried, ...] = ()
    """Edits that are not committed and came along."""
    weights: WeightsState | None = field(default=None, metadata=UNPRINTED)
    """The state of the weights in the work tree, if HEAD moved."""
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)

    def to_json(self) -> dict[str, Any]:
        """As printed with `--json`."""
        bad, good = self.terms
        return {
            "state": self.state,
            "commit": self.commit,
            "subject": self.subject,
            "merge_base": self.merge_base,
            "left": self.left,
            "steps": self.steps,
            "candidates": self.candidates,
            "bad": self.bad,
            "good": self.good,
            "skipped": self.skipped,
            "terms": {"bad": bad, "good": good},
            "begin": self.begin,
            "head": self.head,
            "tests": self.tests,
            "carried": self.carried,
        }
