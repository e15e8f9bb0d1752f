"""The results of measuring a commit or a vector: effect, spill and damage; see `scores`.

They are a module of their own because `log` needs them only for commits that were measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from typing import Final

from persona.frozen import dataclass
from persona.history.results import UNPRINTED, Result

SEEN: Final = "seen"
"""The surface form that the training data uses."""


def in_order(splits: Iterable[str]) -> list[str]:
    """Surface forms in the order in which they are shown: that of the training data first."""
    return sorted(splits, key=lambda split: (split != SEEN, split))


@dataclass(frozen=True, repr=False)
class Interval(Result):
    """A mean and its 95 % interval, over `items` items."""

    mean: float
    low: float
    high: float
    items: int


@dataclass(frozen=True, repr=False)
class Rate(Result):
    """How many of `items` answers met the check, and the Wilson 95 % interval of the rate."""

    met: int
    items: int
    low: float
    high: float


@dataclass(frozen=True, repr=False)
class Effect(Result):
    """The change of one pattern's probes, against the base.

    `pattern`: its key, or KEY#FACET. `own`: whether it has a vector in what was measured; else this is spill.
    `wanted`: 1, or −1 if the recipe subtracts the vector; None for spill. `margin`: Δmargin in nats.
    `splits`: the same by surface form. `before`, `after`: the rates of the check. `control`: the Δmargin that
    `margin.low` must be above (times `wanted`), from random vectors of the same norm. `verdict`: pass, fail
    or inconclusive; None for spill. `probes`: the digest of the probes. `rate`: of a pattern whose probes
    have checks alone, the change of the rate, in place of `margin`; `splits` and `control` are then of it.
    """

    pattern: str
    own: bool
    wanted: int | None
    margin: Interval | None
    splits: dict[str, Interval]
    before: Rate | None
    after: Rate | None
    control: float | None
    verdict: str | None
    probes: str
    rate: Interval | None = None


@dataclass(frozen=True, repr=False)
class Damage(Result):
    """The damage of the weights on neutral text, against the base.

    `kl`: KL(base ‖ model) in nats per token. `top`: the share of positions with the same most likely token.
    `ratio`: of the losses, model to base. `limit`: the ratio that is allowed. `text`: the digest of the text.
    """

    kl: Interval
    top: Interval
    ratio: Interval
    limit: float
    text: str


@dataclass(frozen=True, repr=False)
class TaskScore(Result):
    """A metric of a task of lm-evaluation-harness: the base's, and after it that of the weights.

    The errors are standard errors, None if the metric has none. `items`: how many were measured.
    """

    task: str
    metric: str
    before: float
    before_error: float | None
    after: float
    after_error: float | None
    items: int


@dataclass(frozen=True, repr=False)
class Scores(Result):
    """What was measured of a commit or a vector. `about`: its id; `weights`: the digest of the weights.

    `unverified`: patterns with a vector here that have no probes. `scorer`: the version of the measurement.
    """

    about: str
    about_kind: str
    weights: str
    effects: tuple[Effect, ...]
    damage: Damage | None
    verdict: str
    unverified: tuple[str, ...]
    scorer: str
    dtype: str
    device: str
    tasks: tuple[TaskScore, ...] = ()
    measured_before: bool = False
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)

    @property
    def own(self) -> tuple[Effect, ...]:
        """The effects of the patterns whose vectors are in what was measured."""
        return tuple(effect for effect in self.effects if effect.own)

    @property
    def spill(self) -> tuple[Effect, ...]:
        """What else was moved."""
        return tuple(effect for effect in self.effects if not effect.own)


@dataclass(frozen=True, repr=False)
class EffectDiff(Result):
    """One pattern's probes on two sides."""

    pattern: str
    from_: Effect
    to: Effect


@dataclass(frozen=True, repr=False)
class DamageDiff(Result):
    """Damage on two sides, on the same text."""

    from_: Damage
    to: Damage


@dataclass(frozen=True, repr=False)
class ScoresDiff(Result):
    """What was measured of two commits in the same way: of the same probes, and on the same text.

    `from_` and `to` are commit ids.
    """

    from_: str
    to: str
    effects: tuple[EffectDiff, ...]
    damage: DamageDiff | None
