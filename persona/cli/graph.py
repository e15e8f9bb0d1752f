"""The history as a drawing, line for line as `git log --graph` draws it.

A lane is a column of the drawing: it waits for one commit, the next of its line. An edge is a piece of a line
between the lanes of two rows. Lane n stands at character 2n. After a commit the lanes may have to move left
to close a gap. `edges` maps the character where each line stands to the lane that it must reach. Rows are
drawn under the commit until each line has reached its lane.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from persona.frozen import dataclass


@dataclass(frozen=True)
class Cell:
    """The drawing left of one commit: its own row, the rows under it, and the row to repeat after those."""

    head: str
    below: tuple[str, ...]
    rest: str

    def beside(self, lines: Sequence[str]) -> Iterator[str]:
        """The lines of a commit's text with the drawing to their left, and the rows that outlast them."""
        prefixes = [self.head, *self.below]
        for number in range(max(len(prefixes), len(lines))):
            prefix = prefixes[number] if number < len(prefixes) else self.rest
            yield prefix + lines[number] if number < len(lines) else prefix.rstrip()


class Graph:
    """Draws one commit after another; children come before their parents."""

    def __init__(self) -> None:
        self._lanes: list[str] = []
        self._slanted_from: int | None = None
        """The lane right of which the last row drew every line as a backslash."""
        self._collapsed: dict[int, int] = {}
        """The positions of the lines of the last row, if that row moved lines to the left."""

    def draw(self, commit: str, parents: Sequence[str]) -> Cell:
        """The drawing beside `commit`.

        Its parents (those that will be drawn) are given in order.
        """
        lanes = list(self._lanes)
        if commit not in lanes:
            lanes.append(commit)
        at = lanes.index(commit)
        step = _step(lanes, at, list(dict.fromkeys(parents)))
        head = self._head(lanes, at, step)
        below: list[str] = []
        slanted = len(step.parents) > 1
        if slanted:
            below.append(_fork(lanes, at, step))
        self._slanted_from = at if slanted and step.added > 0 else None
        self._collapsed = {}
        edges = step.edges
        while any(at_lane // 2 != lane for at_lane, lane in edges.items()):
            row, edges, self._collapsed = _shift(edges)
            below.append(row)
            self._slanted_from = None
        self._lanes = step.lanes
        rows = [row.ljust(step.width) for row in (head, *below)]
        return Cell(rows[0], tuple(rows[1:]), ("| " * len(step.lanes)).ljust(step.width))

    def _head(self, lanes: list[str], at: int, step: _Step) -> str:
        row = []
        for lane in range(len(lanes)):
            if lane == at:
                row.append("*")
            elif lane > at and (step.added > 1 or (step.added == 1 and self._slants(lane))):
                row.append("\\")
            elif self._collapsed.get(2 * lane + 1) == lane and not (lane > at and step.added == 1):
                row.append("/" if step.edges.get(2 * lane, lane) < lane else "|")
            else:
                row.append("|")
        return " ".join(row) + " "

    def _slants(self, lane: int) -> bool:
        return self._slanted_from is not None and self._slanted_from < lane


@dataclass(frozen=True)
class _Step:
    """The passage from the lanes at a commit to the lanes under it."""

    parents: list[str]
    lanes: list[str]
    edges: dict[int, int]
    added: int
    """Lines that a merge adds; −1 if its second line joins the lane at its right at once."""
    leans_left: bool
    """Whether the first line of a merge goes down and left (`/|`) instead of straight down (`|\\`)."""
    width: int
    """Characters that the text of this commit stays clear of, in every row."""


def _step(lanes: list[str], at: int, parents: list[str]) -> _Step:
    after: list[str] = []
    edges: dict[int, int] = {}
    place = 0
    added = 0
    leans_left = False

    def bound_for(commit: str) -> int:
        if commit not in after:
            after.append(commit)
        return after.index(commit)

    for number, waiting in enumerate(lanes):
        heirs = parents if number == at else [waiting]
        for order, heir in enumerate(heirs):
            lane = bound_for(heir)
            if number == at and order == 0 and len(parents) > 1:
                distance = number - lane
                leans_left = distance > 0
                added = len(parents) - 1 - leans_left
                if leans_left:
                    edges[place - (2 * distance - 3 if distance > 1 else 1)] = lane
                else:
                    edges[place] = lane
                    place += 2
            elif added > 0 and edges.get(place - 2) == lane:
                added = -1
            else:
                edges[place] = lane
                place += 2
        if number == at and not parents:
            place += 2
    return _Step(parents, after, edges, added, leans_left, place)


def _fork(lanes: list[str], at: int, step: _Step) -> str:
    """The row under a merge, in which its lines part."""
    strokes = "/|\\"[not step.leans_left :]
    row = ""
    level = False
    for lane, waiting in enumerate(lanes):
        if lane == at:
            for order in range(len(step.parents)):
                stroke = strokes[min(order, len(strokes) - 1)]
                row += stroke
                if stroke == "\\" and (step.added > 0 or order < len(step.parents) - 1):
                    row += " "
            row += " " * (step.added == 0)
        elif lane > at:
            row += "\\ " if step.added > 0 else "| "
        else:
            row += "|"
            if not step.leans_left or lane != at - 1:
                row += "_" if level else " "
            level = level or waiting == step.parents[0]
    return row


def _shift(edges: dict[int, int]) -> tuple[str, dict[int, int], dict[int, int]]:
    """One row in which the lines move left by one place; one of them may run level under the others."""
    moved: dict[int, int] = {}
    level: tuple[int, int] | None = None
    for place, lane in sorted(edges.items()):
        if place == 2 * lane:
            moved[place] = lane
        elif moved.get(place - 1) == lane:
            continue
        else:
            step = 1 if place - 1 not in moved else 2
            moved[place - step] = lane
            if level is None:
                level = (lane, place + 1 - step)
                moved.update((between, lane) for between in range(2 * lane + 3, place - 2, 2))
    row = ""
    kept = dict(moved)
    runs_level = False
    for place in range(max(moved) + 1):
        lane = moved.get(place, -1)
        if lane < 0:
            row += " "
        elif place == 2 * lane:
            row += "|"
        elif level is not None and lane == level[0] and place != level[1] - 1:
            runs_level = True
            row += "_"
            if place != 2 * lane + 3:
                del kept[place]
        else:
            row += "/"
            if runs_level and level is not None and place < level[1]:
                del kept[place]
    return row, kept, moved


def within(parents: Mapping[str, Sequence[str]], kept: Collection[str]) -> dict[str, list[str]]:
    """The parents of each kept commit: the nearest kept ancestors in place of those that are left out.

    `parents` holds every commit, children before their parents. A parent that it does not hold is dropped.
    """
    nearest: dict[str, list[str]] = {}
    for id in reversed(list(parents)):
        near = []
        for parent in parents[id]:
            near += [parent] if parent in kept else nearest.get(parent, [])
        nearest[id] = list(dict.fromkeys(near))
    return {id: nearest[id] for id in parents if id in kept}
