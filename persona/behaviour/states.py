"""**state of a trainable** — how far it is: untrained, stale, trained, verified or failing.

- *untrained*: there is no vector of its name.
- *stale*: the pattern's file, its data, base or settings have changed since the vector was trained.
- *verified*, *failing*: `verify` measured the vector with the probes as they are now, and it passed or not.
- *trained*: none of these: not measured, not decided, or without probes.

This reads notes and files, and computes nothing.
"""

from __future__ import annotations

from typing import Final

from persona.behaviour.graph.graph import TRAINING_ROLES, Graph
from persona.behaviour.graph.pattern import Pattern, Trainable
from persona.behaviour.graph.reading import Problem
from persona.behaviour.training import provenance
from persona.behaviour.training.provenance import Provenance
from persona.behaviour.training.settings import as_data, in_force
from persona.errors import InvalidInput
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.recipes.views import shown
from persona.history.results import Result
from persona.history.scores import Damage, Effect, Scores, readable
from persona.history.worktree import text_files
from persona.objects.recipe import Recipe
from persona.store.refs import VECTORS

_VERDICTS: Final = {"pass": "verified", "fail": "failing"}


@dataclass(frozen=True, repr=False)
class TrainableState(Result):
    """How far a trainable is. `name`: KEY or KEY#FACET, as its vector is named.

    `changed`: what makes it stale: "text", "base", "data ROLE", "setting KEY". `vector`: the id of its
    vector. `alpha`: its strength in recipe.toml, None if the recipe does not name it. `has_data`,
    `has_probes`: whether the pattern names data to train on, and probes. `trained_here`: whether `train` made
    the vector. `effect`, `damage`: of the vector alone, if it was measured with its own probes as they are.
    """

    name: str
    key: str
    facet: str | None
    kind: str
    file: str
    state: str
    changed: tuple[str, ...]
    vector: str | None
    alpha: float | tuple[float, ...] | None
    has_data: bool
    has_probes: bool
    trained_here: bool
    effect: Effect | None
    damage: Damage | None


@dataclass(frozen=True, repr=False)
class GraphStatus(Result):
    """The state of every trainable, in the order of the patterns.

    `problems`: the files of patterns that cannot be read. `without_pattern`: the vectors of recipe.toml that
    no pattern describes.
    """

    trainables: tuple[TrainableState, ...]
    problems: tuple[Problem, ...]
    without_pattern: tuple[str, ...]


def states(history: History, graph: Graph) -> GraphStatus:
    """The states of a graph of the work tree, against recipe.toml as it is."""
    recipe = text_files.recipe(history).recipe
    reader = States(history, graph, recipe)
    found = [reader.state(pattern, one) for pattern in graph.patterns.values() for one in pattern.trainables]
    return GraphStatus(
        trainables=tuple(found),
        problems=tuple(problem for problems in graph.problems.values() for problem in problems),
        without_pattern=tuple(term.name for term in recipe.terms if term.name not in reader.patterns),
    )


class States:
    """The facts about vectors, read once for all trainables."""

    def __init__(self, history: History, graph: Graph, recipe: Recipe) -> None:
        self.history = history
        self.graph = graph
        self.recipe = recipe
        self.kept = history.store.refs.list(VECTORS)
        self.origins: dict[str, list[Provenance]] = {}
        """The trainings that made each vector, by its id."""
        for one in provenance.known(history):
            self.origins.setdefault(one.vector, []).append(one)
        ids = {term.name: term.vector for term in recipe.terms}
        self.patterns = provenance.patterns_of(history, graph.trainables, ids)
        """The pattern or facet of each vector of recipe.toml, by its name there."""
        self.renamed = {pattern: name for name, pattern in self.patterns.items() if pattern not in ids}

    def term(self, trainable: Trainable) -> str:
        """The name that the vector of a trainable has in the recipe, or would have."""
        return self.renamed.get(trainable.name, trainable.name)

    def vector(self, trainable: Trainable) -> str | None:
        """The vector of a trainable: that of the recipe, else that of its name."""
        term = self.recipe.by_name.get(self.term(trainable))
        return term.vector if term is not None else self.kept.get(VECTORS + trainable.name)

    def others(self, pattern: Pattern, trainable: Trainable) -> list[str]:
        """The vectors, other than the recipe's, that were trained from the files as they are, and are stored.

        That of its name comes first.
        """
        found = {
            one.vector
            for origins in self.origins.values()
            for one in origins
            if one.name == trainable.name and one.part is None
            if not self.changed_since(pattern, trainable, one)
        }
        named = self.kept.get(VECTORS + trainable.name)
        stored = [id for id in found if self.history.store.objects.kind_of(id) == "vector"]
        return sorted(stored, key=lambda id: (id != named, id))

    def state(self, pattern: Pattern, trainable: Trainable) -> TrainableState:
        """The state of one trainable."""
        term = self.recipe.by_name.get(self.term(trainable))
        vector = self.vector(trainable)
        state = "untrained"
        changed: tuple[str, ...] = ()
        effect: Effect | None = None
        damage: Damage | None = None
        if vector is not None:
            changed = self.changed(pattern, trainable, vector)
            state = "stale" if changed else "trained"
            if scores := self.scores(trainable, vector):
                effect, damage = _own(scores, trainable.name)[0], scores.damage
                state = "stale" if changed else _VERDICTS.get(scores.verdict, "trained")
        return TrainableState(
            name=trainable.name,
            key=pattern.key,
            facet=trainable.facet,
            kind=pattern.kind,
            file=pattern.file,
            state=state,
            changed=changed,
            vector=vector,
            alpha=None if term is None else shown(term.alpha),
            has_data=trainable.data.train is not None or trainable.data.prompt is not None,
            has_probes=trainable.data.probes is not None,
            trained_here=vector in self.origins,
            effect=effect,
            damage=damage,
        )

    def changed(self, pattern: Pattern, trainable: Trainable, vector: str) -> tuple[str, ...]:
        """The changes since the vector was trained; of several trainings, the one that is nearest."""
        origins = self.origins.get(vector, [])
        own = [one for one in origins if one.name == trainable.name] or origins
        return min((self.changed_since(pattern, trainable, then) for then in own), key=len, default=())

    def changed_since(self, pattern: Pattern, trainable: Trainable, then: Provenance) -> tuple[str, ...]:
        """The changes since one training."""
        roles = dict.fromkeys((*TRAINING_ROLES, *then.data))
        try:
            files = self.graph.data_files(trainable, roles)
        except InvalidInput:
            return ("data",)
        given = {key: float(value) if key == "lr" else value for key, value in then.given.items()}
        today = then.with_changes(
            text=pattern.text,
            data={role: {"file": one.file, "blake3": one.blake3} for role, one in files.items()},
            base=self.recipe.base,
            settings=as_data(in_force(trainable.settings, given)),
        )
        return today.changed_since(then)

    def scores(self, trainable: Trainable, vector: str) -> Scores | None:
        """What `verify` found for the vector alone, if its own probes are still the same."""
        found = None if trainable.data.probes is None else readable(self.history, vector, self.history.notes)
        own = [] if found is None else _own(found, trainable.name)
        try:
            probes = self.graph.probes(trainable.name) if own else None
        except InvalidInput:
            return None
        return found if probes is not None and own[0].probes == probes.digest else None


def _own(scores: Scores, name: str) -> list[Effect]:
    return [effect for effect in scores.effects if effect.pattern == name]
