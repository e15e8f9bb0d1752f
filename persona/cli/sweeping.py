"""A sweep as text: a table of its points, the stretch of each curve, and the best point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from click import style

from persona.cli.hints import command_line
from persona.cli.render import columns, number
from persona.cli.terminal import one_line
from persona.cli.verification import change_text, effect_text

if TYPE_CHECKING:
    from persona.behaviour.measuring.sweeping import Point, Stretch, Sweep


def lines(found: Sweep) -> Iterator[str]:
    """All that is said of a sweep."""
    where = "without the other vectors" if found.alone else "in recipe.toml"
    how = f"{found.dtype}, {found.device}{', measured before' if found.measured_before else ''}"
    yield f"{one_line(found.name)} {where}, against the base ({how})"
    yield ""
    yield from _table(found)
    yield ""
    for stretch in found.stretches:
        yield _curve_name(found, stretch) + stretch_text(stretch)
    yield from _best(found)


def stretch_text(stretch: Stretch) -> str:
    """In which range of α the effect rises, and what comes after it."""
    low, high = _alpha(stretch.low), _alpha(stretch.high)
    if stretch.low == stretch.high:
        return f"the effect does not surely rise with α around α = {_alpha(stretch.start)}"
    text = f"the effect rises from α = {low} up to α = {high}"
    text += {"turns": ", then falls", "level": ", then stays level", "end": ""}[stretch.above]
    below = {"turns": "falls towards it", "level": "stays level", "end": ""}[stretch.below]
    return text + (f"; below α = {low}, it {below}" if below else "")


def curve_text(one: Point | Stretch, found: Sweep) -> str:
    """The settings of a curve that differ between curves: `ties, density 0.2, add`."""
    parts = []
    if len({point.preset for point in found.points}) > 1:
        parts.append(one.preset)
    if len({point.density for point in found.points}) > 1 and one.density is not None:
        density = one.density
        parts.append(f"density {number(density) if isinstance(density, tuple) else _alpha(density)}")
    if len({point.join for point in found.points}) > 1:
        parts.append(one.join)
    return ", ".join(parts)


def marks(point: Point, found: Sweep) -> list[str]:
    """What is special about a point."""
    said = []
    if point.alpha == 0 and not found.grows:
        said.append("without it")
    if point.alpha == found.present:
        said.append("α in recipe.toml")
    if found.best is not None and point == found.best:
        said.append("best")
    return said


def _table(found: Sweep) -> Iterator[str]:
    several = len(found.stretches) > 1
    forms = any(point.in_all_forms is not None for point in found.points)
    checks = any(point.effect.after is not None and point.effect.margin for point in found.points)
    spill = any(point.spill for point in found.points)
    head = [
        *(["RULES"] if several else []),
        *("ALPHA", "EFFECT"),
        *(["ALL FORMS"] if forms else []),
        *(["CHECK"] if checks else []),
        *(["LARGEST SPILL"] if spill else []),
        *("KL", "LOSS RATIO", "DAMAGE", ""),
    ]
    rows = [head]
    for point in found.points:
        after, damage = point.effect.after, point.damage
        largest = point.spill[0] if point.spill else None
        rows.append(
            [
                *([curve_text(point, found)] if several else []),
                _alpha(point.alpha),
                effect_text(point.effect),
                *([{True: "yes", False: "no", None: ""}[point.in_all_forms]] if forms else []),
                *(["" if after is None else f"{after.met}/{after.items}"] if checks else []),
                *(
                    [f"{change_text(largest)} {one_line(largest.pattern)}" if largest else ""]
                    if spill
                    else []
                ),
                f"{damage.kl.mean:.4f}",
                f"{damage.ratio.mean:.4f}",
                "allowed" if point.allowed else "too much",
                ", ".join(marks(point, found)),
            ]
        )
    yield from columns(rows)


def _curve_name(found: Sweep, one: Point | Stretch) -> str:
    name = curve_text(one, found)
    return f"{name}: " if name else ""


def _best(found: Sweep) -> Iterator[str]:
    best = found.best
    unwanted = found.wanted < 0
    if best is None:
        kind = "negative" if unwanted else "positive"
        yield (f"best: none; no point has a surely {kind} effect and a loss ratio of at most {found.limit:g}")
        return
    way = "most negative" if unwanted else "largest"
    where = _curve_name(found, best)
    yield (
        f"{style('best', bold=True)}: {where}α = {_alpha(best.alpha)}, the {way} effect with a loss ratio"
        f" of at most {found.limit:g}"
    )
    if found.edits:
        for edit in found.edits:
            yield f"take it: persona {command_line(edit)}"
    elif found.present is not None:
        yield "recipe.toml has it already"


def _alpha(alpha: float) -> str:
    return f"{alpha:.12g}"
