"""`verify`: effect, spill and damage of a revision, of `recipe.toml` as it is, or of vectors one by one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Unpack

from persona.behaviour.graph.graph import Graph
from persona.behaviour.graph.reading import fault
from persona.behaviour.measuring.effects import damage_of, effect_of, judged_items, kind_judged, verdict_of
from persona.behaviour.measuring.measurements import DTYPE, SCORER, Bench, Need, Weights
from persona.behaviour.measuring.statistics import CONTROLS, FEWEST_GROUPS
from persona.behaviour.measuring.tasks import Task, compared, tasks_of
from persona.behaviour.models import device_of
from persona.behaviour.probes import ProbeSet, refuse_overlap
from persona.behaviour.training import provenance
from persona.errors import Blank, Call, InvalidInput, Note, UnknownName, UsageError
from persona.frozen import dataclass
from persona.history.arguments import AnyPath
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.options import ComputeOptions
from persona.history.planning import plan_of
from persona.history.scores import Scores, TaskScore, as_kept, keep_scores, keep_weights, readable, weights_of
from persona.history.vectors import lookup
from persona.history.worktree import text_files, tracking
from persona.objects.ids import abbreviate
from persona.objects.recipe import Recipe, Term, values
from persona.objects.rules import Rules

MAX_DAMAGE: Final = 1.02


@dataclass(frozen=True)
class _Subject:
    """One recipe or vector to measure.

    `id`, `kind`: what the scores are about. "recipe": an edited recipe.toml; its scores are not kept.
    `own`: 1 or −1 for each pattern or facet whose vector is in it.
    """

    id: str
    kind: str
    weights: Weights
    own: dict[str, int]


def verify(
    history: History,
    rev: str | None = None,
    *,
    vector: str | Sequence[str] = (),
    each: bool = False,
    probe: str | Sequence[str] = (),
    max_damage: float = MAX_DAMAGE,
    checks: bool = True,
    tasks: str | Sequence[str] = (),
    tasks_dir: AnyPath | None = None,
    task_limit: int | None = None,
    **options: Unpack[ComputeOptions],
) -> Scores | tuple[Scores, ...]:
    """Measures effect, spill and damage of weights against the base (docs/behaviour.md).

    `rev` None: `recipe.toml` as it is. `vector`: these vectors, each alone at α = 1, in place of a recipe;
    `each`: every vector of a pattern. These two give one `Scores` for each vector, as a tuple; a single name
    gives its `Scores`. `probe`: only the probes of these patterns. `max_damage`: the ratio of the losses on
    neutral text that is allowed. `checks` False: no answers are generated for checks beside pairs.

    `tasks`: tasks of lm-evaluation-harness, which are run on the base as well; `tasks_dir` has others than
    its own, `task_limit` takes only the first items of each.

    Scores are kept as a note about the commit or the vector, and every measurement is kept, so a repetition
    loads no model. Raises `InvalidInput` for a probe that cannot be scored or whose prompt is trained on,
    before anything is measured.
    """
    how = history.in_force(ComputeOptions, options)
    if not (math.isfinite(max_damage) and max_damage > 0):
        raise InvalidInput(f"must be a number above 0, not {max_damage!r:.40}", parameter="max_damage")
    if (vector or each) and rev is not None:
        raise UsageError("give a revision, or vectors to measure alone, not both")
    chosen = tasks_of(_texts(tasks), None if tasks_dir is None else Path(tasks_dir), task_limit)
    commit = None if rev is None else resolve(history, rev, history.notes)
    graph = Graph.of(history, commit)
    subjects = _subjects(history, graph, commit, _texts(vector), each, how)
    sets, unverified = _probe_sets(graph, _texts(probe), subjects)
    base = _base(history, subjects[0].weights.recipe)
    bench = Bench(history, commit, base, device_of(how["device"]), how["threads"], how["progress"])
    needs = {subject.id: _needs(bench, subject, sets, checks, chosen) for subject in subjects}
    bench.measure(need for found in needs.values() for need in found)
    made = []
    for subject in subjects:
        scores = _scores(bench, subject, sets, unverified, max_damage, checks, chosen)
        if subject.kind != "recipe" and not probe:
            keep_scores(history, scores if chosen else _with_tasks(history, scores))
        made.append(
            replace(scores, measured_before=not bench.worked, notes=_notes(graph, subject, scores, sets))
        )
    return made[0] if len(made) == 1 and not each and not _several(vector) else tuple(made)


# -- what is measured


def _subjects(
    history: History,
    graph: Graph,
    commit: str | None,
    vectors: Sequence[str],
    each: bool,
    how: ComputeOptions,
) -> list[_Subject]:
    recipe = text_files.new_recipe(history).recipe if commit is None else history.recipe_of(commit)
    if not vectors and not each:
        id, kind = commit, "commit"
        if id is None and recipe == history.recipe_of(head := history.head_commit()):
            id = head if _is_as_committed(history, head) else None
        if id is None:
            id, kind = recipe.key, "recipe"
        label = "recipe.toml" if commit is None else abbreviate(commit)
        return [_Subject(id, kind, _weights(history, label, recipe, how), _own(history, graph, recipe))]
    known = lookup.ids(history)
    ids = _of_patterns(history, graph, known) if each else {}
    if each and not ids:
        raise UnknownName(
            "no pattern has a vector here", hint=(Call("train", Blank("KEY")), " makes one of a pattern")
        )
    ids |= {name: lookup.id_of(history, name) for name in vectors}
    patterns = provenance.patterns_of(history, graph.trainables, ids)
    found = []
    for name, id in ids.items():
        history.require_vector_of(recipe.base, id)
        alone = Recipe.of(recipe.base, [Term("vector", id)], Rules.of("linear"))
        own = {patterns[name]: 1} if name in patterns else {}
        found.append(_Subject(id, "vector", _weights(history, name, alone, how), own))
    return found


def _of_patterns(history: History, graph: Graph, known: Mapping[str, str]) -> dict[str, str]:
    """One of the known vectors for each pattern or facet: that of its name, else one trained from it."""
    origins = provenance.patterns_of(history, graph.trainables, known)
    others = {pattern: name for name, pattern in reversed(origins.items())}
    names = [name if name in known else others.get(name) for name in graph.trainables]
    return {name: known[name] for name in names if name is not None}


def _is_as_committed(history: History, commit: str) -> bool:
    """Whether the graph and the files that the model loads with are those of a commit."""

    def decisive(files: Mapping[str, str]) -> dict[str, str]:
        inside = f"{tracking.GRAPH}/"
        return {
            path: id for path, id in files.items() if path.startswith(inside) or tracking.is_model_file(path)
        }

    return decisive(tracking.snapshot(history)) == decisive(history.files_of(commit))


def _own(history: History, graph: Graph, recipe: Recipe) -> dict[str, int]:
    """The sign that is wanted for each pattern or facet whose vector is in a recipe."""
    patterns = provenance.patterns_of(
        history, graph.trainables, {term.name: term.vector for term in recipe.terms}
    )
    named = {term.name for term in recipe.terms}
    totals: dict[str, float] = {}
    for term in recipe.terms:
        name = patterns.get(term.name)
        if name is not None and (name == term.name or name not in named):
            totals[name] = totals.get(name, 0.0) + sum(float(alpha) for alpha in values(term.alpha))
    return {
        name: int(math.copysign(1, total)) if total else graph.trainables[name].sign
        for name, total in totals.items()
    }


def _base(history: History, recipe: Recipe) -> Weights:
    alone = Recipe.of(recipe.base, [], recipe.rules)
    return Weights("the base", alone, history.base(recipe.base).digest)


def _weights(history: History, label: str, recipe: Recipe, how: ComputeOptions) -> Weights:
    """The weights of a recipe. Their digest is merged once and kept."""
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


# -- which probes


def _probe_sets(
    graph: Graph, only: Sequence[str], subjects: Sequence[_Subject]
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


def _needs(
    bench: Bench, subject: _Subject, sets: Mapping[str, ProbeSet], checks: bool, tasks: Sequence[Task]
) -> list[Need]:
    needs = [Need(subject.weights, "damage", None)]
    needs += [
        Need(weights, "task", None, task) for weights in (bench.base, subject.weights) for task in tasks
    ]
    for name, probes in sets.items():
        kinds = _kinds(probes, name in subject.own, checks)
        needs += [Need(weights, kind, probes) for weights in (bench.base, subject.weights) for kind in kinds]
        if name in subject.own:
            needs += [Need(weights, kinds[0], probes) for weights in _controls(bench, subject)]
    return needs


def _controls(bench: Bench, subject: _Subject) -> list[Weights]:
    """Random vectors of the subject's size; the base itself, if that is nothing."""
    if subject.weights.digest == bench.base.digest:
        return [bench.base] * CONTROLS
    return [replace(subject.weights, seed=seed) for seed in range(CONTROLS)]


