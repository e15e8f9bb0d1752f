"""**trust region** — the box around the best point in which a model of two measured numbers is believed.

A small optimizer for a few numbers, where measuring is dear: it maximises a gain while a cost stays within a
limit. Of both it knows the value and the slopes at one point, the *centre*, and the values at all points that
were measured. Each is modelled as a quadratic: value and slopes of the centre, and the curvature with the
least Frobenius norm that explains the other points (Powell 2004, "Least Frobenius norm updating of quadratic
models"). The best point of the model within the region is measured next. If it is better, the region may
grow back; if it is not, the region shrinks. In both cases the model knows one point more.

A point that was measured is never asked for again, and no point counts that was not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from persona.frozen import dataclass

Place = NDArray[np.float64]
"""float64[n], one for each number."""

START: Final = 0.25
"""The first radius, and the largest: a share of the distance between the bounds."""
LEAST: Final = 0.02
"""The radius below which nothing more is looked for near the best point."""
_SLACK: Final = 0.03
"""The share of the room below the limit that the model leaves free, because it is not exact."""
_GAIN: Final = 5e-4
"""A smaller rise of the gain is not worth a measurement."""
_FARTHEST, _STEPS = 4.0, 301
_ROUNDS, _DRAWN, _SHRINK = 40, 256, 0.85
_REMOTE: Final = 1e6


@dataclass(frozen=True)
class Point:
    """What was measured at a place."""

    place: tuple[float, ...]
    gain: float
    cost: float

    @property
    def array(self) -> Place:
        """The place as an array."""
        return np.array(self.place)


@dataclass(frozen=True)
class Bounds:
    """The smallest and the largest value of each number. `rounded` gives the nearest place that can be."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    rounded: Callable[[Place], Place]


