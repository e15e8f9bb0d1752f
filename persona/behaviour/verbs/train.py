"""`train`: a pattern of the graph becomes a vector of `recipe.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack

from persona.behaviour.options import TrainOptions
from persona.behaviour.training import compiling, provenance, runs
from persona.behaviour.training import jobs as jobs_of
from persona.behaviour.training.compiling import Machine, Outcome
from persona.behaviour.training.jobs import MINUS, PLUS, Job
from persona.behaviour.training.provenance import Provenance
from persona.errors import (
    Blank,
    Call,
    InvalidInput,
    Keyword,
    Note,
    NothingChanged,
    PersonaError,
    Refused,
    UsageError,
)
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.options import ImportOptions, complete
from persona.history.recipes.checked import checked_keys
from persona.history.recipes.views import shown
from persona.history.results import UNPRINTED, Result
from persona.history.vectors import cache, importing, kept_names
from persona.history.vectors.naming import put_term, store_sum
from persona.history.worktree import text_files
from persona.history.worktree.changing import changing

if TYPE_CHECKING:
    from persona.intake.encode import ImportedVector

_COEFFICIENTS: Final = {PLUS: "1", MINUS: "-1"}


@dataclass(frozen=True, repr=False)
class Trained(Result):
    """A vector that was trained and named in `recipe.toml`.

    `change`: "added"; "replaced" if the name had another vector; "unchanged" if the recipe had this one.
    `trained`: False if the vector was known already and no step was made. `steps`: of all runs together;
    `resumed`: the step that the run went on from, 0 for a new run. `first_loss`, `last_loss`: in nats per
    token. `seconds`: of training. `changed_fraction` of the base's float elements, and `stored_bytes`, are
    known if the vector was just trained; those of a contrastive pair are of both sides together, the larger
    fraction. `parts`: the sides of a contrastive pair, id by name.
    """

    name: str
    id: str
    change: str
    alpha: float | tuple[float, ...]
    trained: bool
    steps: int
    resumed: int
    first_loss: float | None
    last_loss: float | None
    seconds: float
    changed_fraction: float | None
    stored_bytes: int | None
    parts: dict[str, str]
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


def train(history: History, *keys: str, **options: Unpack[TrainOptions]) -> tuple[Trained, ...]:
    """Trains patterns of the graph, one after the other, and names their vectors in `recipe.toml`.

    `keys`: KEY or KEY#FACET; a KEY that has only facets stands for all of them. Commits nothing. If a vector
    was trained already from the same text, data, base and settings, it is taken as it is, unless `force`. A
    run that was cut short goes on from its last checkpoint; with `resume`, nothing else is done. All keys are
    checked before the first one is trained. Raises `UnknownName` for a key that does not exist,
    `InvalidInput` for data that cannot be used or that probes overlap, and for a training that changes no
    weight; `Refused` if there is nothing to resume; `SystemFault` if a file cannot be written. The run can be
    resumed then.
    """
    given = history.in_force(TrainOptions, options)
    if not keys:
        raise UsageError("train needs the key of a pattern", hint=("such as ", Call("train", Blank("KEY"))))
    jobs_of.need_accelerate()
    history.store.require_writable()
    alpha = checked_keys(given["alpha"], None, None, None)
    machine = jobs_of.machine(given)
    jobs = jobs_of.jobs(history, keys, given, machine)
    if given["resume"]:
        for job in jobs:
            _require_unfinished(history, job)
    return tuple(_train(history, job, given, machine, alpha) for job in jobs)


def _train(
    history: History, job: Job, given: TrainOptions, machine: Machine, alpha: Mapping[str, Any]
) -> Trained:
    """Trains one vector, or takes the one that is known, and names it in `recipe.toml`."""
    name = job.trainable.name
    notes = list(job.notes)
    known = {} if given["force"] else _known(history, job)
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
    id = _joined(history, job, ids)
    kept_names.keep(history, name, id)
    keys = dict(alpha)
    with changing(history) as tree:
        old = text_files.recipe(history, to_edit=True).recipe.by_name.get(name)
        if old is None:
            keys.setdefault("alpha", str(job.trainable.sign))
        if given["onto"] not in (None, "base"):
            keys["join"] = "add"
        recipe, _ = put_term(tree, name, id, keys)
    runs.clear(history, name)
    if not outcomes:
        notes.append(
            Note(
                f"{name} was trained from the same text, data, base and settings before",
                (Call("train", name, force=True), " trains it again"),
            )
        )
    curve = outcomes[0].loss if outcomes else ()
    fractions = [fact.changed_fraction for fact in facts if fact.changed_fraction is not None]
    return Trained(
        name=name,
        id=id,
        change="added" if old is None else "unchanged" if old.vector == id else "replaced",
        alpha=shown(recipe.by_name[name].alpha),
        trained=bool(outcomes),
        steps=job.settings.steps * len(outcomes),
        resumed=max((one.resumed for one in outcomes), default=0),
        first_loss=curve[0][1] if curve else None,
        last_loss=curve[-1][1] if curve else None,
        seconds=round(sum(one.seconds for one in outcomes), 1),
        changed_fraction=max(fractions, default=None),
        stored_bytes=sum(fact.stored_bytes for fact in facts) if facts else None,
        parts={_part_name(name, part): ids[part] for part in job.made if part is not None},
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
            changed = ", ".join(_changes(job, then))
            notes.append(
                f"a run of {job.trainable.name} was cut short at step {run.step()} and does not go on;"
                f" changed since: {changed}"
            )
    return notes


def _changes(job: Job, then: Provenance) -> tuple[str, ...]:
    now = job.made.get(then.part) or next(iter(job.made.values()))
    return now.changed_since(then)


def _require_unfinished(history: History, job: Job) -> None:
    """`Refused` unless a run of this vector was cut short and can go on.

    One that was cut short after a vector was stored, and before recipe.toml named it, can.
    """
    ours = {made.digest for made in job.made.values()}
    left = runs.unfinished(history, job.trainable.name)
    if any(then.digest in ours for _, then in left):
        return
    now = next(iter(job.made.values()))
    stored = {
        one.vector
        for one in provenance.known(history)
        if one.name == now.name and now.with_changes(part=one.part).same_training(one)
    }
    term = text_files.recipe(history).recipe.by_name.get(now.name)
    if stored and (term is None or term.vector not in stored):
        return
    name, again = job.trainable.name, ("to begin a new run: ", Call("train", job.trainable.name))
    for _, then in left:
        changed = ", ".join(_changes(job, then))
        raise Refused(
            f"the run of {name} that was cut short cannot go on; changed since: {changed}", hint=again
        )
    raise Refused(f"no run of {name} was cut short", hint=again)


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
                kept = f"step {step} of {job.settings.steps} is kept; the same command goes on from there"
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
                seconds=round(outcome.seconds),
            ),
        )
        if part is not None:
            kept_names.keep(history, _part_name(name, part), fact.id)
        run.remove()
    return outcome, fact


def _imported(history: History, made: Provenance, weights: Path, machine: Machine) -> ImportedVector:
    """Stores trained weights as a vector, by the door of `commit PATH`."""
    from persona.history.planning import plan_of

    given = ImportOptions(threads=machine.threads, progress=machine.progress, missing="zero")
    options = complete(ImportOptions, given)
    onto = None if made.onto is None else plan_of(history, history.recipe_of(made.onto))
    try:
        with importing.opened(weights) as checkpoint:
            fact, _ = importing.take(history, made.base, checkpoint, onto, options)
    except NothingChanged:
        raise InvalidInput(
            f"{made.name}: the training changed no weight: each change is less than half a step of the base's"
            " dtype",
            hint=("try more steps, or a higher learning rate: ", Keyword(lr=Blank("X"))),
        ) from None
    importing.remember(history, made.base, weights, fact, options)
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
