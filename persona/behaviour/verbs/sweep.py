"""`sweep`: effect, spill and damage of one vector at several values of α, and under several merge rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Unpack

from persona.behaviour.assessing import Subject, base_of, damage, effects, needs, probe_sets
from persona.behaviour.graph.graph import Graph
from persona.behaviour.measuring.effects import effect_of, judged_items, kind_judged
from persona.behaviour.measuring.measurements import DTYPE, SCORER, Bench, Need
from persona.behaviour.measuring.readers import has_rows
from persona.behaviour.measuring.statistics import FEWEST_GROUPS
from persona.behaviour.measuring.sweeping import (
    MOST,
    Point,
    Sweep,
    best_of,
    by_size,
    decimals,
    in_all_forms,
    start_of,
    stretch,
    whole_of,
    words,
)
from persona.behaviour.models import device_of
from persona.behaviour.options import SweepOptions
from persona.behaviour.probes import ProbeSet
from persona.behaviour.training import provenance
from persona.errors import Blank, Call, InvalidInput, UnknownName
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.recipes.checked import DEFAULT, checked
from persona.history.score_results import Effect, Interval
from persona.history.vectors import lookup
from persona.history.worktree import text_files, tracking
from persona.objects.recipe import JOINS, Recipe, Term, values
from persona.objects.rules import PRESETS, Rules, check_axis, check_density, check_strength


@dataclass(frozen=True)
class _Variant:
    """What the points of a curve have in common: the rules, the swept term at any α, and the other terms."""

    rules: Rules
    term: Term
    others: tuple[Term, ...]

    def at(self, base: str, alpha: str) -> Recipe:
        """The recipe with the term at an α."""
        return Recipe.of(base, [*self.others, replace(self.term, alpha=alpha)], self.rules)

    def without(self, base: str) -> Recipe:
        """The recipe without the term."""
        return Recipe.of(base, self.others, self.rules)

    @property
    def density(self) -> float | tuple[float, ...] | None:
        """In effect for the term; None if nothing of it is trimmed."""
        if not _trims(self.rules, self.term.join):
            return None
        density = self.term.density_in(self.rules)
        found = tuple(float(one) for one in values(density))
        return found if isinstance(density, tuple) else found[0]


@dataclass(frozen=True)
class _Curve:
    """The subjects of a variant, by place of their α; `zero`: at α = 0, which spill is measured from.

    At α = 0, tokens that the vector adds have rows of zeros. So `zero` of such a vector is without the term.
    """

    variant: _Variant
    subjects: tuple[Subject, ...]
    zero: Subject


@dataclass(frozen=True)
class _Measure:
    """What is measured of each subject: the vector's own probes, and those of other patterns."""

    bench: Bench
    own: ProbeSet
    others: tuple[ProbeSet, ...]
    limit: float
    checks: bool

    def needs(self, curve: _Curve) -> Iterator[Need]:
        """The measurements for a curve."""
        for subject in curve.subjects:
            yield from needs(
                self.bench, subject, {self.own.key: self.own}, checks=self.checks, controls=False
            )
        for subject in (*curve.subjects, curve.zero):
            for probes in self.others:
                yield Need(subject.weights, kind_judged(probes), probes)

    def point(self, curve: _Curve, place: int, alpha: str) -> Point:
        """One point, after it was measured."""
        variant, subject = curve.variant, curve.subjects[place]
        own = {self.own.key: self.own}
        (effect,) = effects(self.bench, subject, own, checks=self.checks, controls=False)
        broken = damage(self.bench, subject, self.limit)
        return Point(
            alpha=float(alpha),
            preset=variant.rules.preset,
            density=variant.density,
            join=variant.term.join,
            weights=subject.weights.digest,
            effect=effect,
            in_all_forms=in_all_forms(effect),
            spill=by_size(self._moved(curve.zero, subject, probes) for probes in self.others),
            damage=broken,
            allowed=broken.ratio.mean <= self.limit,
        )

    def change(self, curve: _Curve) -> Callable[[int, int], Interval]:
        """The change of the effect from one place of a curve to another."""
        at = curve.subjects
        return lambda old, new: whole_of(self._moved(at[old], at[new], self.own))

    def _moved(self, old: Subject, new: Subject, probes: ProbeSet) -> Effect:
        """The change of one pattern's probes between two subjects, probe by probe."""
        kind = kind_judged(probes)
        before, after = ({kind: self.bench.found(Need(one.weights, kind, probes))} for one in (old, new))
        return effect_of(probes, None, before, after, ())


