"""The graph as a picture: patterns in columns from left to right, with arrows along their links.

A pattern stands in the column after the first pattern that links to it. Patterns without a link lie below the
columns. The colour of a box tells the state of its vector. The coordinates are inches, so that a label has
its size whatever the number of patterns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from persona.cli import heatmap
from persona.cli.patterns import opposes, owner, roots
from persona.cli.render import number
from persona.errors import InvalidInput
from persona.frozen import dataclass

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from persona.behaviour.states import TrainableState
    from persona.behaviour.verbs.graph import GraphView, LinkView, PatternView

FILLS: Final = {
    "untrained": "#eceff1",
    "stale": "#ffe9a8",
    "trained": "#cfe3f7",
    "verified": "#c9ecc8",
    "failing": "#f7c9c4",
}
_PLAIN: Final = "#ffffff"
"""The fill of a pattern that owns no vector itself."""
_RED: Final = "#c62828"
_GREY: Final = "#607d8b"
_LETTER: Final = 0.074
"""The width of a letter of a label, in inches."""
_LINE: Final = 0.19
"""The height of a line of a label."""
_GAP_X: Final = 1.3
_GAP_Y: Final = 0.26
_LONGEST: Final = 34
"""Letters of a label; a longer one loses its middle."""
_ROWS: Final = 24
"""Boxes in one column, if there are few; more go into columns beside it."""
_MOST_LABELS: Final = 24
"""Links up to which each has its relation beside it."""


@dataclass(frozen=True)
class Box:
    """A pattern in the picture: its lower left corner and size in inches, its lines, and their fills."""

    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]
    fills: tuple[str, ...]

    @property
    def middle(self) -> float:
        """The height of its centre."""
        return self.y + self.height / 2

    def is_left_of(self, other: Box) -> bool:
        """Whether all of it lies left of another box."""
        return self.x + self.width < other.x


class Edge(NamedTuple):
    """A link between the patterns `start` and `end`, whatever facet it leads to."""

    start: str
    end: str
    relation: str
    strength: float


@dataclass(frozen=True)
class Arrow:
    """The line of a link: its ends in inches, and how far it bends, as a share of its length.

    `mutual`: it stands for the same link in the other direction, too.
    """

    edge: Edge
    mutual: bool
    begin: tuple[float, float]
    end: tuple[float, float]
    bend: float

    @property
    def words(self) -> str:
        """The relation of the link and its strength."""
        strength = "" if self.edge.strength == 1 else f" {self.edge.strength:g}"
        return _shortened(self.edge.relation) + strength

    def point(self, part: float) -> tuple[float, float]:
        """The point after a part of the way: of a quadratic Bézier curve, as matplotlib draws it."""
        (x, y), (u, v) = self.begin, self.end
        middle = (x + u) / 2 + self.bend * (v - y), (y + v) / 2 - self.bend * (u - x)
        weights = (1 - part) ** 2, 2 * part * (1 - part), part**2
        return (
            weights[0] * x + weights[1] * middle[0] + weights[2] * u,
            weights[0] * y + weights[1] * middle[1] + weights[2] * v,
        )


def check(path: Path) -> str:
    """The format of a picture by its name. Raises as `heatmap.check`."""
    return heatmap.check(path, "-o")


def write(path: Path, view: GraphView, key: str | None = None) -> None:
    """Draws a graph, or a pattern with its neighbours, into a file, which appears whole."""
    from persona.store import files

    form = check(path)
    patterns = _near(view.patterns, key)
    if not patterns:
        raise InvalidInput(f"-o {path}: there is nothing to draw: graph/ has no pattern")
    files.write_file(path, picture(form, patterns))


def _near(patterns: Sequence[PatternView], key: str | None) -> list[PatternView]:
    """A pattern, those that it links to, and those that link to it; without a key, all."""
    if key is None:
        return list(patterns)
    near, keys = {key}, {one.key for one in patterns}
    for one in patterns:
        targets = {owner(link.to, {key}) for link in one.links}
        if key in targets:
            near.add(one.key)
        if one.key == key:
            near |= {owner(link.to, keys) for link in one.links}
    return [one for one in patterns if one.key in near]


def picture(form: str, patterns: Sequence[PatternView]) -> bytes:
    """The picture as "png" or "svg": the same bytes for the same patterns and the same matplotlib."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    boxes = layout(patterns)
    arrows = _arrows([link for one in patterns for link in one.links], boxes)
    named = len(arrows) <= _MOST_LABELS
    ends = [box.x + box.width for box in boxes.values()]
    ends += [arrow.point(0.5)[0] + 0.035 * len(arrow.words) * named for arrow in arrows]
    width = max(max(ends) + 0.3, 5.4)
    height = max(box.y + box.height for box in boxes.values()) + 0.3
    settings: Any = {"svg.hashsalt": "persona", "svg.fonttype": "none"}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), dpi=min(150, int(60_000 / max(width, height))))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, width)
        axes.set_ylim(0, height)
        axes.axis("off")
        for arrow in arrows:
            _draw_arrow(axes, arrow, named=named)
        for box in boxes.values():
            _draw_box(axes, box)
        _draw_legend(axes, patterns, arrows)
        out = BytesIO()
        figure.savefig(out, format=form, metadata={"Date": None} if form == "svg" else {"Software": None})
    return out.getvalue()