class TrustRegion:
    """Asks for places, and is told what was measured there. `best` is the best point so far.

    A point within the limit is better than one above it. Of two within it, the larger gain is better; of two
    above it, the smaller cost. An equal one is no better.
    """

    def __init__(
        self,
        start: Point,
        slopes: tuple[Place, Place],
        bounds: Bounds,
        limit: float,
        seed: int,
        known: Sequence[Point] = (),
    ) -> None:
        """`slopes`: of gain and cost at the start. `known`: points whose values are known anyway."""
        self.limit = limit
        self.best = start
        self._bounds = bounds
        self._low, self._high = np.array(bounds.low), np.array(bounds.high)
        self._points = [start, *known]
        self._known = known
        self._asked = {start.place}
        self._random = np.random.default_rng(seed)
        self._hope = start
        self.radius = START
        self.failures = 0
        """Points in a row that were no better."""
        self.recentre(slopes)

    def recentre(self, slopes: tuple[Place, Place]) -> None:
        """Puts the centre at the best point, whose slopes these are."""
        self._centre, self._slopes = self.best, slopes
        self.radius = max(self.radius, START / 2)
        self.failures = 0

    @property
    def moved(self) -> bool:
        """Whether the best point is no longer the centre."""
        return self.best is not self._centre

    def within(self, point: Point) -> bool:
        """Whether a point is within the limit."""
        return point.cost <= self.limit

    def ask(self) -> Place | None:
        """The next place to measure; None if the model hopes for nothing better near the best point."""
        gain = self._model(self._slopes[0], lambda point: point.gain, -1)
        cost, aim = self._costs(), self._aim
        within = self.within(self.best)

        def worth(places: Place, most: float = aim) -> Place:
            costs = cost(places)
            return np.where(costs <= most, gain(places), -_REMOTE - costs)

        now = self.best.gain if within else -_REMOTE - self.best.cost
        while self.radius >= LEAST:
            radius = self.radius if within else 1.0
            place = self._bounds.rounded(self._highest(worth, radius * (self._high - self._low)))
            # Rounding may put a place just above the aim.
            if tuple(place) not in self._asked and worth(place[None], self.limit)[0] > now + _GAIN:
                self._asked.add(tuple(place))
                self._hope = Point(tuple(place), float(gain(place[None])[0]), float(cost(place[None])[0]))
                return place
            if not within:
                return None
            self.radius /= 2
        return None

    def farther(self) -> Place | None:
        """A place for when nothing near is better: as far as the limit lets, on the way that led to the best.

        It is on the line from the first known point through the best one, where the model of the cost first
        meets the limit. None if there is no new one.
        """
        if not self._known or not self.within(self.best):
            return None
        origin = self._known[0].array
        line = origin + np.linspace(1, _FARTHEST, _STEPS)[:, None] * (self.best.array - origin)
        line = np.clip(line, self._low, self._high)
        above = self._costs()(line) > self._aim
        if above[0]:
            return None
        last = int(np.argmax(above)) - 1 if above.any() else len(line) - 1
        place = self._bounds.rounded(line[last])
        if tuple(place) in self._asked:
            return None
        self._asked.add(tuple(place))
        self.radius = START
        return place

    def reject(self) -> None:
        """Takes in that nothing could be measured at the last place."""
        self.failures += 1
        self.radius /= 2

    def tell(self, point: Point) -> bool:
        """Takes in what was measured at a place; returns whether it is the best point now."""
        before = self.best
        self._points.append(point)
        self._asked.add(point.place)
        if self.within(point) != self.within(before):
            better = self.within(point)
        elif self.within(point):
            better = point.gain > before.gain
        else:
            better = point.cost < before.cost
        if not better:
            self.reject()
            return False
        self.failures = 0
        if self.within(before) and point.gain - before.gain > (self._hope.gain - before.gain) / 2:
            self.radius = min(START, 2 * self.radius)
        self.best = point
        return True

    @property
    def _aim(self) -> float:
        """The largest cost of the model that is worth a measurement."""
        return self.limit - _SLACK * abs(self.limit - 1)

    def _costs(self) -> Callable[[Place], Place]:
        """The model of the cost."""
        return self._model(self._slopes[1], lambda point: point.cost, 1)

    def _highest(self, worth: Callable[[Place], Place], reach: Place) -> Place:
        """The model's highest place in a box: places are drawn at random, ever closer to the best one."""
        centre = self.best.array
        low, high = np.maximum(self._low, centre - reach), np.minimum(self._high, centre + reach)
        place, width = np.clip(centre, low, high), high - low
        for _ in range(_ROUNDS):
            drawn = self._random.normal(size=(_DRAWN, centre.size)) * width / 2
            places = np.concatenate([place[None], np.clip(place + drawn, low, high)])
            place = places[int(np.argmax(worth(places)))]
            width = width * _SHRINK
        return place

    def _model(self, slope: Place, value: Callable[[Point], float], bend: int) -> Callable[[Place], Place]:
        """The quadratic model of a number: a function of places, float64[m, n] → float64[m].

        `bend`: 1 if it may curve upwards only, −1 if downwards only: a curvature the other way promises too
        much far from the points that it came from.
        """
        centre, start = self._centre.array, value(self._centre)
        others = [point for point in self._points if point is not self._centre]
        steps = np.array([point.array - centre for point in others]).reshape(len(others), centre.size)
        rests = np.array([value(point) for point in others]) - start - steps @ slope
        sizes, axes = np.linalg.eigh(curvature(steps, rests))
        curve = (axes * (bend * np.maximum(bend * sizes, 0))) @ axes.T

        def model(places: Place) -> Place:
            moved = places - centre
            found: Place = start + moved @ slope + 0.5 * np.einsum("ij,jk,ik->i", moved, curve, moved)
            return found

        return model


def curvature(steps: Place, rests: Place) -> Place:
    """The symmetric H of the least Frobenius norm with ½·sᵀHs = r for each step s and rest r.

    steps: float64[m, n], rests: float64[m]; float64[n, n]. If no H fits all, the rests of long steps decide.
    """
    if not len(steps):
        return np.zeros((steps.shape[1], steps.shape[1]))
    products: Any = (steps @ steps.T) ** 2 / 2
    weights = np.linalg.lstsq(products, rests, rcond=1e-6)[0]
    found: Place = np.einsum("i,ij,ik->jk", weights, steps, steps)
    return found