# -- what it says


def _scores(
    bench: Bench,
    subject: _Subject,
    sets: Mapping[str, ProbeSet],
    without: Iterable[str],
    limit: float,
    checks: bool,
    tasks: Sequence[Task],
) -> Scores:
    effects = []
    for name, probes in sets.items():
        kinds = _kinds(probes, name in subject.own, checks)
        before, after = (
            {kind: bench.found(Need(weights, kind, probes)) for kind in kinds}
            for weights in (bench.base, subject.weights)
        )
        wanted = subject.own.get(name)
        controls: list[Any] = []
        if wanted is not None:
            controls = [bench.found(Need(weights, kinds[0], probes)) for weights in _controls(bench, subject)]
        effects.append(effect_of(probes, wanted, before, after, controls))
    effects.sort(key=lambda effect: not effect.own)
    unverified = tuple(name for name in without if name in subject.own)
    damage = damage_of(bench.found(Need(subject.weights, "damage", None)), limit, bench.text)
    found = Scores(
        about=subject.id,
        about_kind=subject.kind,
        weights=subject.weights.digest,
        effects=tuple(effects),
        damage=damage,
        verdict=verdict_of(effects, damage, unverified),
        unverified=unverified,
        scorer=SCORER,
        dtype=DTYPE,
        device=bench.device,
        tasks=tuple(_task_scores(bench, subject, tasks)),
    )
    return as_kept(found)


