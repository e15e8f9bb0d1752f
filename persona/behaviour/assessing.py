"""The measurements that recipes and vectors need, and the effects and damage that come of them.

**subject** — what is measured: a commit, an edited recipe, or a vector alone at α = 1.

`persona.behaviour.measuring` measures weights. This module knows which patterns a recipe is about, and which
probes, random vectors and texts each of its numbers takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from persona.behaviour.graph.graph import Graph
from persona.behaviour.graph.reading import fault
from persona.behaviour.measuring.effects import damage_of, effect_of, kind_judged, verdict_of
from persona.behaviour.measuring.measurements import DTYPE, SCORER, Bench, Need, Weights
from persona.behaviour.measuring.statistics import CONTROLS
from persona.behaviour.measuring.tasks import Task, compared
from persona.behaviour.probes import ProbeSet, refuse_overlap
from persona.behaviour.training import provenance
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.options import ComputeOptions
from persona.history.planning import plan_of
from persona.history.scores import (
    Damage,
    Effect,
    Scores,
    TaskScore,
    as_kept,
    keep_scores,
    keep_weights,
    readable,
    weights_of,
)
from persona.objects.recipe import Recipe, Term, values
from persona.objects.rules import Rules

MAX_DAMAGE: Final = 1.02
"""The ratio of the losses on neutral text that is allowed if nobody says otherwise."""


@dataclass(frozen=True)
class Subject:
    """One recipe or vector to measure.

    `id`, `kind`: what the scores are about: "commit", "vector", or "recipe", an edited one whose scores are
    not kept. `own`: 1 or −1 for each pattern or facet whose vector is in it, or which was asked for: the
    direction that is wanted. `lacking`: those of them that were asked for, and have no vector in it.
    """

    id: str
    kind: str
    weights: Weights
    own: dict[str, int]
    lacking: frozenset[str] = frozenset()

    @classmethod
    def of_recipe(
        cls,
        history: History,
        graph: Graph,
        recipe: Recipe,
        how: ComputeOptions,
        *,
        commit: str | None = None,
        label: str = "recipe.toml",
        asked: Sequence[str] = (),
    ) -> Subject:
        """A recipe, that of `commit` if one is given. Its weights are merged if their digest is not known.

        `asked`: patterns that are judged also if no vector of theirs is in the recipe.
        """
        id, kind = (recipe.key, "recipe") if commit is None else (commit, "commit")
        own = wanted(history, graph, recipe)
        lacking: dict[str, int] = {}
        for name in asked:
            names = [one for one in graph.names_of(name) if one in graph.trainables]
            if not own.keys() & set(names):
                lacking |= {one: graph.trainables[one].sign for one in names}
        return cls(id, kind, weights(history, label, recipe, how), own | lacking, frozenset(lacking))

    @classmethod
    def of_vector(
        cls, history: History, name: str, id: str, base: str, pattern: str | None, how: ComputeOptions
    ) -> Subject:
        """A vector alone, at α = 1 on a base. `pattern`: the pattern or facet that it is of."""
        alone = Recipe.of(base, [Term("vector", id)], Rules.of("linear"))
        own = {} if pattern is None else {pattern: 1}
        return cls(id, "vector", weights(history, name, alone, how), own)


def of_patterns(history: History, graph: Graph, known: Mapping[str, str]) -> dict[str, str]:
    """One of the known vectors for each pattern or facet: that of its name, else one trained from it."""
    origins = provenance.patterns_of(history, graph.trainables, known)
    others = {pattern: name for name, pattern in reversed(origins.items())}
    names = [name if name in known else others.get(name) for name in graph.trainables]
    return {name: known[name] for name in names if name is not None}


def strengths(history: History, graph: Graph, recipe: Recipe) -> dict[str, float]:
    """The sum of the α of each pattern or facet whose vector is in a recipe."""
    patterns = provenance.patterns_of(
        history, graph.trainables, {term.name: term.vector for term in recipe.terms}
    )
    named = {term.name for term in recipe.terms}
    totals: dict[str, float] = {}
    for term in recipe.terms:
        name = patterns.get(term.name)
        if name is not None and (name == term.name or name not in named):
            totals[name] = totals.get(name, 0.0) + sum(float(alpha) for alpha in values(term.alpha))
    return totals


def wanted(history: History, graph: Graph, recipe: Recipe) -> dict[str, int]:
    """The sign that the graph wants for each pattern or facet whose vector is in a recipe."""
    return {name: graph.trainables[name].sign for name in strengths(history, graph, recipe)}


def base_of(history: History, recipe: Recipe) -> Weights:
    """The base of a recipe, as weights to measure."""
    alone = Recipe.of(recipe.base, [], recipe.rules)
    return Weights("the base", alone, history.base(recipe.base).digest)


def weights(history: History, label: str, recipe: Recipe, how: ComputeOptions) -> Weights:
    """The weights of a recipe, to be measured. Their digest is merged once and kept."""
    digest = weights_of(history, recipe) if recipe.terms else history.base(recipe.base).digest
    if digest is None:
        from persona.history.computing import device_choice
        from persona.merge.run.materialise import materialise

        digest = materialise(
            plan_of(history, recipe),
            threads=how["threads"],
            memory=how["memory"],
            progress=how["progress"],
            device=device_choice(how),
        ).weights
        keep_weights(history, recipe, digest)
    return Weights(label, recipe, digest)


def probe_sets(
    graph: Graph, only: Sequence[str], subjects: Sequence[Subject]
) -> tuple[dict[str, ProbeSet], tuple[str, ...]]:
    """The probes by pattern or facet, and the names that have none."""
    if not only and graph.problems:
        raise fault(next(iter(graph.problems.values())))
    names = [one for name in only for one in graph.names_of(name)] or list(graph.trainables)
    found: dict[str, ProbeSet] = {}
    without: list[str] = []
    for name in names:
        probes = graph.probes(name)
        if probes is None:
            without.append(name)
        else:
            found[name] = probes
    own = (name for subject in subjects for name in subject.own)
    trained = graph.trained_prompts(graph.trainables[name] for name in dict.fromkeys((*found, *own)))
    for name, probes in found.items():
        refuse_overlap(probes.items, trained | graph.trained_prompts([graph.trainables[name]]))
    return found, tuple(without)


def _kinds(probes: ProbeSet, own: bool, checks: bool) -> list[str]:
    """The measurements of one pattern's probes. Answers take long, so spill has them only without pairs."""
    judged = kind_judged(probes)
    has_checks = any(probe.check is not None for probe in probes.items)
    return [judged] + (["answers"] if own and checks and has_checks and judged != "answers" else [])


