"""The next step of a bisect: a commit to test, or the answer. Nothing moves here."""

from __future__ import annotations

from typing import Final, Literal

from persona.errors import Blank, Call, Refused
from persona.frozen import dataclass
from persona.history.bisecting.midpoint import choose, counts, steps
from persona.history.bisecting.search import Search
from persona.history.history import History
from persona.history.names.walk import in_order, is_ancestor, merge_bases, walk_links
from persona.objects.ids import abbreviate

State = Literal["none", "waiting", "testing", "found", "undecided"]
"""No bisect; marks are missing; `commit` is to be tested; `commit` is the answer; all others are skipped."""


@dataclass(frozen=True)
class Step:
    """What comes next.

    `candidates`: the commits that may be the first bad one, newest first. `left`: how many of them at most
    are left after this test, the known bad one not counted. `steps`: about how many tests follow. `told`:
    skipped merge bases.
    """

    state: State
    commit: str | None = None
    merge_base: bool = False
    candidates: tuple[str, ...] = ()
    left: int = 0
    steps: int = 0
    told: tuple[str, ...] = ()


WAITING: Final = Step("waiting")


def next_step(history: History, search: Search) -> Step:
    """The next step of a search.

    Good commits that are no ancestors of the bad one are only proven good up to a merge base, so a merge base
    is tested first. `Refused` if the marks contradict each other.
    """
    bad, good, skipped = search.bad, search.good, set(search.skipped)
    if bad is None or not good:
        return WAITING
    told: list[str] = []
    for base in _bases(history, bad, good):
        if base == bad:
            raise _refused(search, bad)
        if base in skipped:
            told.append(base)
        elif base not in good:
            return Step("testing", base, merge_base=True, candidates=tuple(_candidates(history, search, bad)))
    candidates = _candidates(history, search, bad)
    reaches = counts(candidates)
    total = len(candidates)
    commit = choose(reaches, bad, skipped)
    if commit is not None:
        left = max(reaches[commit], total - reaches[commit]) - 1
        return Step("testing", commit, False, tuple(candidates), left, steps(total), tuple(told))
    state: State = "found" if total == 1 else "undecided"
    return Step(state, bad if total == 1 else None, candidates=tuple(candidates), told=tuple(told))


def _candidates(history: History, search: Search, bad: str) -> dict[str, tuple[str, ...]]:
    """The commits that may be the first bad one, with their parents, none before its children."""
    links = dict(walk_links(history, [bad], search.good))
    found = {id: links[id] for id in in_order(links)}
    if not search.first_parent:
        return found
    line: dict[str, tuple[str, ...]] = {}
    id: str | None = bad
    while id in found:
        line[id] = found[id][:1]
        id = next(iter(line[id]), None)
    return line


def _bases(history: History, bad: str, good: tuple[str, ...]) -> list[str]:
    """The merge bases of bad with the good commits, none an ancestor of another.

    Empty if all of `good` are ancestors of bad.
    """
    if next(walk_links(history, good, [bad]), None) is None:
        return []
    bases = dict.fromkeys(base for one in good for base in merge_bases(history, bad, one))
    return [base for base in bases if not any(is_ancestor(history, base, of) for of in bases if of != base)]


def _refused(search: Search, bad: str) -> Refused:
    """The error for a bad commit that is an ancestor of a good one."""
    word, other = search.words
    if search.asked == bad:
        ends = ", ".join(map(abbreviate, search.good))
        return Refused(
            f"the merge base {abbreviate(bad)} is {word}: it was changed to {other} between there and {ends},"
            f" and bisect looks for a change from {other} to {word}",
            hint=(
                "to find that change, begin again with ",
                Call("bisect.start", term_old="broken", term_new="fixed"),
            ),
        )
    return Refused(
        f"{abbreviate(bad)}, which is {word}, is an ancestor of a commit that is {other}; bisect needs"
        f" {other} commits from before the {word} one",
        hint=(
            f"perhaps {other} and {word} were exchanged; ",
            Call("bisect.start", Blank("BAD"), Blank("GOOD")),
            " begins again",
        ),
    )
