"""Commits by the text that they change, as `git log -S` and `-G` find them."""

from __future__ import annotations

import re
from collections.abc import Callable

from persona.history.history import History
from persona.history.recipes.linediff import runs

Differs = Callable[[History, re.Pattern[str], str | None, str | None], bool]
"""Whether two blobs, None for no file, differ in what a pattern finds."""


def occurs_elsewhere(
    history: History, search: re.Pattern[str], before: str | None, after: str | None
) -> bool:
    """Whether a pattern occurs more often in one of two texts."""
    old, new = _text(history, before), _text(history, after)
    return len(search.findall(old)) != len(search.findall(new))


def has_line(history: History, search: re.Pattern[str], before: str | None, after: str | None) -> bool:
    """Whether a pattern matches a line that only one of two texts has."""
    old, new = _text(history, before).splitlines(), _text(history, after).splitlines()
    return any(
        search.search(line)
        for start, end, start_new, end_new in runs(old, new)
        for line in (*old[start:end], *new[start_new:end_new])
    )


def _text(history: History, blob: str | None) -> str:
    return "" if blob is None else history.blob(blob).decode("utf-8", "replace")
