"""The commits that the words of a command name, in the order in which their changes are made."""

from __future__ import annotations

from collections.abc import Sequence as Many

from persona.errors import Keyword, Refused, UsageError
from persona.history.history import History
from persona.history.names.revisions import resolve, resolve_range
from persona.history.names.walk import topological, walk
from persona.store.refs import NoteList


def chosen(history: History, texts: Many[str], notes: NoteList, *, newest_first: bool) -> list[str]:
    """The commits of revisions, each once, in the given order; with a range, in the order of history.

    `Refused` if ranges select none.
    """
    if not any(is_range(text) for text in texts):
        return list(dict.fromkeys(resolve(history, text, notes) for text in texts))
    range_ = resolve_range(history, texts, notes)
    found = [id for id, _ in topological(walk(history, range_.starts, range_.hidden))]
    if not found:
        raise Refused(f"{' '.join(texts)} selects no commit")
    return found if newest_first else found[::-1]


def is_range(text: str) -> bool:
    """Whether a text names a range of commits."""
    return text.startswith("^") or (".." in text and not text.startswith(":/"))


def one_of_these(given: bool, *ways: bool) -> None:
    """`UsageError` unless a command begins something, or goes on in one of its ways."""
    if sum((given, *ways)) != 1:
        raise UsageError(
            "give a revision to begin with",
            hint=(
                "or, after a stop, one of ",
                Keyword(continue_=True),
                ", ",
                Keyword(skip=True),
                " and ",
                Keyword(abort=True),
            ),
        )
