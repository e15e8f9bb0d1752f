"""Intervals, thresholds and verdicts against naive forms of their definitions."""

from __future__ import annotations

import math
from statistics import fmean, stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.behaviour.measuring.statistics import (
    FEWEST_GROUPS,
    RESAMPLES,
    SEED,
    interval,
    rate,
    ratio_interval,
    threshold,
    verdict,
)
from persona.history.scores import Interval

NUMBERS = st.floats(-200, 200).map(lambda value: round(value, 4))


@given(st.lists(st.tuples(NUMBERS, st.sampled_from("abcdef")), min_size=1, max_size=9))
def test_an_interval_is_the_bootstrap_over_whole_groups(items: list[tuple[float, str]]) -> None:
    values, groups = [value for value, _ in items], [group for _, group in items]
    found = interval(values, groups)
    names = list(dict.fromkeys(groups))
    members = [[value for value, group in items if group == name] for name in names]
    random = np.random.default_rng(SEED)
    means = []
    for drawn in random.integers(0, len(names), (RESAMPLES, len(names))):
        chosen = [value for place in drawn for value in members[place]]
        means.append(math.fsum(chosen) / len(chosen))
    low, high = np.quantile(means, (0.025, 0.975))
    assert found.items == len(items)
    assert found.mean == pytest.approx(fmean(values), abs=1e-9)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    assert found == interval(values, groups)


@given(st.lists(st.tuples(st.floats(0.5, 9), st.floats(0.5, 9)), min_size=1, max_size=12))
def test_the_interval_of_a_ratio_is_of_sums(pairs: list[tuple[float, float]]) -> None:
    above, below = zip(*pairs, strict=True)
    found = ratio_interval(above, below, [str(place) for place in range(len(pairs))])
    assert found.mean == pytest.approx(sum(above) / sum(below))
    ratios = [one / other for one, other in pairs]
    assert min(ratios) - 1e-9 <= found.low <= found.mean + 1e-9
    assert found.mean - 1e-9 <= found.high <= max(ratios) + 1e-9


def test_equal_values_have_an_interval_without_width() -> None:
    assert interval([2.5] * 8, list("abcdefgh")) == Interval(2.5, 2.5, 2.5, 8)


def test_groups_that_are_alike_make_the_interval_wider() -> None:
    values = [float(place // 4) for place in range(32)]
    alone = interval(values, [str(place) for place in range(32)])
    together = interval(values, [str(place // 4) for place in range(32)])
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


@given(st.integers(1, 400).flatmap(lambda items: st.tuples(st.integers(0, items), st.just(items))))
def test_a_rate_has_the_wilson_interval(counts: tuple[int, int]) -> None:
    met, items = counts
    found = rate(met, items)
    share, z = met / items, 1.959963984540054
    assert 0 <= found.low <= share <= found.high <= 1
    for end, at in ((found.low, 0), (found.high, items)):
        if met != at:  # an end p is as far from the share as 1.96 standard errors of p
            assert abs(share - end) == pytest.approx(z * math.sqrt(end * (1 - end) / items), abs=1e-9)
        else:
            assert end == share


@given(st.lists(NUMBERS, min_size=5, max_size=5))
def test_the_threshold_is_above_all_controls_and_their_prediction_limit(controls: list[float]) -> None:
    limit = threshold(controls)
    expected = fmean(controls) + 5.0435 * stdev(controls)
    assert limit == pytest.approx(max(expected, *controls), abs=1e-9)


def test_a_sixth_random_value_passes_the_threshold_in_one_of_two_hundred() -> None:
    draws = np.random.default_rng(0).normal(3, 2, (20_000, 6))
    passed = sum(row[5] > threshold(row[:5].tolist()) for row in draws)
    assert 0.0035 < passed / len(draws) < 0.0065


@given(NUMBERS, st.floats(0, 50), st.floats(0, 50), NUMBERS, st.integers(1, 12))
def test_a_verdict_follows_its_definition(
    mean: float, below: float, above: float, control: float, groups: int
) -> None:
    effect = Interval(mean, mean - below, mean + above, 30)
    passes = effect.low > 0 and effect.low > control
    fails = mean <= control or effect.high < 0
    expected = "fail" if fails else "pass" if passes and groups >= FEWEST_GROUPS else "inconclusive"
    assert verdict(effect, control, groups) == expected
