"""The work of a build: it trains, measures, composes, commits, and computes the weights.

Order: each vector is stored and keeps its name as soon as it is trained, and its scores as soon as it is
measured. `recipe.toml` changes once, when all vectors are there. Then the recipe as a whole is measured, and
committed. So a build that was cut short loses nothing, and the next one goes on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from persona.behaviour.assessing import Subject, base_of, keep, needs, probe_sets, scores_of
from persona.behaviour.building import plan as plans
from persona.behaviour.building.outcome import Outcome
from persona.behaviour.building.plan import Target
from persona.behaviour.building.results import Built, BuiltPattern
from persona.behaviour.graph.graph import Graph
from persona.behaviour.measuring.measurements import Bench
from persona.behaviour.models import device_of
from persona.behaviour.options import TrainOptions
from persona.behaviour.training import jobs as jobs_of
from persona.behaviour.training import making, runs
from persona.behaviour.training.jobs import Job
from persona.errors import Blank, Call, Refused
from persona.history import commit_checkout, placing
from persona.history.bisecting.search import read_search
from persona.history.commit_builder import record
from persona.history.computing import device_choice
from persona.history.history import History
from persona.history.options import ComputeOptions, RunOptions
from persona.history.recipes.text import RECIPE_FILE
from persona.history.results import CheckoutResult, CommitResult
from persona.history.scores import Scores
from persona.history.worktree import in_place, sequence, text_files, tracking
from persona.history.worktree.changing import changing
from persona.objects.commit import Signer
from persona.objects.recipe import Recipe
from persona.progress import Compiling, Phase, Progress

if TYPE_CHECKING:
    from persona.behaviour.probes import ProbeSet


class _Telling:
    """The caller's display of progress, with the pattern that the build is at before each phase."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.label = ""

    def __call__(self, phase: Phase, done: int, total: int, /) -> None:
        """Passes on how far a phase is."""
        if self.label and not isinstance(phase, Compiling):
            told = Phase(f"{self.label}: {phase}", phase.unit)
            told.detail = phase.detail
            phase = told
        self.progress(phase, done, total)


