"""Effect, spill and damage out of measurements. Plain statistics: no model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from persona.behaviour.measuring.damage import KL_PLACES, LOSS_PLACES, text_digest
from persona.behaviour.measuring.items import PLACES, asked
from persona.behaviour.measuring.statistics import interval, rate, ratio_interval, threshold, verdict
from persona.behaviour.probes import Probe, ProbeSet
from persona.history.scores import Damage, Effect, Interval, Rate


def kind_judged(probes: ProbeSet) -> str:
    """The kind of measurement that decides about a pattern: margins if its probes have any, else answers."""
    has_pairs = any(probe.chosen is not None for probe in probes.items)
    return "margins" if has_pairs else "answers"


def judged_items(probes: ProbeSet) -> list[Probe]:
    """The probes that decide about a pattern."""
    return [probes.items[place] for place in asked(probes, kind_judged(probes))]


def effect_of(
    probes: ProbeSet,
    wanted: int | None,
    before: dict[str, Any],
    after: dict[str, Any],
    controls: Sequence[Any],
) -> Effect:
    """The effect on the probes of one pattern.

    `wanted`: 1 or −1 if its vector is in what was measured, None for spill. `before`, `after`: of the base
    and of the weights: kind → what was measured. `controls`: for an own effect, the judged kind of each
    random vector; without any there is no verdict.
    """
    kind = kind_judged(probes)
    changes = _changes(probes, kind, before[kind], after[kind])
    items = judged_items(probes)
    groups = [item.group for item in items]
    whole = interval(changes, groups)
    splits = {}
    for split in probes.splits:
        chosen = [place for place, item in enumerate(items) if item.split == split]
        if chosen:
            splits[split] = interval([changes[p] for p in chosen], [groups[p] for p in chosen])
    control = word = None
    if wanted is not None and controls:
        means = [_mean(_changes(probes, kind, before[kind], found)) for found in controls]
        limit = threshold([wanted * mean for mean in means])
        control = wanted * limit
        word = verdict(_times(whole, wanted), limit, len(set(groups)))
    return Effect(
        pattern=probes.key,
        own=wanted is not None,
        wanted=wanted,
        margin=whole if kind == "margins" else None,
        rate=whole if kind == "answers" else None,
        splits=splits,
        before=_rate(probes, before.get("answers")),
        after=_rate(probes, after.get("answers")),
        control=control,
        verdict=word,
        probes=probes.digest,
    )


def damage_of(windows: Sequence[Sequence[int]], limit: float, text: bytes) -> Damage:
    """The damage that the windows of the neutral text show; each window is a group."""
    groups = [str(place) for place in range(len(windows))]
    positions, kl, same, base, model = (list(map(float, column)) for column in zip(*windows, strict=True))
    return Damage(
        kl=ratio_interval([value / KL_PLACES for value in kl], positions, groups),
        top=ratio_interval(same, positions, groups),
        ratio=ratio_interval(
            [value / LOSS_PLACES for value in model], [value / LOSS_PLACES for value in base], groups
        ),
        limit=limit,
        text=text_digest(text),
    )


def verdict_of(effects: Sequence[Effect], damage: Damage, unverified: Sequence[str]) -> str:
    """The verdict of a recipe or a vector: pass, fail, inconclusive, or unverified.

    Nothing passes of which a pattern has no probes.
    """
    words = {effect.verdict for effect in effects if effect.own}
    if "fail" in words or (words and damage.ratio.mean > damage.limit):
        return "fail"
    if "inconclusive" in words:
        return "inconclusive"
    return "pass" if words and not unverified else "unverified"


def _changes(probes: ProbeSet, kind: str, before: Sequence[Any], after: Sequence[Any]) -> list[float]:
    """The change of each item: of the margin in nats, or whether the check holds (−1, 0, 1)."""
    if kind == "margins":
        return [(new - old) / PLACES for old, new in zip(before, after, strict=True)]
    held, holds = _held(probes, before), _held(probes, after)
    return [float(new - old) for old, new in zip(held, holds, strict=True)]


def _held(probes: ProbeSet, answers: Sequence[str]) -> list[bool]:
    """Whether the check of each item holds of its answer."""
    checks = [probes.items[place].check for place in asked(probes, "answers")]
    return [check.holds(answer) for check, answer in zip(checks, answers, strict=True) if check is not None]


def _rate(probes: ProbeSet, answers: Sequence[str] | None) -> Rate | None:
    if not answers:
        return None
    held = _held(probes, answers)
    return rate(sum(held), len(held))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _times(effect: Interval, sign: int) -> Interval:
    """An effect in the direction that is wanted."""
    if sign > 0:
        return effect
    return Interval(-effect.mean, -effect.high, -effect.low, effect.items)
