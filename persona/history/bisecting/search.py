"""**bisect** — a search for the first commit with a property, by halving the commits that are left.

**mark** — the user's word about one commit: "bad" if the commit has the property, "good" if not, or "skip".

`state/bisect` holds a `Search` from `start` to `reset`. It is written before HEAD moves, so a bisect that is
cut short has lost no mark, and knows which commit comes next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from persona.errors import Blank, Call, Refused, UsageError, quoted
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.results import Head
from persona.history.worktree.sequence import BISECT
from persona.objects.ids import abbreviate, is_id

BAD: Final = "bad"
GOOD: Final = "good"
SKIP: Final = "skip"
_PAIRS: Final = ((BAD, GOOD), ("new", "old"))
"""The pairs of terms that need no declaration: of the property, and of its absence."""
_TERM: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
COMMANDS: Final = ("start", SKIP, "next", "run", "log", "replay", "reset", "status", "view", "visualize")
"""The commands of bisect, which no term may be called."""


@dataclass(frozen=True)
class Search:
    """A bisect that is under way.

    `begin`: where HEAD was. `terms`: the user's words for bad and good; None until the first mark decides.
    `marks`: (mark, commit), in the order in which they were given. `asked`: the commit that HEAD went to for
    a test. `told`: the skipped merge bases that a note has named.
    """

    begin: Head
    terms: tuple[str, str] | None = None
    marks: tuple[tuple[str, str], ...] = ()
    first_parent: bool = False
    checkout: bool = False
    asked: str | None = None
    told: tuple[str, ...] = ()

    @property
    def bad(self) -> str | None:
        """The commit that was marked bad last."""
        return next((id for mark, id in reversed(self.marks) if mark == BAD), None)

    @property
    def good(self) -> tuple[str, ...]:
        """The commits that were marked good."""
        return tuple(id for mark, id in self.marks if mark == GOOD)

    @property
    def skipped(self) -> tuple[str, ...]:
        """The commits that were skipped and have no other mark."""
        judged = {id for mark, id in self.marks if mark != SKIP}
        return tuple(id for mark, id in self.marks if mark == SKIP and id not in judged)

    @property
    def words(self) -> tuple[str, str]:
        """The user's words for bad and good."""
        return self.terms or _PAIRS[0]

    def word(self, mark: str) -> str:
        """The user's word for a mark."""
        return dict(zip((BAD, GOOD), self.words, strict=True)).get(mark, mark)

    def settled(self, word: str) -> tuple[str, Search]:
        """The mark that a word of the user means, and the search with its terms decided."""
        terms = self.terms or next((pair for pair in _PAIRS if word in pair), None)
        if terms is None or word not in terms:
            bad, good = self.words
            raise Refused(
                f"this bisect uses the terms {good} and {bad}, not {quoted(word)}",
                hint=("other terms begin a new one: ", Call("bisect.start")),
            )
        return (BAD, GOOD)[terms.index(word)], replace(self, terms=terms)

    def marked(self, mark: str, ids: Iterable[str]) -> Search:
        """The search with these commits marked. `Refused` if one would be both bad and good."""
        marks = list(self.marks)
        for id in ids:
            if mark != SKIP and ({BAD: GOOD, GOOD: BAD}[mark], id) in marks:
                bad, good = self.words
                before = self.word(GOOD if mark == BAD else BAD)
                raise Refused(
                    f"{abbreviate(id)} was marked {before} already; no commit is both {good} and {bad}",
                    hint=(
                        "if that mark was wrong, delete its line from the output of ",
                        Call("bisect.log"),
                        ", and give the rest to ",
                        Call("bisect.replay", Blank("LOG")),
                    ),
                )
            if (mark, id) in marks:
                marks.remove((mark, id))  # the last mark counts
            marks.append((mark, id))
        return replace(self, marks=tuple(marks))

    def to_json(self) -> dict[str, Any]:
        """The value of `state/bisect`."""
        return {
            "begin": {"branch": self.begin.branch, "id": self.begin.id},
            "terms": self.terms,
            "marks": self.marks,
            "first_parent": self.first_parent,
            "checkout": self.checkout,
            "asked": self.asked,
            "told": self.told,
        }

    def commits(self) -> list[str]:
        """Every commit that the search names."""
        named = (self.begin.id, self.asked, *(id for _, id in self.marks))
        return list(dict.fromkeys(id for id in named if id is not None))


def checked_terms(bad: str | None, good: str | None) -> tuple[str, str] | None:
    """The terms that a user declares, None if there are none. `UsageError` for words that cannot be terms."""
    if bad is None and good is None:
        return None
    terms = bad or BAD, good or GOOD
    for term, other in (terms[0], terms[1]), (terms[1], terms[0]):
        if not _TERM.fullmatch(term) or term in COMMANDS:
            raise UsageError(f"{quoted(term)} cannot be a term of bisect; take another word")
        for pair in _PAIRS:
            if term == other or (term in pair and terms.index(term) != pair.index(term)):
                raise UsageError(f"{quoted(term)} cannot be the term for both states, or for the other one")
    return terms


def read_search(history: History) -> Search | None:
    """The bisect that is under way; None if there is none."""
    return history.store.state(BISECT).decoded(
        _decoded, "the bisect is then over, and ", Call("switch", Blank("BRANCH")), " goes back"
    )


def under_way(history: History) -> Search:
    """The bisect that is under way. `Refused` if there is none."""
    search = read_search(history)
    if search is None:
        raise Refused("no bisect is under way", hint=(Call("bisect.start"), " begins one"))
    return search


def _decoded(value: Any) -> Search:
    branch, id = value["begin"]["branch"], value["begin"]["id"]
    terms, told = value["terms"], tuple(value["told"])
    search = Search(
        begin=Head(branch, id),
        terms=None if terms is None else (terms[0], terms[1]),
        marks=tuple((mark, id) for mark, id in value["marks"]),
        first_parent=value["first_parent"],
        checkout=value["checkout"],
        asked=value["asked"],
        told=told,
    )
    whole = all(map(is_id, (*search.commits(), *told))) and is_id(id)
    marked = all(mark in (BAD, GOOD, SKIP) for mark, _ in search.marks)
    if not whole or not marked or not isinstance(branch, str | None):
        raise ValueError
    return search
