"""The lines in which two texts differ, also as a unified diff.

A run is a stretch of lines that others replace: `(start, end, start, end)`, of the old text and of the new
one.
**anchor** — a line that occurs once in each text, or that begins a few lines that occur once in each.

An anchor counts as unchanged. Between anchors the shortest edit is searched with the greedy algorithm of E.
Myers, "An O(ND) difference algorithm and its variations" (1986), as in git. A stretch that takes too many
steps counts as replaced completely. That is correct, only longer than necessary, and the time stays bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

Run = tuple[int, int, int, int]

CONTEXT: Final = 3
"""Unchanged lines shown around a change."""
SMALL: Final = 2000
"""Lines up to which a stretch goes without anchors, so that its diff is as short as git's."""
ROWS: Final = ((), (1, 2), (4, 8))
"""Numbers of lines in a row that are compared to find anchors, as doublings of a line: 1, 4 and 16 lines."""
MAX_EDITS: Final = 600
"""Most lines removed and added in a stretch whose shortest edit is sought; steps grow with the square."""
MAX_STEPS: Final = 1 << 20
"""Most steps of all searches together; a comparison of four lines for anchors costs one step."""


def runs(old: Sequence[str], new: Sequence[str]) -> list[Run]:
    """The runs that turn `old` into `new`, in order; never two that touch."""
    numbers: dict[str, int] = {}
    a = [numbers.setdefault(line, len(numbers)) for line in old]
    b = [numbers.setdefault(line, len(numbers)) for line in new]
    return _slid(_joined(_Search(a, b).found()), a, b)


