"""Ranges of numbers, the stretch in which an effect rises, and the best point. Without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.behaviour.measuring.sweeping import (
    Point,
    best_of,
    by_size,
    decimals,
    in_all_forms,
    start_of,
    stretch,
    words,
)
from persona.errors import InvalidInput
from persona.history.score_results import Damage, Effect, Interval
from persona.objects.rules import check_density, check_strength


def interval(mean: float, half: float = 1) -> Interval:
    return Interval(mean, mean - half, mean + half, 10)


def effect(mean: float, half: float = 1, *, pattern: str = "tea", **more: Any) -> Effect:
    return Effect(pattern, True, 1, interval(mean, half), {}, None, None, None, None, "ab" * 32, **more)


def point(alpha: float, mean: float, *, half: float = 1, ratio: float = 1.0) -> Point:
    damage = Damage(interval(0), interval(1), Interval(ratio, ratio, ratio, 80), 1.02, "cd" * 32)
    return Point(alpha, "ties", 1.0, "vote", "", effect(mean, half), None, (), damage, ratio <= 1.02)


def alphas(value: Any) -> tuple[str, ...]:
    return decimals(value, "alpha", check_strength)


# -- numbers


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("-1:1.5:0.25", "-1 -0.75 -0.5 -0.25 0 0.25 0.5 0.75 1 1.25 1.5"),
        ("0:0.3:0.1", "0 0.1 0.2 0.3"),
        ("0:1:0.3", "0 0.3 0.6 0.9"),
        ("1:-1:-0.5", "-1 -0.5 0 0.5 1"),
        ("2:2:1", "2"),
        ("1, 0,0.50,-0.0", "0 0.5 1"),
        ("0:1:0.5,2,0.5", "0 0.5 1 2"),
        (0.7, "0.7"),
        ([1, "0.5", -1.0], "-1 0.5 1"),
        (["0:1:1", 3], "0 1 3"),
    ],
)
def test_numbers_and_ranges_are_exact_decimals_ascending_and_each_once(value: Any, found: str) -> None:
    assert alphas(value) == tuple(found.split())


@given(st.integers(-500, 500), st.integers(1, 400), st.integers(0, 60))
def test_a_range_holds_both_ends_and_every_step_between(start: int, step: int, count: int) -> None:
    """In thousandths, which binary floats cannot add exactly."""
    low, by = Decimal(start) / 1000, Decimal(step) / 1000
    found = alphas(f"{low}:{low + count * by}:{by}")
    assert [Decimal(one) for one in found] == [low + place * by for place in range(count + 1)]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("1:2", "is no range"),
        ("0:1:0.5:2", "is no range"),
        ("0:1:0", "do not lead from 0 to 1"),
        ("1:0:0.5", "do not lead from 1 to 0"),
        ("0:1:-0.5", "do not lead"),
        ("a:1:0.5", "not a number"),
        ("0::1", "not a number"),
        ("0,,1", "not a number"),
        ("", "not a number"),
        ("nan", "not a finite number"),
        ("0:inf:1", "not a finite number"),
        ("1e39", "beyond the range"),
        ("0:1:0.0001", "at most 1,000"),
        ("-1e30:1e30:1e-30", "at most 1,000"),
        ([], "it has no number"),
        (True, "not a number"),
    ],
)
def test_what_is_no_number_or_range_is_refused_by_the_name_of_its_parameter(value: Any, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem) as caught:
        alphas(value)
    assert caught.value.parameter == "alpha"


def test_each_number_is_checked_by_what_it_is_of() -> None:
    assert decimals("0.2,1", "density", check_density) == ("0.2", "1")
    with pytest.raises(InvalidInput, match=r"density: 0 is not in \(0, 1\]"):
        decimals("0:1:0.5", "density", check_density)


def test_words_are_taken_from_texts_and_lists() -> None:
    assert words("ties, linear,ties") == words(["ties", "linear"]) == ("ties", "linear")
    assert words(None) == words("") == ()


# -- the stretch


def found(means: Sequence[float], start: int = 0, noise: float = 1) -> tuple[float, float, str, str]:
    """The ends of a stretch and what comes after them; a change is sure if it is above `noise`."""
    points = [point(float(place), mean) for place, mean in enumerate(means)]
    one = stretch(points, start, lambda old, new: interval(means[new] - means[old], noise))
    assert one.start == start
    return one.low, one.high, one.below, one.above


def test_a_rise_ends_where_the_effect_surely_falls() -> None:
    assert found([0, 5, 9, 12, 10]) == (0, 3, "end", "turns")
    assert found([0, 5, 9, 12, 10, 20]) == (0, 3, "end", "turns")


def test_noise_neither_ends_a_rise_nor_makes_one() -> None:
    assert found([0, 5, 4.5, 12]) == (0, 3, "end", "end")
    assert found([0, 5, 5.5, 4.6, 5.2]) == (0, 1, "end", "level")
    assert found([0, 0.5, -0.5]) == (0, 0, "end", "level")


def test_steps_that_are_sure_only_together_count() -> None:
    assert found([0, 0.7, 1.4, 2.1, 2.8], noise=1) == (0, 4, "end", "end")


def test_below_the_start_the_effect_has_to_fall() -> None:
    assert found([-8, -9, -5, 0, 5], start=3) == (1, 4, "level", "end")
    assert found([-3, -9, -5, 0, 5], start=3) == (1, 4, "turns", "end")
    assert found([5, 0, -5], start=1) == (1, 1, "turns", "turns")
    assert found([0], start=0) == (0, 0, "end", "end")


def test_a_stretch_starts_at_0_else_at_the_present_alpha_else_nearest_to_0() -> None:
    assert start_of(("-1", "0", "1"), "1") == 1
    assert start_of(("-1", "0.5", "1"), "1") == 2
    assert start_of(("-1", "0.5", "1"), "0.7") == 1
    assert start_of(("2", "3"), None) == 0


# -- the best point


def test_the_best_point_has_the_largest_effect_within_the_limit() -> None:
    points = [point(0, 0), point(1, 8), point(2, 12), point(3, 20, ratio=1.03)]
    assert best_of(points, 1) == 2
    assert best_of([*points, point(4, 30, ratio=1.02)], 1) == 4


def test_an_unwanted_pattern_wants_the_most_negative_effect() -> None:
    points = [point(-2, -30, ratio=1.5), point(-1, -9), point(-0.5, -10), point(1, 40)]
    assert best_of(points, -1) == 2


def test_no_point_is_best_if_no_effect_surely_has_the_wanted_sign() -> None:
    assert best_of([point(0, 0), point(1, 5, half=6), point(2, -9)], 1) is None
    assert best_of([point(1, 9, ratio=1.021)], 1) is None


def test_of_equal_points_the_one_with_the_smallest_alpha_is_best() -> None:
    assert best_of([point(2, 9), point(-1, 9), point(3, 9)], 1) == 1


def test_an_effect_is_in_all_forms_if_each_shows_it_surely_with_one_sign() -> None:
    whole = effect(5)
    assert in_all_forms(replace(whole, splits={"seen": interval(5)})) is None
    for other, answer in ((4, True), (0.5, False), (-4, False)):
        assert in_all_forms(replace(whole, splits={"seen": interval(6), "other": interval(other)})) is answer
    nothing = replace(effect(0, 0), splits={"seen": interval(0, 0), "other": interval(0, 0)})
    assert in_all_forms(nothing) is False


def test_spill_stands_in_order_of_size_and_rates_come_last() -> None:
    rate = replace(effect(0, pattern="rate"), margin=None, rate=interval(0.9, 0.1))
    found = by_size([rate, effect(0.2, pattern="small"), effect(-3, pattern="large")])
    assert [one.pattern for one in found] == ["large", "small", "rate"]
