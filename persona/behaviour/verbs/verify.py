"""`verify`: effect, spill and damage of a revision, of `recipe.toml` as it is, or of vectors one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from persona.behaviour.assessing import (
    MAX_DAMAGE,
    Subject,
    base_of,
    keep,
    needs,
    of_patterns,
    probe_sets,
    scores_of,
    strengths,
)
from persona.behaviour.graph.graph import Graph
from persona.behaviour.measuring.effects import judged_items
from persona.behaviour.measuring.measurements import Bench
from persona.behaviour.measuring.statistics import FEWEST_GROUPS
from persona.behaviour.measuring.tasks import tasks_of
from persona.behaviour.models import device_of
from persona.behaviour.probes import ProbeSet
from persona.behaviour.training import provenance
from persona.errors import Blank, Call, InvalidInput, Note, UnknownName, UsageError
from persona.history.arguments import AnyPath
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.options import ComputeOptions
from persona.history.scores import Scores
from persona.history.vectors import lookup
from persona.history.worktree import text_files, tracking
from persona.objects.ids import abbreviate


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
    gives its `Scores`. `probe`: only the probes of these patterns, which a recipe is judged by also if it
    has no vector of theirs. `max_damage`: the ratio of the losses on
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
    subjects = _subjects(history, graph, commit, _texts(vector), each, _texts(probe), how)
    sets, without = probe_sets(graph, _texts(probe), subjects)
    base = base_of(history, subjects[0].weights.recipe)
    bench = Bench(history, commit, base, device_of(how["device"]), how["threads"], how["progress"])
    bench.measure(
        need for subject in subjects for need in needs(bench, subject, sets, checks=checks, tasks=chosen)
    )
    made = []
    for subject in subjects:
        scores = scores_of(bench, subject, sets, without, max_damage, checks=checks, tasks=chosen)
        if subject.kind != "recipe" and not probe:
            keep(history, scores, tasks=bool(chosen))
        made.append(
            replace(
                scores,
                measured_before=not bench.worked,
                notes=(
                    *_signs(history, graph, subject),
                    *_tokens(bench, subject),
                    *_notes(graph, subject, scores, sets),
                ),
            )
        )
    return made[0] if len(made) == 1 and not each and not _several(vector) else tuple(made)


# -- what is measured


def _subjects(
    history: History,
    graph: Graph,
    commit: str | None,
    vectors: Sequence[str],
    each: bool,
    asked: Sequence[str],
    how: ComputeOptions,
) -> list[Subject]:
    recipe = text_files.new_recipe(history).recipe if commit is None else history.recipe_of(commit)
    if not vectors and not each:
        id = commit
        if id is None and recipe == history.recipe_of(head := history.head_commit()):
            id = head if _is_as_committed(history, head) else None
        label = "recipe.toml" if commit is None else abbreviate(commit)
        return [Subject.of_recipe(history, graph, recipe, how, commit=id, label=label, asked=asked)]
    known = lookup.ids(history)
    ids = of_patterns(history, graph, known) if each else {}
    if each and not ids:
        raise UnknownName(
            "no pattern has a vector here", hint=(Call("train", Blank("KEY")), " makes one of a pattern")
        )
    ids |= {name: lookup.id_of(history, name) for name in vectors}
    patterns = provenance.patterns_of(history, graph.trainables, ids)
    found = []
    for name, id in ids.items():
        history.require_vector_of(recipe.base, id)
        found.append(Subject.of_vector(history, name, id, recipe.base, patterns.get(name), how))
    return found


def _is_as_committed(history: History, commit: str) -> bool:
    """Whether the graph and the files that the model loads with are those of a commit."""

    def decisive(files: Mapping[str, str]) -> dict[str, str]:
        inside = f"{tracking.GRAPH}/"
        return {
            path: id for path, id in files.items() if path.startswith(inside) or tracking.is_model_file(path)
        }

    return decisive(tracking.snapshot(history)) == decisive(history.files_of(commit))


def _signs(history: History, graph: Graph, subject: Subject) -> Iterator[str]:
    """Notes on patterns that a recipe lacks, or applies the other way than their pages want."""
    if subject.kind == "vector":
        return
    totals = strengths(history, graph, subject.weights.recipe)
    for name, sign in subject.own.items():
        if name in subject.lacking:
            yield f"no vector of {name} is in the recipe: what is measured comes from the others"
        elif totals[name] * sign < 0:
            file = graph.patterns[graph.trainables[name].key].file
            how, other = ("subtracted", "-1") if sign > 0 else ("added", "1")
            yield f"{name} is {how}, but {file} wants the opposite; if not, write sign = {other} there"


def _tokens(bench: Bench, subject: Subject) -> Iterator[str]:
    """A note on new tokens that no probe has, because the vector that brings them is not in the recipe."""
    if bench.readers.leaves_tokens_out(subject.weights.recipe):
        yield (
            f"{subject.weights.label} adds tokens to the base, and the recipe here does not: the probes were"
            " read by the tokenizer here, without them"
        )


def _notes(graph: Graph, subject: Subject, scores: Scores, sets: Mapping[str, ProbeSet]) -> tuple[str, ...]:
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
