"""**sweep** — a vector measured at several values of α in a recipe.

**point** — one setting of the swept vector, with its effect, spill and damage. Points that differ in α only
are a *curve*.
**stretch** — the part of a curve, around its start, in which the effect rises with α.

A step of a curve is *sure* if the 95 % interval of the change of the effect, probe by probe, does not hold 0.
A stretch is walked from its start in both directions. A point further out becomes the new end if the effect
is surely higher there (below the start: surely lower) than at the end so far. The walk stops at a point where
the effect surely turns back. A point that is neither is noise: it moves no end and stops no walk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import field
from decimal import Decimal, localcontext
from typing import Any, Final

from persona.errors import Call, InvalidInput
from persona.frozen import dataclass
from persona.history.recipes.checked import checked, over_layers
from persona.history.results import UNPRINTED, Result
from persona.history.score_results import Damage, Effect, Interval
from persona.limits import MAX_DECIMAL_CHARS
from persona.objects.rules import check_strength

MOST: Final = 1000
"""The most points of one sweep."""
_FORM: Final = "a range is FROM:TO:STEP, such as -1:1.5:0.25"
_DIGITS: Final = 4 * MAX_DECIMAL_CHARS
"""Digits that hold a sum of canonical decimals exactly."""


@dataclass(frozen=True, repr=False)
class Point(Result):
    """One setting of the swept vector, and what was measured there.

    `density`: in effect for the vector, None if nothing of it is trimmed. `weights`: the digest of the
    recipe's weights. `effect`: on the probes of the vector's pattern, against the base. `in_all_forms`:
    whether each surface form shows the effect surely and with the same sign; None if there is only one form.
    `spill`: what the vector moves on the probes of other patterns, against the same recipe with the vector at
    α = 0, or without it if it adds tokens; the largest change first. `damage`: of the recipe, against the
    base. `allowed`: whether it is within the limit.
    """

    alpha: float
    preset: str
    density: float | tuple[float, ...] | None
    join: str
    weights: str
    effect: Effect
    in_all_forms: bool | None
    spill: tuple[Effect, ...]
    damage: Damage
    allowed: bool

    @property
    def curve(self) -> tuple[Any, ...]:
        """What the points of one curve have in common."""
        return self.preset, self.density, self.join


@dataclass(frozen=True, repr=False)
class Stretch(Result):
    """The stretch of a curve, from α = `low` to α = `high`; both are `start` if there is none.

    `below`, `above`: what the curve does outside: "end" (it has no further point), "level" (the effect
    changes no further for sure), or "turns" (the effect surely goes the other way).
    """

    preset: str
    density: float | tuple[float, ...] | None
    join: str
    start: float
    low: float
    high: float
    below: str
    above: str


@dataclass(frozen=True, repr=False)
class Sweep(Result):
    """A vector measured at several settings.

    `vector`: its id. `wanted`: 1, or −1 for an unwanted pattern. `alone`: whether the recipe's other vectors
    were left out. `limit`: the ratio of the losses that is allowed. `present`: α in `recipe.toml`; None if
    the vector is not in it or has a list over layers. `grows`: whether the vector adds tokens to the base, so
    that the recipe with α = 0 is not the recipe without it. `best`: of the points within the limit whose
    effect is surely in the wanted direction, the one with the largest effect; None if there is none. `edits`:
    the calls that put it into `recipe.toml`.
    """

    name: str
    vector: str
    pattern: str
    wanted: int
    alone: bool
    limit: float
    present: float | None
    points: tuple[Point, ...]
    stretches: tuple[Stretch, ...]
    best: Point | None
    scorer: str
    dtype: str
    device: str
    measured_before: bool
    edits: tuple[Call, ...] = field(default=(), metadata=UNPRINTED)
    grows: bool = field(default=False, metadata=UNPRINTED)
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


# -- which points --------------------------------------------------------------------------------------------


def decimals(value: Any, parameter: str, check: Callable[[object, str], str]) -> tuple[str, ...]:
    """Numbers as canonical decimals, each once, ascending.

    `value`: a number, a list of them, or a text of numbers and ranges with commas between. A range
    FROM:TO:STEP has FROM, and every STEP after it up to TO, TO included. `check`: of one number. Raises
    `InvalidInput` that names the parameter.
    """
    given = over_layers(value)
    parts = given.split(",") if isinstance(given, str) else given if isinstance(given, list) else [given]
    found: set[str] = set()
    for part in parts:
        inside = _range(part.strip(), parameter) if isinstance(part, str) and ":" in part else [part]
        found |= {checked(parameter, check, number) for number in inside}
    if not found:
        raise InvalidInput(f"it has no number; give a number or a range; {_FORM}", parameter=parameter)
    _check_count(len(found), parameter)
    return tuple(sorted(found, key=Decimal))


def words(value: str | Sequence[str] | None) -> tuple[str, ...]:
    """Words of a list, or of a text with commas between, each once."""
    parts = value.split(",") if isinstance(value, str) else value or ()
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _range(text: str, parameter: str) -> list[str]:
    parts = text.split(":")
    if len(parts) != 3:
        raise InvalidInput(f"{text!r:.60} is no range; {_FORM}", parameter=parameter)
    start, end, step = (Decimal(checked(parameter, check_strength, part.strip())) for part in parts)
    if not step or (end - start) * step < 0:
        raise InvalidInput(
            f"{text!r:.60}: steps of {step} do not lead from {start} to {end}; {_FORM}", parameter=parameter
        )
    with localcontext() as context:
        context.prec = _DIGITS
        count = int((end - start) // step) + 1
        _check_count(count, parameter)
        return [str(start + place * step) for place in range(count)]


def _check_count(count: int, parameter: str) -> None:
    if count > MOST:
        raise InvalidInput(f"{count:,} numbers; at most {MOST:,} are possible", parameter=parameter)


# -- what they say -------------------------------------------------------------------------------------------


def whole_of(effect: Effect) -> Interval:
    """The interval that an effect is judged by: of the margin, else of the rate."""
    whole = effect.margin or effect.rate
    assert whole is not None
    return whole


def sure_sign(interval: Interval) -> int:
    """1 or −1 if an interval lies on one side of 0, else 0."""
    return (interval.low > 0) - (interval.high < 0)


def in_all_forms(effect: Effect) -> bool | None:
    """Whether each surface form shows an effect surely and with the same sign; None if there is only one."""
    if len(effect.splits) < 2:
        return None
    signs = {sure_sign(one) for one in (whole_of(effect), *effect.splits.values())}
    return len(signs) == 1 and 0 not in signs


def by_size(effects: Iterable[Effect]) -> tuple[Effect, ...]:
    """Effects with the largest change first; those of a rate come after those of a margin."""
    return tuple(sorted(effects, key=lambda one: (one.margin is None, -abs(whole_of(one).mean))))


def start_of(alphas: Sequence[str], present: str | None) -> int:
    """The place where the stretch of a curve starts: at α = 0, else at the present α, else nearest to 0."""
    for alpha in ("0", present):
        if alpha in alphas:
            return alphas.index(alpha)
    return min(range(len(alphas)), key=lambda place: abs(Decimal(alphas[place])))


def stretch(points: Sequence[Point], start: int, change: Callable[[int, int], Interval]) -> Stretch:
    """The stretch of a curve around the place `start`.

    `points`: of the curve, α ascending. `change`: the change of the effect from one place to another.
    """
    high, above = _walk(range(start, len(points)), lambda old, new: sure_sign(change(old, new)))
    low, below = _walk(range(start, -1, -1), lambda old, new: -sure_sign(change(old, new)))
    first = points[start]
    return Stretch(
        preset=first.preset,
        density=first.density,
        join=first.join,
        start=first.alpha,
        low=points[low].alpha,
        high=points[high].alpha,
        below=below,
        above=above,
    )


def _walk(places: range, goes_on: Callable[[int, int], int]) -> tuple[int, str]:
    """Where a walk ends, and what comes after. `goes_on`: 1 if the curve goes on, −1 if it turns, 0 if
    neither is sure.
    """
    end = places[0]
    for place in places[1:]:
        found = goes_on(end, place)
        if found < 0:
            return end, "turns"
        if found > 0:
            end = place
    return end, "end" if end == places[-1] else "level"


def best_of(points: Sequence[Point], wanted: int) -> int | None:
    """The place of the best point, as `Sweep.best` says. Of equal ones, that with the smallest |α|."""

    def order(place: int) -> tuple[float, float]:
        point = points[place]
        return wanted * whole_of(point.effect).mean, -abs(point.alpha)

    fit = (
        place
        for place, point in enumerate(points)
        if point.allowed and sure_sign(whole_of(point.effect)) == wanted
    )
    return max(fit, key=order, default=None)
