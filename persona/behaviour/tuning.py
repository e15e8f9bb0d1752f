"""**gain** — one number for what a recipe does: the mean of its own patterns' effects, as they are wanted.

Each effect is taken in nats per token of its answers (for a pattern whose probes have only checks: the change
of the rate), in the direction that is wanted. An effect r above 0 counts as log(1 + r). So a weak effect that
grows counts for more than a strong one, and long answers count as much as short ones.

**variable** — a number of a recipe that is tuned: α of a term, or its density. The numbers of a list over
layers are one variable, and are scaled together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch

from persona.behaviour import assessing
from persona.behaviour.assessing import Subject
from persona.behaviour.graph.graph import Graph
from persona.behaviour.measuring import gradients
from persona.behaviour.measuring.damage import LOSS_PLACES
from persona.behaviour.measuring.effects import kind_judged
from persona.behaviour.measuring.gradients import strength
from persona.behaviour.measuring.measurements import Bench, Need
from persona.behaviour.measuring.scoring import settled
from persona.behaviour.measuring.trust_region import Bounds, Place, Point, TrustRegion
from persona.behaviour.models import device_of
from persona.behaviour.training import provenance
from persona.errors import Call, InvalidInput, UnknownName
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.options import ComputeOptions
from persona.history.recipes.text import RECIPE_FILE
from persona.history.recipes.views import shown
from persona.history.results import UNPRINTED, Result
from persona.history.score_results import Damage, Effect
from persona.objects.canonical import decimal
from persona.objects.recipe import Recipe, Term, Value
from persona.progress import Phase

GRADIENT: Final = 3
"""Measurements that a gradient counts as: it goes forward and backward over the same probes and text."""
_PLACES: Final = 2
"""Decimals of a number that is proposed."""
_LIST_PLACES: Final = 3
_LEAST_DENSITY: Final = 0.05
_DENSITY_STEP: Final = 0.1
_TRIMS: Final = ("tensor", "global", "dare")
"""The trims under which each density from `_LEAST_DENSITY` to 1 is possible."""


@dataclass(frozen=True, repr=False)
class Measured(Result):
    """What was measured of a recipe: its gain, the effects of its own patterns, and its damage."""

    gain: float
    effects: tuple[Effect, ...]
    damage: Damage


@dataclass(frozen=True, repr=False)
class Trial(Result):
    """A point that was measured: α and tuned densities by vector, the gain, the ratio of the losses."""

    alpha: dict[str, float | tuple[float, ...]]
    density: dict[str, float]
    gain: float
    ratio: float
    measured: Measured = field(metadata=UNPRINTED)


@dataclass(frozen=True)
class Variable:
    """A number that is tuned: α of a term, the strength of its list over layers, or its density."""

    name: str
    key: str
    start: float
    low: float
    high: float

    def value(self, term: Term, x: float) -> Value:
        """The number as the recipe has it; the start leaves it as it is."""
        if x == self.start:
            return self.before(term)
        old = self.before(term)
        if isinstance(old, tuple):
            return tuple(decimal(round(float(one) * x / self.start, _LIST_PLACES) + 0.0) for one in old)
        return decimal(round(x, _PLACES) + 0.0)

    def before(self, term: Term) -> Value:
        """The number that the term has at the start."""
        return term.alpha if self.key == "alpha" else decimal(self.start)


class Tuning:
    """What is measured of the recipe at one point after another.

    `trials`: by place, the start first. `own`: the wanted sign of each pattern whose effect counts.
    """

    def __init__(
        self, history: History, recipe: Recipe, probe: Sequence[str], limit: float, how: ComputeOptions
    ) -> None:
        self._history, self._recipe, self._limit, self._how = history, recipe, limit, how
        graph = Graph.of(history, None)
        own = assessing.wanted(history, graph, recipe)
        names = [one for name in probe for one in graph.names_of(name)] or list(own)
        if strange := [name for name in names if name not in own]:
            graph.probes(strange[0])
            raise UnknownName(f"{RECIPE_FILE} has no vector of the pattern {strange[0]}")
        self._patterns = provenance.patterns_of(
            history, graph.trainables, {term.name: term.vector for term in recipe.terms}
        )
        base = assessing.base_of(history, recipe)
        start = Subject(recipe.key, "recipe", base, {name: own[name] for name in names})
        self.sets = {} if not names else assessing.probe_sets(graph, names, [start])[0]
        self.own = {name: own[name] for name in self.sets}
        if not self.own:
            raise InvalidInput(
                f"no vector of {RECIPE_FILE} belongs to a pattern with probes, so nothing says what it should"
                " do",
                hint=("name a file of probes in [data] of its pattern; ", Call("graph.status"), " shows all"),
            )
        self._bench = Bench(history, None, base, device_of(how["device"]), how["threads"], how["progress"])
        self.trials: dict[tuple[float, ...], Trial] = {}
        self._base_loss = math.nan

    # -- what is tuned

    @property
    def unmeasured(self) -> list[str]:
        """The vectors of no pattern whose effect counts."""
        return [name for name in self._recipe.by_name if self._patterns.get(name) not in self.own]

    @property
    def without_pairs(self) -> list[str]:
        """The patterns whose probes have checks only: their effect is measured, but has no slopes."""
        return [name for name, probes in self.sets.items() if kind_judged(probes) == "answers"]

    def variables(
        self, vectors: Sequence[str], max_alpha: float, *, any_sign: bool, densities: bool
    ) -> list[Variable]:
        """The numbers that may change."""
        terms = self._recipe.by_name
        for name in vectors:
            if name not in terms:
                there = ", ".join(terms) or "no vectors"
                raise UnknownName(f"{RECIPE_FILE} has no vector named {name}; it has {there}")
        found = []
        for name, term in terms.items():
            start = strength(term)
            chosen = name in vectors if vectors else self._patterns.get(name) in self.own
            if not chosen or (isinstance(term.alpha, tuple) and not start):
                continue
            most = max(max_alpha, abs(start))
            side = self._side(term)
            low, high = (-most, most) if any_sign else (0.0, most) if side > 0 else (-most, 0.0)
            found.append(Variable(name, "alpha", start, low, high))
        if not found:
            raise InvalidInput(f"{RECIPE_FILE} has no α that may change")
        return found + (self._densities(found) if densities else [])

    def _densities(self, alphas: Sequence[Variable]) -> list[Variable]:
        rules = self._recipe.rules
        if rules.trim not in _TRIMS:
            raise InvalidInput(
                f"the recipe has trim = {rules.trim}, under which vectors have no density to tune; it needs"
                f" one of {', '.join(_TRIMS)}",
                parameter="densities",
            )
        found = []
        for variable in alphas:
            term = self._recipe.by_name[variable.name]
            density = term.density_in(rules)
            if term.join == "vote" and isinstance(density, str):
                start = float(density)
                found.append(Variable(variable.name, "density", start, min(start, _LEAST_DENSITY), 1.0))
        return found

    def _side(self, term: Term) -> int:
        """1 or −1: the sign of the term's α, or the one that its pattern wants if α is 0."""
        whole = strength(term)
        return int(math.copysign(1, whole)) if whole else self.own.get(self._patterns.get(term.name, ""), 1)

    def recipe_at(self, variables: Sequence[Variable], place: Sequence[float]) -> Recipe:
        """The recipe with these numbers."""
        terms = dict(self._recipe.by_name)
        for variable, x in zip(variables, place, strict=True):
            old = self._recipe.by_name[variable.name]
            if variable.key == "alpha" or x != variable.start:
                keys: dict[str, Any] = {variable.key: variable.value(old, x)}
                terms[variable.name] = replace(terms[variable.name], **keys)
        return Recipe.of(self._recipe.base, list(terms.values()), self._recipe.rules)

    # -- what is measured

    def start(self, variables: Sequence[Variable]) -> Point:
        """The recipe as it is."""
        return self.measure(variables, tuple(variable.start for variable in variables))

    def measure(self, variables: Sequence[Variable], place: tuple[float, ...]) -> Point:
        """Measures the recipe at a place, unless it was measured there."""
        if place not in self.trials:
            recipe, bench = self.recipe_at(variables, place), self._bench
            label = f"point {len(self.trials) + 1}"
            weights = assessing.weights(self._history, label, recipe, self._how)
            subject = Subject(recipe.key, "recipe", weights, self.own)
            bench.measure(assessing.needs(bench, subject, self.sets, checks=False, controls=False))
            effects = assessing.effects(bench, subject, self.sets, checks=False, controls=False)
            damage = assessing.damage(bench, subject, self._limit)
            windows = bench.found(Need(weights, "damage", None))
            self._base_loss = math.fsum(base for *_, base, _ in windows) / LOSS_PLACES
            gain, pairs = self._gain(effects), list(zip(variables, place, strict=True))
            self.trials[place] = Trial(
                alpha={one.name: shown(recipe.by_name[one.name].alpha) for one, _ in pairs},
                density={one.name: x for one, x in pairs if one.key == "density"},
                gain=gain,
                ratio=damage.ratio.mean,
                measured=Measured(gain, tuple(effects), damage),
            )
        trial = self.trials[place]
        return Point(place, trial.gain, trial.ratio)

    def _gain(self, effects: Sequence[Effect]) -> float:
        return math.fsum(_worth(self._strength(effect)) for effect in effects) / len(effects)

    def _strength(self, effect: Effect) -> float:
        """An effect in the wanted direction, in nats per token of an answer."""
        whole = effect.margin or effect.rate
        assert whole is not None
        return self.own[effect.pattern] * whole.mean / self._tokens[effect.pattern]

    @cached_property
    def _tokens(self) -> dict[str, float]:
        """The mean number of tokens of the answers of each pattern's pairs; 1 for a pattern without pairs."""
        found = {}
        for name, probes in self.sets.items():
            items = self._bench.items(probes, self._recipe)
            counts = [len(answer) for item in items for answer in (item.chosen, item.rejected) if answer]
            found[name] = sum(counts) / len(counts) if kind_judged(probes) == "margins" else 1.0
        return found

    def slopes(self, variables: Sequence[Variable], place: tuple[float, ...]) -> tuple[Place, Place]:
        """The slopes of gain and loss ratio at a place that was measured, by each variable."""
        bench, how, recipe = self._bench, self._how, self.recipe_at(variables, place)
        steps = {at: _step(place[at]) for at, variable in enumerate(variables) if variable.key == "density"}
        others = [
            self.recipe_at(variables, (*place[:at], place[at] + step, *place[at + 1 :]))
            for at, step in steps.items()
        ]
        index = {term.name: at for at, term in enumerate(recipe.terms)}
        found, scoring = [], bench.scoring_of(recipe)
        model = scoring.model
        for losses in (self._gains(model, self.trials[place].measured.effects), self._losses(model)):
            with settled(how["threads"]):
                slopes = gradients.slopes(
                    self._history,
                    scoring,
                    recipe,
                    losses,
                    sides=[self._side(term) for term in recipe.terms],
                    others=others,
                    threads=how["threads"],
                )
            by_density = dict(zip(steps, slopes.secants, strict=True))
            values = [
                by_density[at] / steps[at] if at in steps else slopes.alphas[index[variable.name]]
                for at, variable in enumerate(variables)
            ]
            found.append(np.array(values))
        return found[0], found[1]

    def _gains(self, model: Any, effects: Sequence[Effect]) -> Iterator[torch.Tensor]:
        """The gain in parts that gradients flow through; patterns without pairs have none."""
        paired = [effect for effect in effects if effect.margin is not None]
        for done, effect in enumerate(paired):
            self._tell(f"slopes of {effect.pattern}", done, len(paired) + 1)
            encoded = self._bench.items(self.sets[effect.pattern], self._recipe)
            items = [one for one in encoded if one.chosen is not None]
            share = self.own[effect.pattern] / (len(effects) * len(items) * self._tokens[effect.pattern])
            weight = share * _slope_of_worth(self._strength(effect))
            yield from gradients.margins(model, items, weight)

    def _losses(self, model: Any) -> Iterator[torch.Tensor]:
        """The ratio of the losses in parts that gradients flow through."""
        self._tell("slopes on neutral text", 1, 2)
        windows = self._bench.windows()
        yield from gradients.text_losses(model, windows, 1 / self._base_loss)

    def _tell(self, label: str, done: int, total: int) -> None:
        if (progress := self._how["progress"]) is not None:
            phase = Phase("measuring", "parts")
            phase.detail = label
            progress(phase, done, total)

    # -- the search

    def search(self, variables: Sequence[Variable], measurements: int, seed: int) -> tuple[Point, int]:
        """Measures one point after another; returns the best one, and how many measurements were spent.

        A gradient is taken at the start, and again at the best point if two points in a row are no better, or
        if nothing better is hoped for. If the start is above the limit and two points do not lead back under
        it, all α are halved.
        """

        def rounded(place: Place) -> Place:
            near = np.round(place, _PLACES) + 0.0
            near = np.where(np.abs(place - starts) < 0.5 * 10**-_PLACES, starts, near)
            return np.clip(near, bounds.low, bounds.high)

        starts = np.array([variable.start for variable in variables])
        bounds = Bounds(
            tuple(variable.low for variable in variables),
            tuple(variable.high for variable in variables),
            rounded,
        )
        start = self.start(variables)
        slopes = self.slopes(variables, start.place)
        known = self._base_point(variables)
        region = TrustRegion(start, slopes, bounds, self._limit, seed, known)
        spent, above = 1 + GRADIENT, 0
        while spent < measurements:
            again = region.moved and spent + GRADIENT < measurements
            place = None
            if not region.within(region.best):
                above += 1
                place = region.ask() if above <= 2 else None
                place = self._halved(variables, region.best.place, rounded) if place is None else place
            elif not again or region.failures < 2:
                place = region.ask()
                place = region.farther() if place is None else place
            if place is None and again:
                region.recentre(self.slopes(variables, region.best.place))
                spent += GRADIENT
                continue
            if place is None or tuple(place) in self.trials:
                break
            spent += 1
            try:
                region.tell(self.measure(variables, tuple(map(float, place))))
            except InvalidInput:  # weights out of range
                region.reject()
        return region.best, spent

    def _base_point(self, variables: Sequence[Variable]) -> list[Point]:
        """The base, which is known to have no effect and no damage, if all α may become 0."""
        strengths = [variable for variable in variables if variable.key == "alpha"]
        if len(strengths) < len(self._recipe.terms):
            return []
        return [Point(tuple(0.0 if one.key == "alpha" else one.start for one in variables), 0.0, 1.0)]

    def _halved(
        self, variables: Sequence[Variable], place: Sequence[float], rounded: Callable[[Place], Place]
    ) -> Place:
        halves = [x / 2 if one.key == "alpha" else x for one, x in zip(variables, place, strict=True)]
        return rounded(np.array(halves))


def _worth(effect: float) -> float:
    """What an effect counts for."""
    return math.log1p(effect) if effect > 0 else effect


def _slope_of_worth(effect: float) -> float:
    return 1 / (1 + effect) if effect > 0 else 1.0


def _step(density: float) -> float:
    """The step of a density's secant: down, or up if there is no space below."""
    down = min(_DENSITY_STEP, density / 2)
    return -down if density - down >= _LEAST_DENSITY else _DENSITY_STEP
