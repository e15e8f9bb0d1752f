"""Changes of weights as tables in the terminal, and as sheets for `heatmap`.

**sheet** — one measure as a grid, layers by kinds of module: one number for each, in per cent.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

from click import style

from persona.cli.render import number, percent, printable, short, vector_lines
from persona.errors import listed
from persona.frozen import dataclass

if TYPE_CHECKING:
    from rich.table import Table

    from persona.cli.invocation import Invocation
    from persona.history.verbs.measure import Pair, Row, VectorStatistics, WeightsDiff
    from persona.repository import Repository

WIDTH = 100
"""Columns of a table if the width of the terminal is not known."""
HEADER = 9
"""Columns of a heading; a longer one is folded."""
_SHADES = ("bright_black", "cyan", "green", "yellow", "red")


@dataclass(frozen=True)
class Sheet:
    """Per cent by layer and module: `cells[layer][module]`, None for a missing module.

    `outside` are the modules outside the layers, by name: those before the layers, and those after.
    """

    title: str
    stack: str
    layers: tuple[int, ...]
    modules: tuple[str, ...]
    cells: tuple[tuple[float | None, ...], ...]
    totals: tuple[float | None, ...]
    outside: tuple[tuple[tuple[str, float | None], ...], tuple[tuple[str, float | None], ...]]


def sheets(
    rows: Sequence[Row], depths: Sequence[Row], title: str, measure: Callable[[Row], float | None]
) -> Iterator[Sheet]:
    """A sheet for each stack of layers; one sheet without layers for a model that has none."""
    first = next((place for place, row in enumerate(rows) if row.layer is not None), len(rows))
    loose = [
        tuple((row.module, _percent(measure(row))) for row in part if row.layer is None)
        for part in (rows[:first], rows[first:])
    ]
    stacks: list[str | None] = list(dict.fromkeys(row.stack for row in rows if row.stack is not None))
    for stack in stacks or [None]:
        here = [row for row in rows if row.stack == stack and row.layer is not None]
        values = {(row.layer, row.module): _percent(measure(row)) for row in here}
        layers = tuple(dict.fromkeys(row.layer for row in here if row.layer is not None))
        modules = _ordered(here)
        totals = {row.layer: _percent(measure(row)) for row in depths if row.stack == stack}
        yield Sheet(
            title=title,
            stack=stack or "",
            layers=layers,
            modules=modules,
            cells=tuple(tuple(values.get((layer, module)) for module in modules) for layer in layers),
            totals=tuple(totals.get(layer) for layer in layers),
            outside=(loose[0], loose[1]) if stack == next(iter(stacks), None) else ((), ()),
        )


def _ordered(rows: Sequence[Row]) -> tuple[str, ...]:
    """The modules of all layers in one order, though not every layer has each."""
    from persona.measure.layers import module_order

    return tuple(sorted({row.module for row in rows}, key=module_order))


def diff_sheets(diff: WeightsDiff) -> list[Sheet]:
    """The sheets of `diff --weights`."""
    found = [
        *sheets(diff.layers, diff.depths, "Weights changed, %", lambda row: row.size.changed_fraction),
        *sheets(
            diff.layers,
            diff.depths,
            "Size of the change, % of the weights' own",
            lambda row: row.size.relative_size,
        ),
    ]
    if len(diff.vectors) > 1 and diff.lost_fraction is not None:
        title = "Mass of the vectors that loses the election, %"
        found += sheets(diff.layers, diff.depths, title, lambda row: row.lost_fraction)
    return found


def vector_sheets(vector: VectorStatistics) -> list[Sheet]:
    """The sheets of `vector show`."""
    rows, depths = vector.layers, vector.depths
    return [
        *sheets(rows, depths, "Weights changed, %", lambda row: row.size.changed_fraction),
        *sheets(
            rows, depths, "Size of the vector, % of the weights' own", lambda row: row.size.relative_size
        ),
    ]


def weights_lines(diff: WeightsDiff, *, brief: bool) -> Iterator[str]:
    """The difference between the weights of two recipes; `brief` leaves out the layers."""
    size = diff.size
    yield style("weights", bold=True) + (
        f"  {percent(size.changed_fraction)} of {size.elements:,} change; the change is"
        f" {_ratio(size.relative_size)} of their size (L2 {size.l2:.4g})"
    )
    if diff.not_finite:
        yield f"{diff.not_finite:,} of them are not finite, and left out of sizes"
    if diff.unmatched:
        some = ", ".join(diff.unmatched[:3]) + (", …" if len(diff.unmatched) > 3 else "")
        yield f"left out, since only one has them or in another shape: {printable(some)}"
    if len(diff.vectors) > 1:
        yield from _vectors_table(diff)
        yield from _pairs_table(diff.pairs)
    contested = len(diff.vectors) > 1 and diff.lost_fraction is not None
    yield from _modules_table(diff.modules, contested)
    if brief:
        return
    for sheet in diff_sheets(diff):
        yield from sheet_lines(sheet)
    if diff.pairs:
        yield from _conflict_lines(diff)


def statistics_lines(vector: VectorStatistics) -> Iterator[str]:
    """Everything about one vector."""
    yield from vector_lines(vector.info)
    yield f"Size:     {_ratio(vector.size.relative_size)} of the weights' own"
    kept = ", ".join(f"{percent(part)} at density {number(density)}" for density, part in vector.kept)
    yield f"Kept:     {kept} (ties at the cut included)"
    for origin in vector.provenance:
        if "settings" in origin:
            yield f"Trained:  {printable(_training(origin))}"
            continue
        if "renamed" in origin:
            said = listed([f"{name} → {own}" for name, own in sorted(origin["renamed"].items())])
            yield f"Renamed:  {printable(said)}"
            continue
        if "trained_from" in origin:
            vectors = listed([short(id) for id in origin["trained_from"]])
            yield f"Onto:     a revision with {printable(vectors)}"
            continue
        said = ", ".join(f"{key} {_fact(value)}" for key, value in sorted(origin.items()))
        yield f"Origin:   {printable(said)}"
    if vector.scores is not None:
        from persona.cli.verification import brief

        yield f"Scores:   {brief(vector.scores)}"
    yield from _modules_table(vector.modules, contested=False)
    for sheet in vector_sheets(vector):
        yield from sheet_lines(sheet)


def _training(origin: Mapping[str, Any]) -> str:
    """How a vector was trained, in a line. A vector of `CommitCallback` comes from no pattern's file."""
    settings, losses = origin["settings"], [loss for _, loss in origin.get("loss", ())]
    if "file" in origin:
        said = [f"from {origin['file']}", f"{settings['method']}, {settings['optimizer']}"]
        rate = settings["lr"]
    else:
        said, rate = [f"by a Trainer of {origin['trainer']}", origin["optimizer"]], settings["learning_rate"]
    said += [f"lr {rate}", f"{origin['steps']} steps", f"seed {settings['seed']}"]
    said += [f"{warm['steps']} warm steps before"] if (warm := origin.get("warm")) and warm["steps"] else []
    said += [f"loss {losses[0]} → {losses[-1]}"] if losses else []
    return ", ".join(said)


