"""`checkout`: HEAD, text files and weights of one revision in the work tree; or a model directory elsewhere.

Order: the weights are computed into unpublished files; then the text files are put in place, each whole; then
the weights are published, whole; then HEAD moves; then it is noted what the weights are. Cut short anywhere,
the same command again completes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from persona.errors import PersonaError, UsageError
from persona.history import moving, weights_state, worktree
from persona.history.history import History
from persona.history.materials import plan_of
from persona.history.moving import FileMove
from persona.history.query_results import DigestResult
from persona.history.recipe_text import RECIPE_FILE
from persona.history.results import CheckoutResult, Progress
from persona.history.revisions import resolve
from persona.limits import MIB
from persona.objects.commit import Person
from persona.objects.recipe import Recipe
from persona.objects.tensors import TensorSpec
from persona.weights.checkpoint import Checkpoint
from persona.weights.index import SINGLE_NAME
from persona.weights.shards import ShardLayout, by_layers, plan_shards
from persona.weights.writer import ModelWriter, check_output

if TYPE_CHECKING:
    from persona.merge.place import Place
    from persona.merge.plan import Plan, TensorPlan
    from persona.merge.stream import Cast, Materialised, Sink

_SHARDS: Final = 32
_SHARD_BYTES: Final = 128 * MIB
"""A shard of the work tree holds a 32nd of the weights at most, or so many bytes (docs/decisions/009)."""


@dataclass(frozen=True)
class Options:
    """How weights are computed and written; see `Repository.checkout`."""

    device: str | None = None
    device_memory: int | None = None
    threads: int | None = None
    memory: int | None = None
    max_shard_size: int | None = None
    dtype: str | None = None
    weights: bool = True
    force: bool = False
    allow_nonfinite: bool = False
    progress: Progress | None = None

    @property
    def place(self) -> Place:
        """Where terms are merged. Raises `UsageError` for a device that is none, `SystemFault` for one that
        is not there.
        """
        from persona.merge.place import Place

        place = Place(self.device, self.device_memory)
        place.check()
        return place


def checkout(
    history: History,
    rev: str | None,
    branch: str | None,
    out: Path | None,
    mover: Callable[[], Person],
    options: Options,
) -> CheckoutResult:
    """See `Repository.checkout`."""
    started = time.perf_counter()
    if branch is not None and rev is None and out is None:
        options = replace(options, weights=False)  # the same commit: whatever was tried stays as it is
    if options.weights:
        _ = options.place  # refused before anything moves, if it cannot be had
    if out is not None:
        if branch is not None or not options.weights:
            raise UsageError(
                "-o writes a model directory elsewhere; it goes with neither -b nor --no-weights"
            )
        from persona.history.export import export

        return export(history, rev, out, options, started)
    if options.dtype is not None:
        raise UsageError("--dtype goes with -o OUT: the work tree's weights are those of its recipe")
    with history.changing(force=options.force):
        if rev is None and branch is None:
            return _as_it_stands(history, options, started)
        return _move(history, rev, branch, mover, options, started)


def digest(history: History, rev: str | None, options: Options) -> DigestResult:
    """See `Repository.digest`."""
    from persona.merge.stream import materialise

    place = options.place
    revision, recipe = chosen_recipe(history, rev)
    made = materialise(
        plan_of(history, recipe),
        threads=options.threads,
        memory=options.memory,
        progress=options.progress,
        place=place,
    )
    return DigestResult(revision, made.weights, made.device, tuple(notes_of(made)))


def chosen_recipe(history: History, rev: str | None) -> tuple[str | None, Recipe]:
    """The commit and recipe of a revision; without one `recipe.toml` as it stands, and no commit."""
    if rev is None:
        return None, history.new_recipe(worktree.read_recipe_text(history.root))
    id = resolve(history, rev)
    return id, history.recipe_of(id)


def _as_it_stands(history: History, options: Options, started: float) -> CheckoutResult:
    head = history.head_commit()
    _, recipe = chosen_recipe(history, None)
    same = weights_state.key_of(recipe) == weights_state.key_of(history.recipe_of(head))
    revision = head if same else None
    nothing = FileMove({}, {}, ())
    return _place(history, recipe, revision, nothing, list, options, started)


def _move(
    history: History,
    rev: str | None,
    branch: str | None,
    mover: Callable[[], Person],
    options: Options,
    started: float,
) -> CheckoutResult:
    if branch is not None:
        target = moving.new_branch(history, branch, resolve(history, rev or "HEAD"))
    else:
        assert rev is not None
        target = moving.target_of(history, rev)
    files_move = moving.plan_files(history, target.id, force=options.force)
    before = history.head_or_name()

    def move() -> list[str]:
        return moving.move_head(history, target, mover(), "checkout", create=branch is not None)

    recipe = history.recipe_of(target.id)
    revision: str | None = target.id
    if options.weights and any(edit.path == RECIPE_FILE for edit in files_move.carried):
        edited = history.new_recipe(worktree.read_recipe_text(history.root))
        if weights_state.key_of(edited) != weights_state.key_of(recipe):
            recipe, revision = edited, None
    made = _place(history, recipe, revision, files_move, move, options, started)
    return replace(made, before=before)


def _place(
    history: History,
    recipe: Recipe,
    revision: str | None,
    files_move: FileMove,
    move: Callable[[], list[str]],
    options: Options,
    started: float,
) -> CheckoutResult:
    """Weights, text files and HEAD, in the order of the module's docstring."""
    if not options.weights:
        files_move.apply(history)
        notes = [*files_move.notes, *move()]
        files_move.done(history)
        return _result(history, None, revision, (), files_move, tuple(notes), started)
    found = weights_state.look(history, locked=True)
    if not options.force:
        where = RECIPE_FILE if not files_move.paths else "that revision"
        weights_state.refuse_losing(history, found, recipe, where)
    plan = plan_of(history, recipe)
    if found.record and found.state == "intact" and _is_there(history, found, recipe, options):
        files_move.apply(history)
        notes = [*files_move.notes, *move()]
        files_move.done(history)
        tensors = weights_state.tensor_digests(history, found.record) or None
        weights_state.settle(history, recipe, revision, found.record.digest, found.files, tensors)
        kept = _Kept(found.record.digest, len(plan.tensors))
        there = tuple(found.files)
        return _result(history, kept, revision, there, files_move, tuple(notes), started)
    with ExitStack() as stack:
        source = stack.enter_context(_Present(history, found.record)) if found.record else None
        layout = layout_of(plan, options)
        keep = source.keep_shards(plan, layout) if source else {}
        writer = stack.enter_context(ModelWriter(history.root, layout, keep=keep))
        made = compute(plan, writer, options, source)
        writer.refuse_saved(found.files)
        files_move.apply(history)
        try:
            weights_state.expect(history, recipe, revision, made.weights)
            published = writer.publish(made.tensor_digests, seen=found.files)
        except PersonaError:
            files_move.back(history)
            raise
        notes = [*files_move.notes, *move()]
        files_move.done(history)
    digests = {
        tensor.spec.name: (tensor.key, made.tensor_digests[tensor.spec.name]) for tensor in plan.tensors
    }
    weights_state.settle(history, recipe, revision, made.weights, writer.published, digests)
    notes += notes_of(made)
    return _result(history, made, revision, tuple(published), files_move, tuple(notes), started)


