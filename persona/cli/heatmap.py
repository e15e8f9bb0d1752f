"""Sheets as a picture: layers by kinds of module, one heat map beside the other.

A module outside the layers is a band over the whole width, at its position in the model. Grey cells have no
number.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona.cli.measures import Sheet
from persona.errors import InvalidInput, UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = {".png": "png", ".svg": "svg"}
_DPI = 150


def check(path: Path, flag: str = "--plot") -> str:
    """The format of a picture by its name: "png" or "svg". Called before any work is done.

    Raises `UsageError` for another ending, `InvalidInput` if no file can be there.
    """
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise UsageError(f"{flag} {path}: a picture must be a .png or .svg file")
    if not path.parent.is_dir():
        raise InvalidInput(f"{flag} {path}: there is no directory {path.parent}; make it first")
    if path.is_dir():
        raise InvalidInput(f"{flag} {path}: this is a directory; give a file in it")
    return form


def write(path: Path, title: str, sheets: Sequence[Sheet]) -> None:
    """Draws the sheets into a file, which appears whole. Raises as `check`, and `SystemFault`."""
    from persona.store import files

    form = check(path)
    if not any(sheet.cells or sheet.outside[0] or sheet.outside[1] for sheet in sheets):
        raise InvalidInput(f"--plot {path}: there is nothing to draw: the two have no float tensor in common")
    files.write_file(path, picture(form, title, sheets))


def picture(form: str, title: str, sheets: Sequence[Sheet]) -> bytes:
    """The picture as "png" or "svg": the same bytes for the same sheets and the same matplotlib."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = max(len(sheet.layers) + len(sheet.outside[0]) + len(sheet.outside[1]) for sheet in sheets)
    columns = max(len(sheet.modules) for sheet in sheets)
    wide = max(3.6, 1.7 + 0.36 * columns)
    # Fixed names, so that an SVG of the same numbers is the same file; text stays text.
    settings: Any = {"svg.hashsalt": "persona", "svg.fonttype": "none"}
    with matplotlib.rc_context(settings):
        size = (wide * len(sheets), min(24.0, max(3.6, 2.4 + 0.19 * rows)))
        figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=11)
        panels = figure.subplots(1, len(sheets), squeeze=False)[0]
        for place, (axes, sheet) in enumerate(zip(panels, sheets, strict=True)):
            _draw(figure, axes, sheet, first=not place or sheet.stack != sheets[place - 1].stack)
        out = BytesIO()
        figure.savefig(out, format=form, metadata={"Date": None} if form == "svg" else {"Software": None})
    return out.getvalue()


def _draw(figure: Figure, axes: Axes, sheet: Sheet, *, first: bool) -> None:
    import numpy as np

    before, after = sheet.outside
    columns = max(1, len(sheet.modules))
    bands = [[(name, [value] * columns) for name, value in part] for part in (before, after)]
    layers = [(str(layer), list(cells)) for layer, cells in zip(sheet.layers, sheet.cells, strict=True)]
    rows = [*bands[0], *layers, *bands[1]]
    values = np.array([[np.nan if x is None else x for x in cells] for _, cells in rows], np.float64)
    masked = np.ma.masked_invalid(values)
    most, beyond = _top(masked.compressed())
    axes.set_facecolor("0.9")
    mesh = axes.pcolormesh(masked, cmap="viridis", vmin=0.0, vmax=most)
    axes.invert_yaxis()
    every = max(1, len(layers) // 32)
    shown = [
        place
        for place in range(len(rows))
        if not len(bands[0]) <= place < len(bands[0]) + len(layers) or (place - len(bands[0])) % every == 0
    ]
    axes.set_yticks([place + 0.5 for place in shown], [rows[place][0] for place in shown], fontsize=7)
    axes.set_xticks([x + 0.5 for x in range(len(sheet.modules))], list(sheet.modules), fontsize=7)
    axes.tick_params(axis="x", rotation=90)
    axes.tick_params(length=0)
    if layers and first:
        axes.set_ylabel(f"layer ({sheet.stack})", fontsize=8)
    for edge in (len(bands[0]), len(bands[0]) + len(layers)):
        if 0 < edge < len(rows):
            axes.axhline(edge, color="white", linewidth=2)
    axes.set_title(sheet.title, fontsize=8)
    extend = "max" if beyond else "neither"
    bar = figure.colorbar(mesh, ax=axes, pad=0.02, aspect=40, extend=extend, format="{x:g} %")
    bar.ax.tick_params(labelsize=7)


def _top(values: Any) -> tuple[float, bool]:
    """The upper end of the colours, and whether values lie beyond.

    A few very large values would leave the others in one colour.
    """
    import numpy as np

    most = float(values.max()) if values.size else 0.0
    usual = float(np.quantile(values, 0.97, method="higher")) if values.size else 0.0
    if usual > 0 and most > 1.5 * usual:
        return usual, True
    return most or 1.0, False
