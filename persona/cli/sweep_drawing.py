"""A sweep as a picture: panels above each other, over α: effect, spill, and damage with its limit.

Each curve has a colour. Bands are 95 % intervals. If there is one curve, each other pattern has a line of
spill; if there are several, each curve has a line of its largest spill. A sweep without spill has two panels.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from persona.behaviour.measuring.sweeping import Point, Sweep, whole_of
from persona.cli import heatmap
from persona.cli.sweeping import curve_text
from persona.cli.terminal import one_line
from persona.history.score_results import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH: Final = 8.4
_PANEL: Final = 2.8
"""The height of a panel, in inches."""
_DPI: Final = 150
_RED: Final = "#c62828"
_GREY: Final = "#607d8b"


def write(path: Path, found: Sweep) -> None:
    """Draws a sweep into a file, which appears whole. Raises as `heatmap.check`, and `SystemFault`."""
    from persona.store import files

    files.write_file(path, picture(heatmap.check(path), found))


def picture(form: str, found: Sweep) -> bytes:
    """The picture as "png" or "svg": the same bytes for the same sweep and the same matplotlib."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings: Any = {"svg.hashsalt": "persona", "svg.fonttype": "none"}
    count = 3 if found.points[0].spill else 2
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(_WIDTH, _PANEL * count), dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        effect, *spill, damage = figure.subplots(count, 1, sharex=True)
        curves = _curves(found)
        _draw_effect(effect, found, curves)
        _draw_damage(damage, found, curves)
        for axes in spill:
            _draw_spill(axes, found, curves)
        for axes, neutral in ((effect, 0.0), *((one, 0.0) for one in spill), (damage, 1.0)):
            _finish(axes, found, neutral)
        where = "without the other vectors" if found.alone else "in the recipe"
        effect.set_title(_plain(f"{found.name} {where}, against the base"), fontsize=10)
        damage.set_xlabel(_plain(f"α of {found.name}"), fontsize=9)
        out = BytesIO()
        figure.savefig(out, format=form, metadata={"Date": None} if form == "svg" else {"Software": None})
    return out.getvalue()


def _curves(found: Sweep) -> list[list[Point]]:
    length = len(found.points) // len(found.stretches)
    return [list(found.points[start : start + length]) for start in range(0, len(found.points), length)]


def _draw_effect(axes: Axes, found: Sweep, curves: Sequence[Sequence[Point]]) -> None:
    is_rate = curves[0][0].effect.margin is None
    for number, (points, stretch) in enumerate(zip(curves, found.stretches, strict=True)):
        label = curve_text(points[0], found) or found.pattern
        _line(axes, points, [whole_of(point.effect) for point in points], number, label)
        if len(curves) == 1 and stretch.low < stretch.high:
            axes.axvspan(
                stretch.low, stretch.high, color=_GREY, alpha=0.1, linewidth=0, label="the effect rises"
            )
    if found.best is not None:
        mean = whole_of(found.best.effect).mean
        axes.plot(
            [found.best.alpha],
            [mean],
            "*",
            color="black",
            markersize=11,
            zorder=5,
            label="best within the limit",
        )
    axes.set_ylabel(f"effect: change of the {'rate' if is_rate else 'margin'}", fontsize=9)


def _draw_spill(axes: Axes, found: Sweep, curves: Sequence[Sequence[Point]]) -> None:
    axes.set_ylabel("spill on other probes", fontsize=9)
    if len(curves) > 1:
        axes.set_ylabel("largest spill on other probes", fontsize=9)
        for number, points in enumerate(curves):
            _line(axes, points, [whole_of(point.spill[0]) for point in points], number)
        return
    names = sorted(effect.pattern for effect in curves[0][0].spill)
    for number, name in enumerate(names):
        of_name = [
            next(whole_of(effect) for effect in point.spill if effect.pattern == name) for point in curves[0]
        ]
        _line(axes, curves[0], of_name, number + 1, name)


def _draw_damage(axes: Axes, found: Sweep, curves: Sequence[Sequence[Point]]) -> None:
    for number, points in enumerate(curves):
        _line(axes, points, [point.damage.ratio for point in points], number)
    axes.axhline(found.limit, color=_RED, linestyle="--", linewidth=1, label=f"limit {found.limit:g}")
    axes.set_ylabel("damage: ratio of the losses", fontsize=9)


def _line(
    axes: Axes, points: Sequence[Point], intervals: Sequence[Interval], number: int, label: str = ""
) -> None:
    """A line with its band. `number`: chooses its colour and, beyond ten, its dashes."""
    alphas = [point.alpha for point in points]
    colour, dashes = f"C{number % 10}", ("-", "--", ":", "-.")[number // 10 % 4]
    means = [one.mean for one in intervals]
    line = axes.plot(alphas, means, "o", linestyle=dashes, color=colour, markersize=3.5, linewidth=1.4)[0]
    if label:
        line.set_label(_plain(label))
    low, high = [one.low for one in intervals], [one.high for one in intervals]
    axes.fill_between(alphas, low, high, color=colour, alpha=0.2, linewidth=0)


def _finish(axes: Axes, found: Sweep, neutral: float) -> None:
    """The present α, the line of no change, the grid, and the legend beside the panel."""
    if found.present is not None:
        axes.axvline(found.present, color=_GREY, linestyle=":", linewidth=1, label="α in recipe.toml")
    axes.grid(visible=True, color="0.92", linewidth=0.6)
    axes.tick_params(labelsize=8)
    axes.axhline(neutral, color="0.6", linewidth=0.8, zorder=1)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _plain(text: str) -> str:
    """A name as matplotlib draws it: no formula, no control characters."""
    return one_line(text).replace("$", r"\$")