def _fact(value: Any) -> str:
    """A value of a note; the vectors of an expression are ids by name."""
    if isinstance(value, dict):
        return ", ".join(f"{name} ({short(str(id))})" for name, id in value.items())
    return str(value)


# -- tables --------------------------------------------------------------------------------------------------


def _vectors_table(diff: WeightsDiff) -> Iterator[str]:
    table = _table(("vector", "α", "kept, %", "mass, %", "of it lost, %"))
    for share in diff.vectors:
        table.add_row(
            printable(share.name),
            number(share.alpha),
            *(_cell(_percent(x)) for x in (share.kept_fraction, share.mass_fraction, share.lost_fraction)),
        )
    yield from _lines("Vectors of the recipe", table)


def _pairs_table(pairs: Sequence[Pair]) -> Iterator[str]:
    if not pairs:
        return
    table = _table(("vectors", "cosine", "both pull at, %", "of that in conflict, %"))
    for pair in pairs:
        table.add_row(
            printable(" × ".join(pair.vectors)),
            "–" if pair.cosine is None else f"{pair.cosine:+.3f}",
            _cell(_percent(pair.shared_fraction)),
            _cell(_percent(pair.conflict_fraction)),
        )
    yield from _lines("Pairs of vectors", table)


def _modules_table(rows: Sequence[Row], contested: bool) -> Iterator[str]:
    headings = ["module", "weights", "changed, %", "size, %"] + (["mass lost, %"] if contested else [])
    table = _table(headings)
    several = len({row.stack for row in rows if row.stack is not None}) > 1
    for row in rows:
        name = f"{row.stack} {row.module}" if several and row.stack else row.module
        cells = [f"{row.size.elements:,}", _cell(_percent(row.size.changed_fraction))]
        cells.append(_cell(_percent(row.size.relative_size)))
        table.add_row(printable(name), *cells, *([_cell(_percent(row.lost_fraction))] if contested else []))
    yield from _lines("By kind of module", table)


