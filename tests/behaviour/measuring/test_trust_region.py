"""The trust region: on functions whose best point is known, and what it never does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from persona.behaviour.measuring import trust_region
from persona.behaviour.measuring.trust_region import Bounds, Point, TrustRegion, curvature

LIMIT = 1.02
BOUNDS = Bounds((0.0, 0.0, -2.0), (2.0, 2.0, 0.0), lambda place: np.round(place, 2) + 0.0)
START = (1.0, 1.0, -1.0)
PULL = np.array([1.0, 0.4, -0.6])
WEIGHTS = np.array([[0.01, 0.002, 0.0], [0.002, 0.004, 0.001], [0.0, 0.001, 0.008]])


def gain(place: Any) -> float:
    return float(np.log1p(PULL @ place))


def cost(place: Any) -> float:
    return float(1 + place @ WEIGHTS @ place)


def point(place: Any) -> Point:
    where = tuple(map(float, place))
    return Point(where, gain(np.array(where)), cost(np.array(where)))


def region_at(start: tuple[float, ...], limit: float = LIMIT, seed: int = 0) -> TrustRegion:
    where = np.array(start)
    slopes = PULL / (1 + PULL @ where), 2 * WEIGHTS @ where
    base = Point((0.0, 0.0, 0.0), 0.0, 1.0)
    return TrustRegion(point(start), slopes, BOUNDS, limit, seed, [base])


def run(region: TrustRegion, most: int, measure: Callable[[Any], Point] = point) -> list[Point]:
    """The points that it asks for, up to `most`."""
    found = []
    while len(found) < most and (place := region.ask()) is not None:
        found.append(measure(place))
        region.tell(found[-1])
    return found


@pytest.mark.parametrize("seed", range(5))
def test_it_comes_close_to_the_best_point_under_the_limit_in_eight_measurements(seed: int) -> None:
    region = region_at((0.8, 0.8, -0.8), seed=seed)
    run(region, 8)
    grid = np.array(
        np.meshgrid(*[np.linspace(*ends, 41) for ends in zip(BOUNDS.low, BOUNDS.high, strict=True)])
    )
    places = grid.reshape(3, -1).T
    within = [place for place in places if cost(place) <= LIMIT]
    best = max(map(gain, within))
    assert region.best.cost <= LIMIT
    assert region.best.gain > gain(np.array([0.8, 0.8, -0.8]))
    assert region.best.gain > best - 0.02


@pytest.mark.parametrize("seed", range(10))
def test_rounding_at_the_limit_does_not_end_the_search(seed: int) -> None:
    """The start is just under the limit, so that the best place of the model lies on it."""
    where = np.array((1.0, 1.0, -1.0))
    slopes = PULL / (1 + PULL @ where), 2 * WEIGHTS @ where
    limit = cost(where) * 1.0005
    region = TrustRegion(point(where), slopes, BOUNDS, limit, seed, [])
    assert region.ask() is not None
    assert region.radius == trust_region.START


def test_no_place_is_asked_for_twice_and_each_is_rounded_and_within_the_bounds() -> None:
    region = region_at((0.8, 0.8, -0.8))
    found = [one.place for one in run(region, 20)]
    assert len(set(found)) == len(found) > 1
    for place in found:
        assert all(x == round(x, 2) for x in place)
        assert all(low <= x <= high for low, x, high in zip(BOUNDS.low, place, BOUNDS.high, strict=True))


def test_a_start_above_the_limit_goes_back_under_it() -> None:
    region = region_at((2.0, 2.0, -2.0))
    assert not region.within(region.best)
    run(region, 4)
    assert region.within(region.best)


def test_the_best_point_is_one_that_was_measured_and_never_a_worse_one() -> None:
    """Measurements that contradict the model: each place is worse than the start."""
    region = region_at((0.8, 0.8, -0.8))
    start = region.best
    asked = run(region, 6, lambda place: Point(tuple(map(float, place)), start.gain - 0.1, 1.0))
    assert asked
    assert region.best is start
    above = region_at((0.8, 0.8, -0.8))
    assert run(above, 6, lambda place: Point(tuple(map(float, place)), start.gain + 1, LIMIT + 0.001))
    assert above.best.place == start.place


def test_the_same_seed_asks_for_the_same_places() -> None:
    one, other = (run(region_at((0.8, 0.8, -0.8), seed=3), 5) for _ in range(2))
    assert one == other


def test_the_way_to_the_limit_goes_on_from_the_base_through_the_best_point() -> None:
    region = region_at((0.5, 0.5, -0.5))
    place = region.farther()
    assert place is not None
    assert place[0] == pytest.approx(place[1], abs=0.01)
    assert 1.015 < cost(place) <= LIMIT


def test_the_curvature_explains_every_step_with_the_least_norm() -> None:
    random = np.random.default_rng(5)
    steps, rests = random.normal(size=(4, 5)), random.normal(size=4)
    found = curvature(steps, rests)
    assert np.allclose(0.5 * np.einsum("ij,jk,ik->i", steps, found, steps), rests)
    assert np.allclose(found, found.T)
    for _ in range(20):  # any other matrix that explains them has a larger norm
        more = random.normal(size=(5, 5))
        more = more + more.T
        more -= curvature(steps, 0.5 * np.einsum("ij,jk,ik->i", steps, more, steps))
        assert np.linalg.norm(found + 0.1 * more) >= np.linalg.norm(found)
    assert not curvature(np.zeros((0, 3)), np.zeros(0)).any()