@dataclass(frozen=True)
class _Kept:
    """Weights that were there already, found whole by hashing them."""

    weights: str
    reused: int
    computed: int = 0
    bytes_written: int = 0
    device: str = "cpu"


def _is_there(history: History, found: weights_state.Found, recipe: Recipe, options: Options) -> bool:
    """Whether the work tree's weights are those of `recipe`, found by hashing them."""
    record = found.record
    if record is None or record.key != weights_state.key_of(recipe) or options.max_shard_size is not None:
        return False
    try:
        check_output(history.root)
        digest, read = weights_state.measure_seen(history.root, options.progress)
        return digest == record.digest and all(found.files.get(name) == seen for name, seen in read.items())
    except PersonaError:
        return False


class _Present:
    """The work tree's own weights as a source of tensors whose inputs did not change."""

    def __init__(self, history: History, record: weights_state.Record) -> None:
        self._known = weights_state.tensor_digests(history, record)
        self._untouched = weights_state.untouched(history.root, record)
        self.staying: dict[str, str] = {}
        self._checkpoint: Checkpoint | None = None
        if self._known:
            try:
                self._checkpoint = Checkpoint.open(history.root)
            except PersonaError:
                self._known = {}

    def holds(self, tensor: TensorPlan) -> str | None:
        """The digest of a tensor that was made from the same inputs."""
        key, digest = self._known.get(tensor.spec.name, ("", ""))
        if key != tensor.key or self._checkpoint is None:
            return None
        here = self._checkpoint.tensors.get(tensor.spec.name)
        return digest if here is not None and here[0] == tensor.spec else None

    def keep_shards(self, plan: Plan, layout: list[ShardLayout]) -> dict[str, str]:
        """Planned name → the file that is that shard already, for those in which nothing changes; `staying`
        has the digests of their tensors.
        """
        if self._checkpoint is None:
            return {}
        held: dict[int, set[TensorSpec]] = {}
        for spec, place in self._checkpoint.tensors.values():
            held.setdefault(place, set()).add(spec)
        present = {frozenset(specs): self._checkpoint.shards[place] for place, specs in held.items()}
        kept: dict[str, str] = {}
        for planned in layout:
            shard = present.get(frozenset(planned.specs))
            if (
                shard is None
                or shard.name not in self._untouched
                or shard.metadata != planned.metadata
                or (shard.name == SINGLE_NAME) != (len(layout) == 1)
            ):
                continue
            digests = {spec.name: self.holds(plan.by_name[spec.name]) for spec in planned.specs}
            if all(digests.values()):
                kept[planned.name] = shard.name
                self.staying.update((name, digest) for name, digest in digests.items() if digest)
        return kept

    def read_into(self, name: str, start: int, out: memoryview) -> bool:
        """Fills `out` with the tensor's bytes from byte `start` on."""
        if self._checkpoint is None:
            return False
        self._checkpoint.read_into(name, start, out)
        return True

    def __enter__(self) -> _Present:
        return self

    def __exit__(self, *_: object) -> None:
        if self._checkpoint is not None:
            self._checkpoint.close()


