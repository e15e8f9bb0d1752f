"""A vector out of a job: its parts are trained, or taken if the same training made them before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from persona.behaviour.measuring.statistics import FEWEST_GROUPS
from persona.behaviour.measuring.transfer import Transfer
from persona.behaviour.training import compiling, provenance, runs
from persona.behaviour.training.compiling import Machine, Outcome
from persona.behaviour.training.jobs import MINUS, PLUS, Job
from persona.behaviour.training.provenance import Provenance
from persona.errors import Blank, InvalidInput, Keyword, NothingChanged, PersonaError
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.options import ImportOptions, complete
from persona.history.vectors import cache, growing, importing, kept_names
from persona.history.vectors.naming import store_sum
from persona.history.worktree import text_files

if TYPE_CHECKING:
    from persona.intake.encode import ImportedVector

_COEFFICIENTS: Final = {PLUS: "1", MINUS: "-1"}


@dataclass(frozen=True)
class Made:
    """A vector that is stored and has a kept name.

    `parts`: the sides of a contrastive pair, id by name. `outcomes`, `facts`: of the parts that were trained
    now; none if all were known. `notes`: what the user should know.
    """

    id: str
    parts: dict[str, str]
    outcomes: tuple[Outcome, ...]
    facts: tuple[ImportedVector, ...]
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """The time of training."""
        return round(sum(one.seconds for one in self.outcomes), 1)


def make(history: History, job: Job, machine: Machine, *, again: bool = False) -> Made:
    """Trains the parts of a vector that no training made before; `again`: all of them.

    The vector is stored and kept by its name. The recipe does not change. Call `runs.clear` once the vector
    has its place.
    """
    name = job.trainable.name
    notes = list(job.notes)
    known = {} if again else _known(history, job)
    ids: dict[str | None, str] = dict(known)
    outcomes: list[Outcome] = []
    facts: list[ImportedVector] = []
    if len(known) < len(job.made):
        notes += _left_behind(history, job)
    for part in job.made:
        if part not in known:
            outcome, fact = _run(history, job, part, machine)
            ids[part] = fact.id
            outcomes.append(outcome)
            facts.append(fact)
    notes += _warm_notes(job, outcomes)
    id = _joined(history, job, ids)
    kept_names.keep(history, name, id)
    return Made(
        id=id,
        parts={_part_name(name, part): ids[part] for part in job.made if part is not None},
        outcomes=tuple(outcomes),
        facts=tuple(facts),
        notes=(*notes, *(note for fact in facts for note in fact.notes)),
    )


def _known(history: History, job: Job) -> dict[str | None, str]:
    """The parts of a vector that were trained before and are stored, with their ids."""
    found: dict[str | None, str] = {}
    current = {term.vector for term in text_files.recipe(history).recipe.terms}
    for one in provenance.known(history):
        now = job.made.get(one.part)
        if now is None or one.name != now.name or not now.same_training(one):
            continue
        stored = history.store.objects.kind_of(one.vector) == "vector"
        if stored and (one.part not in found or one.vector in current):
            found[one.part] = one.vector
    return found


def _left_behind(history: History, job: Job) -> list[str]:
    """Notes on runs of this vector that were cut short and cannot go on, because something changed."""
    ours = {made.digest for made in job.made.values()}
    notes = []
    for run, then in runs.unfinished(history, job.trainable.name):
        if then.digest not in ours and run.step():
            changed = ", ".join(changes(job, then))
            notes.append(
                f"a run of {job.trainable.name} was cut short at step {run.step()} and does not go on;"
                f" changed since: {changed}"
            )
    return notes


def changes(job: Job, then: Provenance) -> tuple[str, ...]:
    """What changed since a run of this vector began, in words."""
    now = job.made.get(then.part) or next(iter(job.made.values()))
    return now.changed_since(then)


def _run(history: History, job: Job, part: str | None, machine: Machine) -> tuple[Outcome, ImportedVector]:
    """Trains one part and stores its vector, with its provenance."""
    from persona.behaviour.models import tokenizer_of

    made, name = job.made[part], job.trainable.name
    label = name if part is None else f"{name}, {part}"
    with runs.opened(history, made) as run:
        try:
            outcome = compiling.compile_weights(
                history,
                tokenizer_of(history),
                job.lessons[part],
                job.settings,
                machine,
                run,
                base=made.base,
                onto=made.onto,
                label=label,
            )
            fact = _imported(history, made, outcome.weights, machine)
        except InvalidInput:
            run.remove()
            raise
        except BaseException as error:
            if step := run.step():
                total = job.settings.steps + _warm_steps(job, run)
                kept = f"step {step} of {total} is kept; the same command goes on from there"
                if isinstance(error, PersonaError):
                    error.hint = error.hint or kept
                else:
                    error.add_note(kept)
            raise
        provenance.keep(
            history,
            made.with_changes(
                vector=fact.id,
                steps=job.settings.steps,
                loss=compiling.thinned(outcome.loss),
                warm=_warm_data(outcome),
                seconds=round(outcome.seconds),
            ),
        )
        if part is not None:
            kept_names.keep(history, _part_name(name, part), fact.id)
        run.remove()
    return outcome, fact


def _warm_steps(job: Job, run: runs.Run) -> int:
    """The steps of the warm start of a run that is under way."""
    found = run.transfer()
    return job.settings.warm_steps if found is not None and Transfer.of(found).found else 0


def _warm_data(outcome: Outcome) -> dict[str, Any] | None:
    """The warm start in a provenance note."""
    if (warm := outcome.warm) is None:
        return None
    loss = [[step, value] for step, value in compiling.thinned(warm.loss)]
    return {**warm.transfer.as_data(), "loss": loss, "steps": warm.steps}


def _warm_notes(job: Job, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Why a warm start that was asked for did not happen, and which side of a pair can have one."""
    name, file = job.trainable.name, next(iter(job.made.values())).file
    for outcome in outcomes:
        if outcome.warm is None or outcome.warm.steps:
            continue
        found = outcome.warm.transfer
        if found.change is None:
            yield (
                f"{name} was trained cold: it has no probes with a pair of answers, so nothing tells whether"
                f" its demos move the model; name a file of them as probes in [data] of {file}"
            )
        elif found.groups < FEWEST_GROUPS:
            yield (
                f"{name} was trained cold: its probes have fewer than {FEWEST_GROUPS} groups, too few to tell"
                " whether its demos move the model"
            )
        else:
            change = found.change
            yield (
                f"nothing to transfer: with the demos of {name} in the context, the margin of its probes"
                f" changes by {change.mean:+.2f} [{change.low:+.2f}, {change.high:+.2f}] nats, so it was"
                " trained cold"
            )
    if PLUS in job.lessons and job.lessons[PLUS].demos and outcomes:
        yield (
            f"only {_part_name(name, PLUS)} can start warm: no demos show what {_part_name(name, MINUS)} is"
            " trained on"
        )