class Work:
    """The work of one build."""

    def __init__(
        self, history: History, graph: Graph, outcome: Outcome, how: ComputeOptions, limit: float
    ) -> None:
        self.history = history
        self.graph = graph
        self.outcome = outcome
        self.plan = outcome.plan
        self.telling = None if how["progress"] is None else _Telling(how["progress"])
        self.how: ComputeOptions = {**how, "progress": self.telling}
        self.limit = limit
        self._bench: Bench | None = None
        self._sets: tuple[dict[str, ProbeSet], tuple[str, ...]] | None = None

    def run(self, author: Signer, message: str | None, checkout: bool) -> Built:
        """Trains, measures, composes, commits and computes the weights."""
        history, plan = self.history, self.plan
        _refuse_under_way(history)
        history.store.require_writable()
        after: RunOptions | None = None
        if checkout:
            in_place.refuse_losing(history)
            given: Any = {**self.how}
            after = history.in_force(RunOptions, given)
            device_choice(after)
        jobs = self._jobs([target.name for target in plan.targets if target.vector is None])
        todo = [
            target
            for target in plan.targets
            if target.vector is None or (plan.verify and target.verdict is None)
        ]
        for number, target in enumerate(todo, 1):
            self._at(f"pattern {number} of {len(todo)}")
            one = self._pattern(target, jobs.get(target.name))
            if plan.refuses(one.verdict) and not plan.keep_going:
                return self.outcome.stopped(target)
        self._at("")
        if all(self.outcome.of(target).left_out for target in plan.targets):
            return self.outcome.stopped(plan.targets[0])
        recipe = self._compose()
        scores = self._whole(recipe) if plan.verify else None
        if scores is not None and plan.refuses(scores.verdict):
            return self.outcome.whole_refused(recipe, scores)
        return self._commit(recipe, scores, author, message, after)

    # -- one pattern

    def _jobs(self, names: Sequence[str]) -> dict[str, Job]:
        """What is to be trained, all of it checked."""
        if not names:
            return {}
        jobs_of.need_accelerate()
        given = self.history.in_force(TrainOptions, self._train_options())
        return {
            job.trainable.name: job
            for job in jobs_of.jobs(self.history, names, given, jobs_of.machine(given))
        }

    def _train_options(self) -> TrainOptions:
        how = self.how
        return {"threads": how["threads"], "progress": how["progress"], "device": how["device"]}

    def _pattern(self, target: Target, job: Job | None) -> BuiltPattern:
        """Trains a pattern, or takes the vector that it has, and measures that."""
        history, began = self.history, time.monotonic()
        one = self.outcome.as_planned(target)
        if job is not None:
            given = history.in_force(TrainOptions, self._train_options())
            made = making.make(history, job, jobs_of.machine(given))
            runs.clear(history, target.name)
            self.outcome.notes += made.notes
            one = replace(
                one,
                action="trained" if made.outcomes else "taken",
                why=target.why,
                vector=made.id,
                steps=job.settings.steps * len(made.outcomes),
            )
        if self.plan.verify and one.verdict is None and one.vector is not None:
            scores = self._measured(target, one.vector)
            effects = (effect for effect in scores.own if effect.pattern == target.name)
            one = replace(
                one,
                action="measured" if job is None else one.action,
                effect=next(effects, None),
                damage=scores.damage,
                verdict=scores.verdict,
            )
        one = replace(
            one,
            seconds=round(time.monotonic() - began, 1),
            left_out=self.plan.refuses(one.verdict),
        )
        self.outcome.done[target.name] = one
        return one

    # -- measuring

    def _measured(self, target: Target, vector: str) -> Scores:
        """The scores of a vector alone, which are kept as its note."""
        base = text_files.recipe(self.history).recipe.base
        subject = Subject.of_vector(self.history, target.name, vector, base, target.name, self.how)
        alike = [other.name for other in self.plan.targets if self.outcome.of(other).vector == vector]
        scores = self._scores(replace(subject, own=dict.fromkeys([target.name, *alike], 1)))
        keep(self.history, scores, tasks=False)
        return plans.judged(scores, (target.name,))

    def _whole(self, recipe: Recipe) -> Scores | None:
        """The scores of the recipe as a whole; None for one without a vector.

        After an edit they are put together again, because other files decide about them as well, such as the
        chat template.
        """
        head = self.history.recipe_of(self.history.head_commit())
        if self.plan.scores is not None and recipe.key == head.key and not self.plan.edited:
            return self.plan.scores
        if not recipe.terms:
            return None
        subject = Subject.of_recipe(self.history, self.graph, recipe, self.how, label="the recipe")
        return plans.judged(self._scores(subject), subject.own)

    def _scores(self, subject: Subject) -> Scores:
        how = self.how
        if self._bench is None or self._sets is None:
            self._sets = probe_sets(self.graph, (), ())
            base = base_of(self.history, subject.weights.recipe)
            device = device_of(how["device"])
            self._bench = Bench(self.history, None, base, device, how["threads"], how["progress"])
        sets, without = self._sets
        self._bench.measure(needs(self._bench, subject, sets))
        return scores_of(self._bench, subject, sets, without, self.limit)

    # -- the recipe, the commit, the weights

    def _compose(self) -> Recipe:
        """Puts the vectors into `recipe.toml`, all at once, and returns the recipe."""
        taken: dict[str, tuple[str, Mapping[str, Any]]] = {}
        left_out = []
        for target in self.plan.targets:
            one = self.outcome.of(target)
            if one.left_out:
                left_out.append(target.term)
            elif one.vector is not None:
                taken[target.term] = one.vector, plans.keys_of(target)
        with changing(self.history) as tree:
            data, _ = text_files.recipe(self.history, to_edit=True)
            new = plans.composed(self.history, data, taken, left_out)
            if new != data:
                tree.apply({RECIPE_FILE: new}, {RECIPE_FILE: text_files.blob_id(data)})
        return text_files.new_recipe(self.history).recipe

    def _commit(
        self,
        recipe: Recipe,
        scores: Scores | None,
        author: Signer,
        message: str | None,
        after: RunOptions | None,
    ) -> Built:
        """Commits the work tree if it differs from HEAD, keeps the scores, and computes the weights."""
        history, started = self.history, time.perf_counter()
        made: CommitResult | None = None
        with changing(history) as tree:
            if text_files.recipe(history).recipe.key != recipe.key:
                raise Refused(
                    f"{RECIPE_FILE} was edited while the recipe was measured, so nothing was committed",
                    hint="build again: what was trained and measured takes no time",
                )
            head = history.head_commit()
            if tracking.snapshot(history) != history.files_of(head):
                said = self.outcome.message(recipe) if message is None else message
                made = record(tree, history.author(author), said)
                self.outcome.notes += [*made.notes, *([] if after else in_place.edited_notes(tree))]
                head = made.id or head
            if scores is not None:
                keep(history, replace(scores, about=head, about_kind="commit"), tasks=False)
            found: CheckoutResult | None = None
            if made is None and after is not None and not self.plan.placed:
                found = placing.as_it_stands(tree, after, device_choice(after), started)
                self.outcome.notes += found.notes
        failure = None
        if made is not None and after is not None:
            placed = commit_checkout.at_once(history, made, after)
            found, failure = placed.checkout, placed.failure
            self.outcome.notes += found.notes if found is not None else ()
        return replace(self.outcome.ended(recipe, scores), commit=made, checkout=found, failure=failure)

    def _at(self, label: str) -> None:
        if self.telling is not None:
            self.telling.label = label


def _refuse_under_way(history: History) -> None:
    """`Refused` while another command waits for a commit of its own."""
    if sequence.prepared_message(history) is not None:
        raise Refused(
            "a revert was prepared and is not committed yet",
            hint=(Call("commit", message=Blank("MSG")), " commits it; then build"),
        )
    if read_search(history) is not None:
        raise Refused(
            "a bisect is under way, and HEAD is at a commit that it tests",
            hint=(Call("bisect.reset"), " ends it and goes back"),
        )