def _with_tasks(history: History, scores: Scores) -> Scores:
    """The scores, with the tasks that were run on the same weights before."""
    before = readable(history, scores.about, [])
    same = before is not None and (before.weights, before.device) == (scores.weights, scores.device)
    return replace(scores, tasks=before.tasks) if before is not None and same else scores


def _task_scores(bench: Bench, subject: _Subject, tasks: Sequence[Task]) -> Iterator[TaskScore]:
    for task in tasks:
        before, after = (
            bench.found(Need(weights, "task", None, task)) for weights in (bench.base, subject.weights)
        )
        yield from compared(before, after)


def _notes(graph: Graph, subject: _Subject, scores: Scores, sets: Mapping[str, ProbeSet]) -> tuple[str, ...]:
    notes: list[str] = []
    for name in scores.unverified:
        file = graph.patterns[graph.trainables[name].key].file
        notes.append(f"{name} has no probes, so it is unverified; name a file of probes in [data] of {file}")
    if not scores.own and not scores.unverified:
        hint: Any = None
        if not graph.patterns:
            why = f"there is no pattern in {tracking.GRAPH}/, so nothing says what the vectors should do"
            hint = f"write {tracking.GRAPH}/KEY.md and a file of probes (docs/behaviour.md)"
        elif subject.kind == "vector":
            why = "no pattern is this vector's, so nothing says what it should do"
            hint = "a vector belongs to the pattern whose key is its name"
        else:
            why = "no vector here belongs to one of the measured patterns"
            hint = (Call("train", Blank("KEY")), " makes one of a pattern")
        notes.append(Note(why, hint))
    for effect in scores.own:
        probes = sets[effect.pattern]
        if len({item.group for item in judged_items(probes)}) < FEWEST_GROUPS:
            notes.append(
                f"{effect.pattern} has fewer than {FEWEST_GROUPS} groups of probes, too few to tell an effect"
                " from chance"
            )
    return tuple(notes)


def _texts(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(dict.fromkeys(value))


def _several(value: str | Sequence[str]) -> bool:
    return not isinstance(value, str) and len(value) > 0