def _imported(history: History, made: Provenance, weights: Path, machine: Machine) -> ImportedVector:
    """Stores trained weights as a vector, by the door of `commit PATH`."""
    from persona.history.planning import plan_of

    onto = None if made.onto is None else plan_of(history, history.recipe_of(made.onto))
    origins = {} if onto is None else onto.origins
    given = ImportOptions(threads=machine.threads, progress=machine.progress, missing="zero")
    options = complete(ImportOptions, given | growing.as_trained(origins))
    try:
        with importing.opened(weights) as checkpoint:
            fact, _ = importing.take(history, made.base, checkpoint, onto, options)
    except NothingChanged:
        raise InvalidInput(
            f"{made.name}: the training changed no weight: each change is less than half a step of the base's"
            " dtype",
            hint=("try more steps, or a higher learning rate: ", Keyword(lr=Blank("X"))),
        ) from None
    importing.remember(history, made.base, weights, fact, options, onto)
    cache.remember_origin(history, fact.id, history.root / made.file)
    return fact


def _joined(history: History, job: Job, ids: Mapping[str | None, str]) -> str:
    """The vector of all parts: the one, or plus − minus."""
    if None in ids:
        return ids[None]
    name = job.trainable.name
    if ids[PLUS] == ids[MINUS]:
        raise InvalidInput(
            f"{name}: both sides of the contrastive pair gave the same vector, so nothing is left"
        )
    made = job.made[PLUS]
    names = {_part_name(name, part): ids[part] for part in (PLUS, MINUS)}
    parts = tuple(sorted((ids[part], _COEFFICIENTS[part]) for part in (PLUS, MINUS)))
    expression = " - ".join(f"'{one}'" for one in names)
    origin = {"expression": expression, "vectors": names}
    id = store_sum(history, made.base, parts, origin)
    provenance.keep(history, made.with_changes(part=None, vector=id, steps=job.settings.steps))
    return id


def _part_name(name: str, part: str) -> str:
    return f"{name}-{part}"
