"""Texts in which both sides changed the same lines: each side between markers, as git writes them.

**marker** — a line that begins or ends one side of a conflict in a text file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from persona.history.recipes.linediff import runs

OURS: Final = "<<<<<<<"
MIDDLE: Final = "======="
THEIRS: Final = ">>>>>>>"
_BLOCK: Final = re.compile(
    rf"^{OURS} [^\n]*\n(.*?)^{MIDDLE}\n(.*?)^{THEIRS} [^\n]*\n?", re.MULTILINE | re.DOTALL
)
_MARKER: Final = re.compile(rf"^(?:{OURS}|{THEIRS}) ")

Side = Literal["ours", "theirs", "base"]


def with_markers(base: str, theirs: str, ours: str, labels: tuple[str, str]) -> str:
    """The merge of the lines, with both sides of each conflict between markers.

    `labels`: of ours and of theirs.
    """
    here, there = labels

    def both(_: str, come: str, now: str) -> str:
        return f"{OURS} {here}\n{_ended(now)}{MIDDLE}\n{_ended(come)}{THEIRS} {there}\n"

    return "".join(
        both(*block) if _is_conflict(*block) else _merged(*block) for block in _blocks(base, theirs, ours)
    )


def both_texts(theirs: str, ours: str, labels: tuple[str, str]) -> str:
    """Two texts that come from none, with the lines in which they differ between markers."""
    here, there = labels
    come, now = theirs.splitlines(keepends=True), ours.splitlines(keepends=True)
    found: list[str] = []
    place = 0
    for start, end, first, last in runs(now, come):
        mine, other = _ended("".join(now[start:end])), _ended("".join(come[first:last]))
        found += [*now[place:start], f"{OURS} {here}\n{mine}{MIDDLE}\n{other}{THEIRS} {there}\n"]
        place = end
    return "".join([*found, *now[place:]])


def with_side(base: str, theirs: str, ours: str, side: Side) -> str:
    """The merge of the lines; where they conflict, the lines of one side."""
    place = ("base", "theirs", "ours").index(side)
    return "".join(
        block[place] if _is_conflict(*block) else _merged(*block) for block in _blocks(base, theirs, ours)
    )


def with_both(base: str, theirs: str, ours: str) -> str:
    """The merge of the lines; where both sides insert, the lines of ours and then those of theirs.

    Where they conflict otherwise, the lines of ours.
    """
    found = []
    for before, come, now in _blocks(base, theirs, ours):
        if not _is_conflict(before, come, now):
            found.append(_merged(before, come, now))
        else:
            found.append(_ended(now) + come if not before else now)
    return "".join(found)


def marked_lines(text: str) -> list[int]:
    """The numbers of the lines that are markers, from 1."""
    return [number for number, line in enumerate(text.split("\n"), 1) if _MARKER.match(line)]


def whole_markers(data: bytes) -> list[int]:
    """The numbers of the lines that are markers, if a beginning and an end of a conflict are there."""
    text = data.decode("utf-8", "replace")
    both = all(re.search(rf"^{mark} ", text, re.MULTILINE) for mark in (OURS, THEIRS))
    return marked_lines(text) if both else []


def middle_lines(text: str) -> int:
    """How many lines are as the one between both sides. Such a line may be there without a conflict."""
    return sum(line.rstrip("\r") == MIDDLE for line in text.split("\n"))


def chosen(text: str, side: Literal["ours", "theirs"]) -> str:
    """A text with one side of each conflict that stands in it."""
    return _BLOCK.sub(lambda block: block[1 if side == "ours" else 2], text)


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _is_conflict(base: str, theirs: str, ours: str) -> bool:
    return theirs not in (base, ours) and ours != base


def _merged(base: str, theirs: str, ours: str) -> str:
    return theirs if ours == base else ours


def _blocks(base: str, theirs: str, ours: str) -> Iterator[tuple[str, str, str]]:
    """The texts in pieces, each (base, theirs, ours). Edits that touch are in one piece."""
    lines, come, now = (text.splitlines(keepends=True) for text in (base, theirs, ours))
    edits = sorted([(*run, 0) for run in runs(lines, come)] + [(*run, 1) for run in runs(lines, now)])
    place, moved = 0, [0, 0]
    at = 0
    while at < len(edits):
        low, high = edits[at][:2]
        group = []
        while at < len(edits) and edits[at][0] <= high:
            group.append(edits[at])
            high = max(high, edits[at][1])
            at += 1
        yield _same(lines[place:low])
        grown = [sum(run[3] - run[2] - (run[1] - run[0]) for run in group if run[4] == n) for n in (0, 1)]
        yield (
            "".join(lines[low:high]),
            "".join(come[low + moved[0] : high + moved[0] + grown[0]]),
            "".join(now[low + moved[1] : high + moved[1] + grown[1]]),
        )
        moved = [moved[n] + grown[n] for n in (0, 1)]
        place = high
    yield _same(lines[place:])


def _same(lines: Sequence[str]) -> tuple[str, str, str]:
    text = "".join(lines)
    return text, text, text