# -- where the boxes lie -------------------------------------------------------------------------------------


def layout(patterns: Sequence[PatternView]) -> dict[str, Box]:
    """The box of each pattern by its key. Equal patterns get equal places."""
    after = {one.key: list[str]() for one in patterns}
    for one in patterns:
        targets = (owner(link.to, after) for link in one.links)
        after[one.key] = [key for key in dict.fromkeys(targets) if key in after and key != one.key]
    before = {key: [other for other in after if key in after[other]] for key in after}
    linked = [key for key in after if after[key] or before[key]]
    columns = _ordered(_columns(linked, after), after, before)
    sizes = {one.key: _size(one) for one in patterns}
    rows = max(_ROWS, math.ceil(math.sqrt(len(linked))))
    stacks = [stack for column in columns for stack in _divided(column, rows)]
    heights = [sum(sizes[key][1] + _GAP_Y for key in stack) for stack in stacks]
    tallest = max(heights, default=0.0)
    places: dict[str, tuple[float, float]] = {}
    x = 0.3
    for stack, height in zip(stacks, heights, strict=True):
        y = -(tallest - height) / 2
        for key in stack:
            y -= sizes[key][1] + _GAP_Y
            places[key] = x, y
        x += max(sizes[key][0] for key in stack) + _GAP_X
    alone = [key for key in after if key not in places]
    places |= _rows(alone, sizes, -tallest, max(x, 10.0))
    lowest = min((y for _, y in places.values()), default=0.0)
    legend = 0.75
    by_key = {one.key: one for one in patterns}
    return {
        key: Box(x, y - lowest + legend, *sizes[key], *_labels(by_key[key])) for key, (x, y) in places.items()
    }


