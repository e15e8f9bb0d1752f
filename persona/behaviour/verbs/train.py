"""`train`: a pattern of the graph becomes a vector of `recipe.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Unpack

from persona.behaviour.options import TrainOptions
from persona.behaviour.training import jobs as jobs_of
from persona.behaviour.training import making, provenance, runs
from persona.behaviour.training.compiling import Machine
from persona.behaviour.training.jobs import Job
from persona.errors import Blank, Call, Note, Refused, UsageError
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.recipes import joining
from persona.history.recipes.checked import checked_keys
from persona.history.recipes.views import shown
from persona.history.results import UNPRINTED, Result
from persona.history.scores import Interval
from persona.history.vectors.naming import put_term
from persona.history.vectors.trained_from import rejoined
from persona.history.worktree import text_files
from persona.history.worktree.changing import changing


@dataclass(frozen=True)
class WarmStart:
    """How a training started that was asked to start warm. `steps`: 0 if it started cold after all.

    `margin`: what the demos in the context do to the margins of the pattern's probes, in nats; None without
    probes that have a pair of answers.
    """

    kind: str
    steps: int
    margin: Interval | None


@dataclass(frozen=True, repr=False)
class Trained(Result):
    """A vector that was trained and named in `recipe.toml`.

    `change`: "added"; "replaced" if the name had another vector; "unchanged" if the recipe had this one.
    `trained`: False if the vector was known already and no step was made. `steps`: of all runs together,
    without those of a warm start. `resumed`: the step that the run went on from, those of a warm start
    included, 0 for a new run. `first_loss`, `last_loss`: in nats per
    token. `seconds`: of training. `changed_fraction` of the base's float elements, and `stored_bytes`, are
    known if the vector was just trained; those of a contrastive pair are of both sides together, the larger
    fraction. `parts`: the sides of a contrastive pair, id by name. `warm`: the warm start, if one was asked
    for and the vector was just trained.
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
    warm: WarmStart | None = None
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
    made = making.make(history, job, machine, again=given["force"])
    keys = dict(alpha)
    how_it_joins: list[Note] = []
    with changing(history) as tree:
        before = text_files.recipe(history, to_edit=True).recipe
        old = before.by_name.get(name)
        if old is None:
            keys.setdefault("alpha", str(job.trainable.sign))
        if given["onto"] not in (None, "base"):
            keys["join"] = "add"
        elif old is not None and old.vector != made.id:
            how_it_joins = rejoined(history, before, old, keys)
        recipe, _, on_files = put_term(tree, name, made.id, keys)
    runs.clear(history, name)
    notes = [*made.notes, *how_it_joins, *joining.notes(before, recipe, name), *on_files]
    if not made.outcomes:
        notes.append(
            Note(
                f"{name} was trained from the same text, data, base and settings before",
                (Call("train", name, force=True), " trains it again"),
            )
        )
    curve = made.outcomes[0].loss if made.outcomes else ()
    fractions = [fact.changed_fraction for fact in made.facts if fact.changed_fraction is not None]
    return Trained(
        name=name,
        id=made.id,
        change="added" if old is None else "unchanged" if old.vector == made.id else "replaced",
        alpha=shown(recipe.by_name[name].alpha),
        trained=bool(made.outcomes),
        steps=job.settings.steps * len(made.outcomes),
        resumed=max((one.resumed for one in made.outcomes), default=0),
        first_loss=curve[0][1] if curve else None,
        last_loss=curve[-1][1] if curve else None,
        seconds=made.seconds,
        changed_fraction=max(fractions, default=None),
        stored_bytes=sum(fact.stored_bytes for fact in made.facts) if made.facts else None,
        parts=made.parts,
        warm=_warm_start(job, made),
        notes=tuple(notes),
    )


def _warm_start(job: Job, made: making.Made) -> WarmStart | None:
    """The warm start of the first part that was trained."""
    for outcome in made.outcomes:
        if outcome.warm is not None:
            return WarmStart(job.settings.warm, outcome.warm.steps, outcome.warm.transfer.change)
    return None


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
        changed = ", ".join(making.changes(job, then))
        raise Refused(
            f"the run of {name} that was cut short cannot go on; changed since: {changed}", hint=again
        )
    raise Refused(f"no run of {name} was cut short", hint=again)
