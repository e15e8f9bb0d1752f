"""What a build has to do, told by hashes: which vectors to train, to measure, and to put into the recipe.

This reads notes and files, and computes nothing; neither torch nor a model is loaded.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from persona.behaviour.assessing import wanted
from persona.behaviour.building.results import BuildPlan, PlannedPattern
from persona.behaviour.graph import check
from persona.behaviour.graph.graph import FOLDER, Graph
from persona.behaviour.graph.pattern import Trainable
from persona.behaviour.graph.reading import file_name
from persona.behaviour.measuring.effects import verdict_of
from persona.behaviour.measuring.measurements import SCORER
from persona.behaviour.states import States
from persona.behaviour.training import runs
from persona.errors import Call, InvalidInput, UnknownName
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.recipes import edit
from persona.history.recipes.text import decode, encode
from persona.history.scores import Damage, Scores, readable
from persona.history.vectors.naming import with_term
from persona.history.worktree import text_files, tracking, weights
from persona.objects.recipe import Recipe

BAD: Final = ("fail", "inconclusive")
"""The verdicts that a build refuses."""
UNVERIFIED: Final = "unverified"


@dataclass(frozen=True)
class Target:
    """A trainable, and how far its vector is.

    `term`: its name in the recipe. `held`: the vector that the recipe has there. `vector`: the one that is
    trained from the files as they are; None if it has to be trained, and `why` says why. `adds`: it was
    trained onto a commit, so a new term adds it. `verdict`: of the vector alone, with the probes as they are;
    None if it has to be measured.
    """

    trainable: Trainable
    term: str
    held: str | None
    vector: str | None
    why: str
    adds: bool
    scores: Scores | None
    verdict: str | None

    @property
    def name(self) -> str:
        """KEY or KEY#FACET."""
        return self.trainable.name


@dataclass(frozen=True)
class Plan:
    """The targets of a build, and what is known of the recipe as a whole.

    `scores`: of HEAD's commit, if they are of the recipe and the probes as they are. `edited`: whether the
    work tree differs from HEAD. `placed`: whether the weights here are those of the recipe. `verify`,
    `force`, `keep_going`: how the build was asked for.
    """

    targets: tuple[Target, ...]
    scores: Scores | None
    edited: bool
    placed: bool
    verify: bool
    force: bool
    keep_going: bool

    @property
    def refused(self) -> tuple[Target, ...]:
        """The targets that are known not to pass."""
        return tuple(target for target in self.targets if self.refuses(target.verdict))

    def refuses(self, verdict: str | None) -> bool:
        """Whether a verdict keeps a pattern out of the recipe, or the recipe out of a commit."""
        return self.verify and not self.force and verdict in BAD

    def view(self, *, checkout: bool) -> BuildPlan:
        """The plan as it is shown."""
        actions = {target.name: self._action(target) for target in self.targets}
        shown = tuple(PlannedPattern(name, *action) for name, action in actions.items() if action)
        if self.refused and not self.keep_going:
            return BuildPlan(shown, verify=False, commit=False, checkout=False)
        changes = any(_changes(target, left_out=target in self.refused) for target in self.targets)
        trains = any(target.vector is None for target in self.targets)
        commit = trains or changes or self.edited
        return BuildPlan(
            patterns=shown,
            verify=self.verify and (commit or self.scores is None),
            commit=commit,
            checkout=checkout and (commit or not self.placed),
        )

    def _action(self, target: Target) -> tuple[str, str] | None:
        """What is to be done about a target, and why; None if it is up to date."""
        if target.vector is None:
            return "train", target.why
        if self.verify and target.verdict is None:
            return "measure", "not measured with the probes as they are"
        if target in self.refused:
            return "refuse", "failing" if target.verdict == "fail" else str(target.verdict)
        if target.vector != target.held:
            return "take", "not in the recipe"
        return None


def checked_graph(history: History) -> Graph:
    """The graph of the work tree. Raises `InvalidInput` with its first problem, if it has one."""
    graph = Graph.of(history)
    found = check.check(graph)
    if found.problems:
        more = len(found.problems) - 1
        others = f", and {more} more problem{'s' * (more > 1)}" if more else ""
        raise InvalidInput(
            f"{found.problems[0]}{others}; nothing was built",
            hint=(Call("graph.check"), " lists all problems of the graph"),
        )
    return graph


def _changes(target: Target, *, left_out: bool) -> bool:
    """Whether a target that is trained changes the recipe."""
    return target.held is not None if left_out else target.vector not in (None, target.held)


def plan(
    history: History,
    graph: Graph,
    keys: Sequence[str],
    *,
    limit: float,
    verify: bool,
    force: bool,
    keep_going: bool,
) -> Plan:
    """What there is to do for these keys, or for every pattern. `limit`: of damage.

    Raises `UnknownName` for a key that does not exist, and if no pattern has a vector or data for one.
    """
    _, recipe = text_files.recipe(history)
    reader = States(history, graph, recipe)
    targets = [_target(reader, one, limit) for one in _chosen(reader, keys)]
    if not targets:
        raise UnknownName(
            f"no pattern in {FOLDER}/ has data to train on, so there is nothing to build",
            hint=f"name a file of dialogues in [data] of {FOLDER}/{file_name('KEY')} (docs/behaviour.md)",
        )
    head = history.head_commit()
    found = weights.look(history)
    return Plan(
        targets=tuple(targets),
        scores=_scores_of_head(history, graph, head, recipe, limit),
        edited=tracking.snapshot(history) != history.files_of(head),
        placed=found.state == "intact" and found.record is not None and found.record.key == recipe.key,
        verify=verify,
        force=force,
        keep_going=keep_going,
    )