def needs(
    bench: Bench,
    subject: Subject,
    sets: Mapping[str, ProbeSet],
    *,
    checks: bool = True,
    controls: bool = True,
    tasks: Sequence[Task] = (),
) -> list[Need]:
    """The measurements for the effects and the damage of a subject, and for tasks.

    `checks` False: no answers are generated beside pairs. `controls` False: no random vectors are measured,
    so there is no verdict.
    """
    found = [Need(subject.weights, "damage", None)]
    found += [
        Need(weights, "task", None, task) for weights in (bench.base, subject.weights) for task in tasks
    ]
    for name, probes in sets.items():
        kinds = _kinds(probes, name in subject.own, checks)
        found += [Need(weights, kind, probes) for weights in (bench.base, subject.weights) for kind in kinds]
        if controls and name in subject.own:
            found += [Need(weights, kinds[0], probes) for weights in _controls(bench, subject)]
    return found


def _controls(bench: Bench, subject: Subject) -> list[Weights]:
    """Random vectors of the subject's size; the base itself, if that is nothing."""
    if subject.weights.digest == bench.base.digest:
        return [bench.base] * CONTROLS
    return [replace(subject.weights, seed=seed) for seed in range(CONTROLS)]


def effects(
    bench: Bench,
    subject: Subject,
    sets: Mapping[str, ProbeSet],
    *,
    checks: bool = True,
    controls: bool = True,
) -> list[Effect]:
    """Effect and spill of a subject that was measured, its own patterns first; options as for `needs`."""
    found = []
    for name, probes in sets.items():
        kinds = _kinds(probes, name in subject.own, checks)
        before, after = (
            {kind: bench.found(Need(weights, kind, probes)) for kind in kinds}
            for weights in (bench.base, subject.weights)
        )
        sign = subject.own.get(name)
        random: list[Any] = []
        if controls and sign is not None:
            random = [bench.found(Need(weights, kinds[0], probes)) for weights in _controls(bench, subject)]
        effect = effect_of(probes, sign, before, after, random)
        if name in subject.lacking and effect.verdict == "inconclusive":
            effect = replace(effect, verdict="fail")  # no vector makes it, and the others do not surely
        found.append(effect)
    return sorted(found, key=lambda effect: not effect.own)


def damage(bench: Bench, subject: Subject, limit: float = MAX_DAMAGE) -> Damage:
    """The damage of a subject that was measured."""
    return damage_of(bench.found(Need(subject.weights, "damage", None)), limit, bench.text)


def scores_of(
    bench: Bench,
    subject: Subject,
    sets: Mapping[str, ProbeSet],
    without: Iterable[str],
    limit: float = MAX_DAMAGE,
    *,
    checks: bool = True,
    tasks: Sequence[Task] = (),
) -> Scores:
    """The scores of a subject that was measured, with its verdict. `without`: patterns without probes."""
    own = effects(bench, subject, sets, checks=checks)
    broken = damage(bench, subject, limit)
    unverified = tuple(name for name in without if name in subject.own)
    found = Scores(
        about=subject.id,
        about_kind=subject.kind,
        weights=subject.weights.digest,
        effects=tuple(own),
        damage=broken,
        verdict=verdict_of(own, broken, unverified),
        unverified=unverified,
        scorer=SCORER,
        dtype=DTYPE,
        device=bench.device,
        tasks=tuple(_task_scores(bench, subject, tasks)),
    )
    return as_kept(found)


def keep(history: History, scores: Scores, *, tasks: bool = True) -> None:
    """Keeps scores as the note of what they are about.

    `tasks` False: no tasks were asked for, so those that were run on the same weights before stay.
    """
    if not tasks:
        scores = _with_tasks(history, scores)
    keep_scores(history, scores)


def _with_tasks(history: History, scores: Scores) -> Scores:
    before = readable(history, scores.about, [])
    same = before is not None and (before.weights, before.device) == (scores.weights, scores.device)
    return replace(scores, tasks=before.tasks) if before is not None and same else scores


def _task_scores(bench: Bench, subject: Subject, tasks: Sequence[Task]) -> Iterator[TaskScore]:
    for task in tasks:
        before, after = (
            bench.found(Need(weights, "task", None, task)) for weights in (bench.base, subject.weights)
        )
        yield from compared(before, after)