def _columns(keys: Sequence[str], after: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The patterns by their distance from the nearest root."""
    waiting = roots({key: after[key] for key in keys})
    depth = dict.fromkeys(waiting, 0)
    for key in waiting:
        for target in after[key]:
            if target not in depth:
                depth[target] = depth[key] + 1
                waiting.append(target)
    count = max(depth.values(), default=-1) + 1
    return [[key for key in keys if depth[key] == column] for column in range(count)]


def _divided(column: list[str], rows: int) -> list[list[str]]:
    """A long column as several of about the same length."""
    length = math.ceil(len(column) / math.ceil(len(column) / rows))
    return [column[start : start + length] for start in range(0, len(column), length)]


def _ordered(
    columns: list[list[str]], after: Mapping[str, Sequence[str]], before: Mapping[str, Sequence[str]]
) -> list[list[str]]:
    """The columns, each in an order with few crossings: a pattern at the mean height of its neighbours."""
    place = {key: (at + 0.5) / len(column) for column in columns for at, key in enumerate(column)}
    for _ in range(8):
        for column in columns:
            near = {key: [place[other] for other in (*before[key], *after[key])] for key in column}
            column.sort(key=lambda key: (sum(near[key]) / len(near[key]), key))
            place |= {key: (at + 0.5) / len(column) for at, key in enumerate(column)}
    return columns


def _rows(
    keys: Sequence[str], sizes: Mapping[str, tuple[float, float]], top: float, width: float
) -> dict[str, tuple[float, float]]:
    """Boxes side by side in rows of at most `width`, below `top`."""
    places: dict[str, tuple[float, float]] = {}
    row: list[str] = []
    x, y = 0.3, top - (0.3 if top else 0.0)

    def close() -> float:
        height = max(sizes[key][1] for key in row)
        places.update({key: (at, y - height) for key, at in zip(row, starts, strict=True)})
        return y - height - _GAP_Y

    starts: list[float] = []
    for key in keys:
        if row and x + sizes[key][0] > width:
            y = close()
            row, starts, x = [], [], 0.3
        row.append(key)
        starts.append(x)
        x += sizes[key][0] + _GAP_Y
    if row:
        close()
    return places


def _size(pattern: PatternView) -> tuple[float, float]:
    lines, _ = _labels(pattern)
    return max(len(line) for line in lines) * _LETTER + 0.34, len(lines) * _LINE + 0.14


def _labels(pattern: PatternView) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The lines of a box and their fills: the key, then the vectors of the pattern and of its facets."""
    lines, fills = [_shortened(pattern.key)], [_PLAIN]
    for one in pattern.trainables:
        own = one.facet is None
        lines.append(_shortened(_state_label(one) if own else f"#{one.facet}  {_state_label(one)}"))
        fills.append(FILLS.get(one.state, _PLAIN))
    if len(pattern.trainables) == 1 and pattern.trainables[0].facet is None:
        fills[0] = fills[1]
    return tuple(lines), tuple(fills)


def _state_label(state: TrainableState) -> str:
    return state.state + ("" if state.alpha is None else f"  α {number(state.alpha)}")


def _shortened(text: str) -> str:
    plain = "".join(char if char.isprintable() else "?" for char in text).replace("$", r"\$")
    if len(plain) <= _LONGEST:
        return plain
    return f"{plain[: _LONGEST - 9]}…{plain[-8:]}"


# -- what is drawn -------------------------------------------------------------------------------------------


def _draw_box(axes: Axes, box: Box) -> None:
    from matplotlib.patches import FancyBboxPatch, Rectangle

    style = "round,pad=0,rounding_size=0.07"
    outline = FancyBboxPatch((box.x, box.y), box.width, box.height, boxstyle=style, zorder=3)
    outline.set(facecolor=box.fills[0], edgecolor=_GREY, linewidth=0.9)
    axes.add_patch(outline)
    for place, (line, fill) in enumerate(zip(box.lines, box.fills, strict=True)):
        middle = box.y + box.height - 0.07 - _LINE * (place + 0.5)
        if fill != box.fills[0]:
            strip = Rectangle((box.x + 0.05, middle - _LINE / 2), box.width - 0.1, _LINE, zorder=4)
            strip.set(facecolor=fill, edgecolor="none")
            axes.add_patch(strip)
        weight = "normal" if place else "bold"
        axes.text(
            box.x + 0.13, middle, line, fontsize=8 if place else 8.5, weight=weight, va="center", zorder=5
        )


def _arrows(links: Sequence[LinkView], boxes: Mapping[str, Box]) -> list[Arrow]:
    """The arrow of each link between two boxes. Arrows at one side of a box lie below each other."""
    chosen: dict[Edge, bool] = {}
    for link in links:
        edge = Edge(link.from_, owner(link.to, boxes), link.relation, link.strength)
        back = Edge(edge.end, edge.start, edge.relation, edge.strength)
        if edge.end not in boxes or edge.end == edge.start:
            continue
        if back in chosen:
            chosen[back] = True
        else:
            chosen.setdefault(edge, False)
    sides: dict[tuple[str, bool], list[tuple[float, int, bool]]] = {}
    for at, edge in enumerate(chosen):
        start, end = boxes[edge.start], boxes[edge.end]
        sides.setdefault((edge.start, not end.is_left_of(start)), []).append((end.middle, at, False))
        sides.setdefault((edge.end, not start.is_left_of(end)), []).append((start.middle, at, True))
    places: dict[tuple[int, bool], tuple[float, float]] = {}
    for (key, right), ends in sides.items():
        box = boxes[key]
        for rank, (_, at, is_end) in enumerate(sorted(ends)):
            y = box.y + box.height * (0.15 + 0.7 * (rank + 0.5) / len(ends))
            places[at, is_end] = (box.x + box.width if right else box.x), y
    found = []
    for at, (edge, mutual) in enumerate(chosen.items()):
        start, end = boxes[edge.start], boxes[edge.end]
        begin, finish = places[at, False], places[at, True]
        bend = 0.0
        if not (start.is_left_of(end) or end.is_left_of(start)):  # around the right side of both
            bend = math.copysign(min(0.6, 0.5 / max(abs(begin[1] - finish[1]), 0.2)), finish[1] - begin[1])
        found.append(Arrow(edge, mutual, begin, finish, bend))
    return found


def _draw_arrow(axes: Axes, arrow: Arrow, *, named: bool) -> None:
    from matplotlib.patches import FancyArrowPatch

    edge, bend = arrow.edge, arrow.bend
    against = opposes(edge.relation)
    line = FancyArrowPatch(
        arrow.begin,
        arrow.end,
        connectionstyle=f"arc3,rad={bend:.3f}",
        arrowstyle="<|-|>" if arrow.mutual else "-|>",
        shrinkA=0,
        shrinkB=0,
    )
    line.set(
        color=_RED if against else _GREY,
        linestyle="--" if against else "-",
        linewidth=0.6 + 1.2 * edge.strength,
        mutation_scale=9,
        alpha=0.85,
        zorder=2,
    )
    axes.add_patch(line)
    if named:
        axes.text(
            *arrow.point(0.5 if bend or arrow.mutual else 0.27),
            arrow.words,
            fontsize=6.5,
            color=_RED if against else _GREY,
            ha="center",
            va="center",
            zorder=2.5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.6},
        )


def _draw_legend(axes: Axes, patterns: Sequence[PatternView], arrows: Sequence[Arrow]) -> None:
    """The states that occur, and the two kinds of lines, in the lower left corner."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    there = {one.state for pattern in patterns for one in pattern.trainables}
    marks: list[Any] = [
        Patch(facecolor=fill, edgecolor=_GREY, label=state) for state, fill in FILLS.items() if state in there
    ]
    kinds = {opposes(arrow.edge.relation) for arrow in arrows}
    if False in kinds:
        marks.append(Line2D([], [], color=_GREY, label="link"))
    if True in kinds:
        marks.append(Line2D([], [], color=_RED, linestyle="--", label="opposing link"))
    axes.legend(handles=marks, loc="lower left", ncols=len(marks), fontsize=7.5, frameon=False)