def _chosen(reader: States, keys: Sequence[str]) -> list[Trainable]:
    """The trainables of these keys; without any, all that have data to train on, or a vector."""
    graph = reader.graph
    names = dict.fromkeys(name for key in keys for name in graph.names_of(key))
    found = []
    for name in names or graph.trainables:
        one = graph.trainables.get(name)
        has_data = one is not None and (one.data.train is not None or one.data.prompt is not None)
        if one is not None and (has_data or reader.vector(one) is not None):
            found.append(one)
        elif names:
            graph.trainable(name)  # raises
    return found


def _target(reader: States, trainable: Trainable, limit: float) -> Target:
    """A trainable, and how far it is."""
    pattern = reader.graph.patterns[trainable.key]
    term = reader.term(trainable)
    held = reader.recipe.by_name.get(term)
    vector, why = reader.vector(trainable), "untrained"
    if vector is not None and (changed := reader.changed(pattern, trainable, vector)):
        vector, why = None, f"stale: {', '.join(changed)} changed"
    if vector is None:
        vector = next(iter(reader.others(pattern, trainable)), None)
    if vector is None and (step := _step(reader, trainable)):
        why = f"{why}; goes on from step {step}"
    scores, verdict = None, None
    if trainable.data.probes is None:
        verdict = UNVERIFIED
    elif vector is not None and (scores := reader.scores(trainable, vector)) is not None:
        scores = _up_to_date(scores, {trainable.name: None}, limit)
        verdict = None if scores is None else scores.verdict
    return Target(
        trainable=trainable,
        term=term,
        held=None if held is None else held.vector,
        vector=vector,
        why=why,
        adds=any(one.onto is not None for one in reader.origins.get(vector or "", [])),
        scores=scores,
        verdict=verdict,
    )


def _step(reader: States, trainable: Trainable) -> int:
    """The step at which a run from the files as they are was cut short; 0 if there is none."""
    pattern = reader.graph.patterns[trainable.key]
    return max(
        (
            run.step()
            for run, then in runs.unfinished(reader.history, trainable.name)
            if not reader.changed_since(pattern, trainable, then)
        ),
        default=0,
    )


# -- what was measured


def _up_to_date(scores: Scores, own: Mapping[str, int | None], limit: float) -> Scores | None:
    """Scores with the verdict for a limit of damage, if they are of these patterns, measured as today.

    `own`: the direction that is wanted of each, None for any.
    """
    found = {effect.pattern: effect for effect in scores.own}
    if scores.scorer != SCORER or scores.damage is None:
        return None
    for name, sign in own.items():
        if name not in found or found[name].verdict is None or sign not in (None, found[name].wanted):
            return None
    return judged(replace(scores, damage=replace(scores.damage, limit=limit)), own)


def judged(scores: Scores, own: Container[str]) -> Scores:
    """Scores with the verdict of these patterns: others may have the same vector.

    What does too much damage fails, even if no pattern has probes.
    """
    damage = scores.damage
    assert damage is not None
    effects = [effect for effect in scores.own if effect.pattern in own]
    verdict = verdict_of(effects, damage, scores.unverified)
    return replace(scores, verdict="fail" if over(damage) else verdict)


def over(damage: Damage) -> bool:
    """Whether the damage is above the limit."""
    return damage.ratio.mean > damage.limit


def _scores_of_head(history: History, graph: Graph, head: str, recipe: Recipe, limit: float) -> Scores | None:
    """The scores of HEAD's commit, if they are of this recipe and of the probes as they are."""
    scores = readable(history, head, history.notes)
    if scores is None or recipe.key != history.recipe_of(head).key:
        return None
    own = wanted(history, graph, recipe)
    probes = {name: found for name in own if (found := graph.probes(name)) is not None}
    if {*own} - {*probes} != {*scores.unverified}:
        return None
    effects = {effect.pattern: effect.probes for effect in scores.own}
    if effects != {name: found.digest for name, found in probes.items()}:
        return None
    return _up_to_date(scores, {name: own[name] for name in probes}, limit)


# -- the recipe


def composed(
    history: History, data: bytes, taken: Mapping[str, tuple[str, Mapping[str, Any]]], left_out: Iterable[str]
) -> bytes:
    """The text of a recipe with these vectors, and without the terms that are left out.

    `taken`: by the name of the term, its vector and the keys of a new term. Terms that are there keep their
    keys, and other terms stay as they are.
    """
    for name, (id, keys) in taken.items():
        term = history.read_recipe(data).by_name.get(name)
        if term is None or term.vector != id:
            text, _ = with_term(history, data, name, id, keys if term is None else {})
            data = encode(text, like=data)
    for name in left_out:
        if name in history.read_recipe(data).by_name:
            data = encode(edit.remove_term(decode(data), name), like=data)
    return data


def keys_of(target: Target) -> dict[str, Any]:
    """The keys of a new term."""
    return {"alpha": str(target.trainable.sign), **({"join": "add"} if target.adds else {})}