def unified(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """A unified diff without its two lines of file names."""
    for hunk in _hunks(runs(old, new)):
        first, last = hunk[0], hunk[-1]
        start_a, start_b = max(first[0] - CONTEXT, 0), max(first[2] - CONTEXT, 0)
        end_a, end_b = min(last[1] + CONTEXT, len(old)), min(last[3] + CONTEXT, len(new))
        yield f"@@ -{_range(start_a, end_a)} +{_range(start_b, end_b)} @@"
        at = start_a
        for from_a, to_a, from_b, to_b in hunk:
            yield from (f" {line}" for line in old[at:from_a])
            yield from (f"-{line}" for line in old[from_a:to_a])
            yield from (f"+{line}" for line in new[from_b:to_b])
            at = to_a
        yield from (f" {line}" for line in old[at:end_a])


class _Search:
    """Finds the runs of two texts whose lines are numbers."""

    def __init__(self, a: list[int], b: list[int]) -> None:
        self._a, self._b = a, b
        self._steps = 0

    def found(self) -> list[Run]:
        """The runs in order."""
        runs: list[Run] = []
        pending = [(0, len(self._a), 0, len(self._b))]
        while pending:
            stretch = self._trimmed(*pending.pop())
            a0, a1, b0, b1 = stretch
            if a0 == a1 or b0 == b1:
                runs += [stretch] if a0 < a1 or b0 < b1 else []
                continue
            anchors = self._anchors(*stretch) if a1 - a0 + b1 - b0 > SMALL else []
            if not anchors:
                runs += self._shortest(*stretch)
                continue
            inner, at_a, at_b = [], a0, b0
            for i, j in [*anchors, (a1, b1)]:
                if at_a < i or at_b < j:
                    inner.append((at_a, i, at_b, j))
                at_a, at_b = i + 1, j + 1
            pending += reversed(inner)
        return runs

    def _trimmed(self, a0: int, a1: int, b0: int, b1: int) -> Run:
        """A stretch without the lines that both sides have at its start and end."""
        a, b = self._a, self._b
        while a0 < a1 and b0 < b1 and a[a0] == b[b0]:
            a0, b0 = a0 + 1, b0 + 1
        while a0 < a1 and b0 < b1 and a[a1 - 1] == b[b1 - 1]:
            a1, b1 = a1 - 1, b1 - 1
        return a0, a1, b0, b1

    def _anchors(self, a0: int, a1: int, b0: int, b1: int) -> list[tuple[int, int]]:
        """The longest chain of anchors in the same order on both sides.

        The anchors are of the shortest runs of lines for which there are any.
        """
        a, b = self._a[a0:a1], self._b[b0:b1]
        for doublings in ROWS:
            self._steps += (len(a) + len(b)) // 4
            if self._steps > MAX_STEPS or set(a).isdisjoint(b):
                break
            for width in doublings:
                numbers: dict[tuple[int, int], int] = {}
                a, b = (
                    [numbers.setdefault(pair, len(numbers)) for pair in zip(side, side[width:], strict=False)]
                    for side in (a, b)
                )
            once_a, once_b = _once(a), _once(b)
            pairs = sorted((a0 + i, b0 + once_b[row]) for row, i in once_a.items() if row in once_b)
            if pairs:
                return _chain(pairs)
        return []

    def _shortest(self, a0: int, a1: int, b0: int, b1: int) -> list[Run]:
        """The shortest edit of a stretch, or the whole stretch if the search takes too long."""
        a, b, rows, columns = self._a, self._b, a1 - a0, b1 - b0
        reach = {1: 0}
        history: list[dict[int, int]] = []
        for edits in range(min(rows + columns, MAX_EDITS) + 1):
            self._steps += edits + 1
            if self._steps > MAX_STEPS:
                break
            history.append(reach.copy())
            for diagonal in range(-edits, edits + 1, 2):
                down = diagonal == -edits or (diagonal != edits and reach[diagonal - 1] < reach[diagonal + 1])
                x = reach[diagonal + 1] if down else reach[diagonal - 1] + 1
                y = x - diagonal
                while x < rows and y < columns and a[a0 + x] == b[b0 + y]:
                    x, y = x + 1, y + 1
                reach[diagonal] = x
                if x >= rows and y >= columns:
                    return _walked_back(history, a0, b0, rows, columns)
        return [(a0, a1, b0, b1)]


def _once(numbers: Sequence[int]) -> dict[int, int]:
    """The numbers that occur once, and their positions."""
    places: dict[int, int] = {}
    for at, number in enumerate(numbers):
        places[number] = -1 if number in places else at
    return {number: at for number, at in places.items() if at >= 0}


def _chain(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest part of pairs, in order of their first numbers, whose second numbers rise too."""
    ends: list[int] = []  # for each length of a chain, the smallest second number at its end
    last: list[int] = []  # and which pair that is
    before: list[int] = []  # for each pair, the pair before it in its chain
    for at, (_, second) in enumerate(pairs):
        length = bisect_left(ends, second)
        before.append(last[length - 1] if length else -1)
        ends[length : length + 1] = [second]
        last[length : length + 1] = [at]
    chain = []
    at = last[-1]
    while at >= 0:
        chain.append(pairs[at])
        at = before[at]
    return chain[::-1]


def _walked_back(history: list[dict[int, int]], a0: int, b0: int, x: int, y: int) -> list[Run]:
    """The single edits that led to (x, y), first to last; `history` has the states before each."""
    edits: list[Run] = []
    for number in range(len(history) - 1, 0, -1):
        reach, diagonal = history[number], x - y
        down = diagonal == -number or (diagonal != number and reach[diagonal - 1] < reach[diagonal + 1])
        x = reach[diagonal + 1 if down else diagonal - 1]
        y = x - (diagonal + 1 if down else diagonal - 1)
        edits.append((a0 + x, a0 + x + (not down), b0 + y, b0 + y + down))
    return edits[::-1]


def _joined(runs: Sequence[Run]) -> list[Run]:
    """Runs that touch, as one."""
    joined: list[Run] = []
    for run in runs:
        if joined and joined[-1][1] == run[0] and joined[-1][3] == run[2]:
            joined[-1] = (joined[-1][0], run[1], joined[-1][2], run[3])
        else:
            joined.append(run)
    return joined


def _slid(runs: list[Run], a: list[int], b: list[int]) -> list[Run]:
    """Runs that only add or only remove lines, moved down as far as they mean the same, as in git."""
    slid: list[Run] = []
    end = len(a)
    for a0, a1, b0, b1 in reversed(runs):
        if a0 == a1 or b0 == b1:
            lines, start, stop = (b, b0, b1) if a0 == a1 else (a, a0, a1)
            by = 0
            while a1 + by < end and lines[start + by] == lines[stop + by]:
                by += 1
            a0, a1, b0, b1 = a0 + by, a1 + by, b0 + by, b1 + by
        slid.append((a0, a1, b0, b1))
        end = a0
    return _joined(slid[::-1])


def _hunks(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """Runs that are so near that their context meets."""
    hunk: list[Run] = []
    for run in runs:
        if hunk and run[0] - hunk[-1][1] > 2 * CONTEXT:
            yield hunk
            hunk = []
        hunk.append(run)
    if hunk:
        yield hunk


def _range(start: int, end: int) -> str:
    """Lines as a hunk's header has them: the first one, from 1, and how many unless it is one."""
    if end == start + 1:
        return str(end)
    return f"{start + 1 if end > start else start},{end - start}"