def layout_of(plan: Plan, options: Options) -> list[ShardLayout]:
    """The files of the work tree's weights: as many as `max_shard_size` asks for, else the base's, those of a
    sharded base cut at its layers.
    """
    base = plan.base
    layout = plan_shards(base.tensors, options.max_shard_size, shards=base.shards, shard_of=base.shard_of)
    if options.max_shard_size is not None:
        return layout
    return by_layers(layout, max(_SHARD_BYTES, sum(shard.nbytes for shard in layout) // _SHARDS))


def compute(
    plan: Plan,
    writer: Sink,
    options: Options,
    source: _Present | None = None,
    cast: Cast | None = None,
) -> Materialised:
    """The weights of a plan into an unpublished writer."""
    from persona.merge.stream import materialise

    return materialise(
        plan,
        writer,
        source=source,
        staying=source.staying if source else {},
        cast=cast,
        threads=options.threads,
        memory=options.memory,
        progress=options.progress,
        allow_nonfinite=options.allow_nonfinite,
        place=options.place,
    )


def notes_of(made: Materialised) -> list[str]:
    """What to say of where weights were computed, and of elements that are not finite and were allowed."""
    return made.remarks + [
        f"tensor {name}: {count} elements are not finite" for name, count in made.not_finite.items()
    ]


def _result(
    history: History,
    made: Materialised | _Kept | None,
    revision: str | None,
    published: tuple[str, ...],
    files_move: FileMove,
    notes: tuple[str, ...],
    started: float,
) -> CheckoutResult:
    return CheckoutResult(
        revision=revision,
        weights=made.weights if made else None,
        files=published,
        tensors_computed=made.computed if made else 0,
        tensors_reused=made.reused if made else 0,
        bytes_written=made.bytes_written if made else 0,
        seconds=round(time.perf_counter() - started, 3),
        device=made.device if made else "cpu",
        carried=files_move.carried,
        head=history.head(),
        notes=notes,
    )
