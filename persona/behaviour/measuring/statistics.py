"""The statistics of measurements: intervals, the threshold of random vectors, verdicts. Without torch.

Intervals are of 95 %. An interval of a mean is a percentile bootstrap over groups of items: a group is drawn
whole, because its items are alike. The seed is fixed, so the same numbers give the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from persona.history.scores import Interval, Rate

RESAMPLES: Final = 10_000
SEED: Final = 20_511
FEWEST_GROUPS: Final = 5
"""An effect over fewer groups is inconclusive: their bootstrap interval is far too narrow."""
CONTROLS: Final = 5
"""Random vectors that an effect is compared with; their numbers are their seeds."""
_Z: Final = 1.959963984540054
"""The 0.975 quantile of the normal distribution."""
_T: Final = 5.0435
"""t(0.995, 4)·√(1 + 1/5): a sixth value is above the mean + 5.04 sd of five with probability 0.5 %."""
_AT_ONCE: Final = 1 << 20
"""Drawn groups that are held in memory at once."""


def interval(values: Sequence[float], groups: Sequence[str]) -> Interval:
    """The mean of values and its interval. `groups`: the group of each value."""
    return ratio_interval(values, [1.0] * len(values), groups)


def ratio_interval(above: Sequence[float], below: Sequence[float], groups: Sequence[str]) -> Interval:
    """The ratio of two sums over the same items, and its interval."""
    places = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    where = [places[group] for group in groups]
    sums = np.bincount(where, above, len(places)), np.bincount(where, below, len(places))
    ratios = _resampled(*sums)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Interval(math.fsum(above) / math.fsum(below), float(low), float(high), len(groups))


def _resampled(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Ratios of sums over as many groups as there are, drawn with replacement; `RESAMPLES` of them."""
    random = np.random.default_rng(SEED)
    count = len(above)
    found = []
    for start in range(0, RESAMPLES, step := max(1, _AT_ONCE // count)):
        drawn = random.integers(0, count, (min(step, RESAMPLES - start), count))
        found.append(above[drawn].sum(axis=1) / below[drawn].sum(axis=1))
    return np.concatenate(found)


def rate(met: int, items: int) -> Rate:
    """A rate and its Wilson interval (Wilson 1927)."""
    share, scale = met / items, 1 + _Z**2 / items
    middle = share + _Z**2 / (2 * items)
    reach = _Z * math.sqrt(share * (1 - share) / items + _Z**2 / (4 * items**2))
    low = 0.0 if met == 0 else (middle - reach) / scale
    high = 1.0 if met == items else (middle + reach) / scale
    return Rate(met, items, low, high)


def threshold(controls: Sequence[float]) -> float:
    """The effect that one more random vector stays below, from the effects of several (decision 033)."""
    mean = math.fsum(controls) / len(controls)
    variance = math.fsum((value - mean) ** 2 for value in controls) / (len(controls) - 1)
    return max(max(controls), mean + _T * math.sqrt(variance))


def verdict(effect: Interval, control: float, groups: int) -> str:
    """pass, fail or inconclusive. `effect`: times what is wanted; `control`: the threshold."""
    if effect.mean <= control or effect.high < 0:
        return "fail"
    if groups >= FEWEST_GROUPS and effect.low > 0 and effect.low > control:
        return "pass"
    return "inconclusive"