def sheet_lines(sheet: Sheet) -> Iterator[str]:
    """A sheet as tables, side by side columns as the width allows, the rest underneath."""
    if not sheet.layers:
        return
    title = sheet.title + (f", {sheet.stack}" if sheet.stack.count(".") > 1 else "")
    headings = _short_names(sheet.modules)
    columns = list(zip(headings, zip(*sheet.cells, strict=True), strict=True))
    yield from _grid_lines(title, sheet.layers, columns, sheet.totals)


def _conflict_lines(diff: WeightsDiff) -> Iterator[str]:
    """Conflicts in sign by layer, a column for each pair."""
    depths = [row for row in diff.depths if row.layer is not None]
    if not depths:
        return
    columns = [
        (
            "\n×\n".join(printable(name)[: 2 * HEADER] for name in pair.vectors),
            tuple(_percent(row.pairs[place].conflict_fraction) for row in depths),
        )
        for place, pair in enumerate(diff.pairs)
    ]
    title = "Conflicts in sign, % of the weights that both pull at"
    yield from _grid_lines(title, [row.layer or 0 for row in depths], columns, None)


def _grid_lines(
    title: str,
    layers: Sequence[int],
    columns: Sequence[tuple[str, tuple[float | None, ...]]],
    totals: tuple[float | None, ...] | None,
) -> Iterator[str]:
    """A table with a row for each layer, in several parts if it is too wide."""
    most = max((x for _, cells in columns for x in cells if x is not None), default=0.0)
    fixed = 5 + (7 if totals else 0)
    width, used = _width(), fixed
    part: list[tuple[str, tuple[float | None, ...]]] = []
    parts = [part]
    for column in columns:
        wide = 2 + max(5, *(len(line) for line in column[0].split("\n")))
        if part and used + wide > width:
            part, used = [], fixed
            parts.append(part)
        part.append(column)
        used += wide
    for place, part in enumerate(parts):
        whole = totals if place == len(parts) - 1 else None
        headings = ["layer", *(heading for heading, _ in part), *(["all"] if whole else [])]
        table = _table(headings)
        for row, layer in enumerate(layers):
            cells = [_shaded(cells[row], most) for _, cells in part]
            table.add_row(str(layer), *cells, *([_cell(whole[row])] if whole else []))
        yield from _lines(title + (" (continued)" if place else ""), table)


def _table(headings: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
    for place, heading in enumerate(headings):
        table.add_column(Text(heading), justify="right" if place else "left", no_wrap=True)
    return table


def _lines(title: str, table: Table) -> Iterator[str]:
    from rich.console import Console

    out = StringIO()
    console = Console(
        file=out, width=max(_width(), 60), force_terminal=True, color_system="standard", highlight=False
    )
    console.print(table)
    yield ""
    yield style(title, bold=True)
    yield from (line.rstrip() for line in out.getvalue().rstrip("\n").split("\n"))


def _width() -> int:
    return shutil.get_terminal_size((WIDTH, 24)).columns


def _short_names(modules: Sequence[str]) -> list[str]:
    """The last part of each module's name, folded.

    If two would be the same, the part before it is added.
    """
    lasts = [module.rpartition(".")[2] for module in modules]
    return [
        _folded(last if lasts.count(last) == 1 else ".".join(module.split(".")[-2:]))
        for module, last in zip(modules, lasts, strict=True)
    ]


def _folded(name: str) -> str:
    """A name in lines of `HEADER` columns, broken after dots and underscores if possible."""
    lines = [""]
    for piece in name.replace("_", "_\0").replace(".", ".\0").split("\0"):
        if lines[-1] and len(lines[-1] + piece) > HEADER:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _cell(value: float | None) -> str:
    """Per cent with two decimals, or with two digits that count if it is small."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:#.2g}"


def _shaded(value: float | None, most: float) -> Any:
    from rich.text import Text

    if value is None or not most:
        return Text(_cell(value))
    return Text(_cell(value), style=_SHADES[min(len(_SHADES) - 1, int(len(_SHADES) * value / most))])


def _ratio(relative: float | None) -> str:
    return "more than all" if relative is None else f"{_cell(100 * relative)} %"


def statistics(result: VectorStatistics, call: Invocation, repo: Repository) -> Iterator[str]:
    """The lines about the changes of a vector."""
    return statistics_lines(result)