def sweep(
    history: History,
    name: str,
    alpha: str | float | Sequence[str | float],
    **options: Unpack[SweepOptions],
) -> Sweep:
    """Measures effect, spill and damage of a vector at several values of α (docs/behaviour.md).

    `alpha`, `density`: a number, a list, or a text such as "0,0.5" or "-1:1.5:0.25" (from, to, step).
    `preset`, `join`: names, in a list or with commas between. All combinations are measured, each in
    `recipe.toml` as it stands, with the other vectors; `alone` leaves these out. Presets that trim nothing,
    and a vector that adds, are not multiplied by `density`. `probe`: of other patterns, only the probes of
    these. `max_damage`: the ratio of the losses on neutral text that is allowed. `checks`: also generates
    answers for the checks of the vector's own probes.

    Edits and commits nothing. Every measurement is kept, so a repetition loads no model. Raises
    `InvalidInput` for numbers that cannot be taken, for a vector of no pattern, and for a pattern without
    probes; `UnknownName` for an unknown vector.
    """
    given = history.in_force(SweepOptions, options)
    limit = given["max_damage"]
    if not (math.isfinite(limit) and limit > 0):
        raise InvalidInput(f"must be a number above 0, not {limit!r:.40}", parameter="max_damage")
    alphas = decimals(alpha, "alpha", check_strength)
    recipe = text_files.new_recipe(history).recipe
    term = _term(history, recipe, name, given["alone"])
    variants = list(_variants(recipe, term, given))
    if (count := len(variants) * len(alphas)) > MOST:
        raise InvalidInput(f"{count:,} points; at most {MOST:,} are possible in one sweep")
    for variant in variants:
        for one in alphas:
            variant.at(recipe.base, one)  # all of them are possible, or nothing is measured
    graph = Graph.of(history)
    pattern = _pattern(history, graph, term)
    sign = graph.trainables[pattern].sign

    def subject(variant: _Variant, alpha: str | None) -> Subject:
        at = variant.without(recipe.base) if alpha is None else variant.at(recipe.base, alpha)
        label = f"the recipe without {name}" if alpha is None else f"{name} at α {alpha}"
        label += f", {variant.rules.preset}" if len(variants) > 1 else ""
        return Subject.of_recipe(history, graph, at, given, label=label)

    grows = has_rows(history, Recipe.of(recipe.base, [term], recipe.rules))

    only = (pattern, *words(given["probe"])) if given["probe"] else ()
    sets, _ = probe_sets(graph, only, [subject(variants[0], "0")])
    base = base_of(history, recipe)
    bench = Bench(history, None, base, device_of(given["device"]), given["threads"], given["progress"])
    others = tuple(probes for key, probes in sets.items() if key != pattern)
    measure = _Measure(bench, sets[pattern], others, limit, given["checks"])
    curves = []
    for variant in variants:
        row, zero = [subject(variant, one) for one in alphas], subject(variant, None if grows else "0")
        of_pattern = tuple(replace(one, own={pattern: sign}) for one in row)
        curves.append(_Curve(variant, of_pattern, zero))
    bench.measure(need for curve in curves for need in measure.needs(curve))
    points = [measure.point(curve, place, one) for curve in curves for place, one in enumerate(alphas)]
    present = term.alpha if name in recipe.by_name and isinstance(term.alpha, str) else None
    start, length = start_of(alphas, present), len(alphas)
    best = best_of(points, sign)
    edits: tuple[Call, ...] = ()
    if best is not None and name in recipe.by_name:
        edits = tuple(_edits(recipe, variants[best // length], alphas[best % length]))
    return Sweep(
        name=name,
        vector=term.vector,
        pattern=pattern,
        wanted=sign,
        alone=given["alone"],
        limit=limit,
        present=None if present is None else float(present),
        points=tuple(points),
        stretches=tuple(
            stretch(points[place * length :][:length], start, measure.change(curve))
            for place, curve in enumerate(curves)
        ),
        best=None if best is None else points[best],
        scorer=SCORER,
        dtype=DTYPE,
        device=bench.device,
        measured_before=not bench.worked,
        edits=edits,
        grows=grows,
        notes=tuple(_notes(sets[pattern], term, best, alphas, given, variants, grows)),
    )


# -- what is measured


def _term(history: History, recipe: Recipe, name: str, alone: bool) -> Term:
    """The swept vector's term. With `alone`, a vector outside `recipe.toml` gets one."""
    found = recipe.by_name.get(name)
    if found is not None:
        return found
    id = lookup.id_of(history, name)
    if not alone:
        raise UnknownName(
            f"{name} is not in recipe.toml, so it cannot be swept in it",
            hint=(
                Call("sweep", name, alpha=Blank("A,…"), alone=True),
                " measures it without the recipe's vectors",
            ),
        )
    history.require_vector_of(recipe.base, id)
    return Term(name, id)


def _variants(recipe: Recipe, term: Term, given: SweepOptions) -> Iterator[_Variant]:
    """The rules and terms of each curve."""
    densities = () if given["density"] is None else decimals(given["density"], "density", check_density)
    presets = [checked("preset", _preset, one) for one in words(given["preset"])] or [recipe.rules.preset]
    joins = [checked("join", _join, one) for one in words(given["join"])] or [term.join]
    others = () if given["alone"] else tuple(one for one in recipe.terms if one.name != term.name)
    for preset in presets:
        rules = _rules_of(recipe.rules, preset)
        for join in joins:
            for density in densities if densities and _trims(rules, join) else (None,):
                yield _variant(rules, replace(term, join=join), others, density)


def _rules_of(rules: Rules, preset: str) -> Rules:
    """The rules with another preset; a density and λ that were set stay if it uses them."""
    if preset == rules.preset:
        return rules
    set_before = rules.changed_axes()
    kept = {axis: set_before[axis] for axis in ("density", "lambda") if axis in set_before}
    if PRESETS[preset]["density"] is None:
        kept.pop("density", None)
    return Rules.of(preset, **kept)


def _variant(rules: Rules, term: Term, others: tuple[Term, ...], density: str | None) -> _Variant:
    """A variant; rules under which no vector has a density of its own take all of them back."""
    if rules.trim not in ("joint", "none"):
        return _Variant(rules, term if density is None else replace(term, density=density), others)
    if density is not None:
        rules = replace(rules, density=density)
    term, *others_ = (replace(one, density=None) for one in (term, *others))
    return _Variant(rules, term, tuple(others_))


def _trims(rules: Rules, join: str) -> bool:
    """Whether a density has a meaning for a term that joins like this."""
    return join == "vote" and rules.trim != "none"


def _pattern(history: History, graph: Graph, term: Term) -> str:
    """The pattern or facet whose probes show the effect."""
    found = provenance.patterns_of(history, graph.trainables, {term.name: term.vector})
    if term.name not in found:
        hint: Any = "a vector belongs to the pattern whose key is its name, or from which it was trained"
        if not graph.patterns:
            hint = f"write {tracking.GRAPH}/{term.name}.md and a file of probes (docs/behaviour.md)"
        raise InvalidInput(f"no pattern is that of {term.name}, so nothing says what it should do", hint=hint)
    pattern = found[term.name]
    if graph.probes(pattern) is None:
        file = graph.patterns[graph.trainables[pattern].key].file
        raise InvalidInput(
            f"{pattern} has no probes, so the effect of {term.name} cannot be measured",
            hint=f"name a file of probes in [data] of {file}",
        )
    return pattern


# -- what comes of it


def _edits(recipe: Recipe, variant: _Variant, alpha: str) -> Iterator[Call]:
    """The calls that make `recipe.toml` the recipe of a point, in their order."""
    rules, term, now = variant.rules, variant.term, recipe.by_name[variant.term.name]
    if rules != recipe.rules:
        if rules.trim in ("joint", "none"):
            for one in recipe.terms:
                if one.density is not None:
                    yield Call("recipe.set", one.name, density=DEFAULT)
        keys = {"preset": rules.preset} if rules.preset != recipe.rules.preset else {}
        if rules.density is not None:
            keys["density"] = rules.density
        yield Call("recipe.set_rules", keys)
    changed = {"alpha": alpha, "density": term.density, "join": term.join}
    changed = {key: one for key, one in changed.items() if one is not None and one != getattr(now, key)}
    if changed:
        yield Call("recipe.set", term.name, **changed)


def _notes(
    own: ProbeSet,
    term: Term,
    best: int | None,
    alphas: Sequence[str],
    given: SweepOptions,
    variants: Sequence[_Variant],
    grows: bool,
) -> Iterator[str]:
    if len({item.group for item in judged_items(own)}) < FEWEST_GROUPS:
        yield (
            f"{own.key} has fewer than {FEWEST_GROUPS} groups of probes, too few to tell an effect from"
            " chance"
        )
    if grows and "0" in alphas:
        yield (
            f"at α = 0 the tokens that {term.name} adds have rows of zeros, so that point is not the recipe"
            f" without {term.name}; spill is measured from the recipe without it"
        )
    if isinstance(term.alpha, tuple):
        yield f"{term.name} has a list over layers in recipe.toml; each point puts one number in its place"
    if given["density"] is not None and all(variant.density is None for variant in variants):
        yield f"density was left out: nothing of {term.name} is trimmed here"
    at = "0" if best is None else alphas[best % len(alphas)]
    if at != "0" and at in (alphas[0], alphas[-1]):
        yield f"α = {at} is the last point measured; a point beyond it may be better"


def _preset(value: Any, what: str) -> str:
    return check_axis("preset", value)


def _join(value: Any, what: str) -> str:
    if value not in JOINS:
        raise InvalidInput(f"{value!r:.60} is not one of {', '.join(JOINS)}")
    return str(value)
