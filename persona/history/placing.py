"""The weights of a recipe into the work tree, with the text files and HEAD that go with them.

Order: the weights are computed into unpublished files; the text files are put in place, each whole; the
weights are published, whole; HEAD moves; a record says what the weights are. If it is cut short anywhere, the
same command run again finishes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from persona.errors import Keyword
from persona.history.computing import chosen_recipe, compute, layout_of, notes_of
from persona.history.history import History
from persona.history.options import RunOptions
from persona.history.planning import plan_of
from persona.history.recipes.text import RECIPE_FILE
from persona.history.results import CheckoutResult
from persona.history.vectors.growing import without_ties
from persona.history.worktree import in_place, weights
from persona.history.worktree.locked import LockedTree
from persona.history.worktree.move import NO_MOVE, FileMove
from persona.history.worktree.reuse import AlreadyThere, PresentWeights, is_there
from persona.objects.recipe import Recipe
from persona.weights.writer import ModelWriter

if TYPE_CHECKING:
    from persona.merge.devices.choose import DeviceChoice
    from persona.merge.run.materialise import Materialised


def as_it_stands(
    tree: LockedTree, options: RunOptions, device: DeviceChoice | None, started: float
) -> CheckoutResult:
    """The weights of `recipe.toml` as it stands; HEAD does not move.

    Of the text files only config.json may change: its size and its ties follow the recipe.
    """
    history = tree.history
    head = history.head_commit()
    _, recipe = chosen_recipe(history, None)
    same = recipe.key == history.recipe_of(head).key
    revision = head if same else None
    made = place(tree, recipe, revision, NO_MOVE, list, options, device, started)
    if device is None:
        return made
    from persona.history.vectors.model_config import put_right

    return replace(made, notes=(*made.notes, *put_right(tree, recipe)))


def place(
    tree: LockedTree,
    recipe: Recipe,
    revision: str | None,
    files_move: FileMove,
    move: Callable[[], list[str]],
    options: RunOptions,
    device: DeviceChoice | None,
    started: float,
) -> CheckoutResult:
    """Weights, text files and HEAD, in the order of the module's docstring. `device` None: no weights."""
    history = tree.history
    if device is None:
        with tree.moving(files_move):
            notes = [*files_move.notes, *move()]
        return _result(history, None, revision, (), files_move, tuple(notes), started)
    found = weights.look(history, tree)
    if not options["force"]:
        where = RECIPE_FILE if not files_move.paths else "that revision"
        weights.refuse_losing(found, recipe, where, Keyword(force=True))
    plan = plan_of(history, recipe)
    unasked = found.state == "intact" and options["max_shard_size"] is None
    if found.record and unasked and is_there(history, found, recipe, options["progress"], options["threads"]):
        with tree.moving(files_move):
            notes = [*files_move.notes, *move()]
        tensors = weights.tensor_digests(history, found.record) or None
        weights.settle(tree, recipe, revision, found.record.digest, found.files, tensors)
        kept = AlreadyThere(found.record.digest, len(plan.tensors))
        there = tuple(found.files)
        return _result(history, kept, revision, there, files_move, tuple(notes), started)
    with ExitStack() as stack:
        source = stack.enter_context(PresentWeights(history, found.record)) if found.record else None
        layout = layout_of(plan, options)
        keep = source.keep_shards(plan, layout) if source else {}
        writer = stack.enter_context(ModelWriter(history.root, layout, keep=keep))
        made = compute(plan, writer, options, device, source)
        writer.refuse_saved(found.files)
        with tree.moving(files_move):
            weights.expect(tree, recipe, revision, made.weights)
            published = writer.publish(made.tensor_digests, seen=found.files)
            notes = [*files_move.notes, *move()]
    digests = {
        tensor.spec.name: (tensor.key, made.tensor_digests[tensor.spec.name]) for tensor in plan.tensors
    }
    weights.settle(tree, recipe, revision, made.weights, writer.published, digests)
    notes += [
        *notes_of(made),
        *without_ties(history, recipe),
        *in_place.replaced_notes(found, recipe, made.weights),
    ]
    return _result(history, made, revision, tuple(published), files_move, tuple(notes), started)


def _result(
    history: History,
    made: Materialised | AlreadyThere | None,
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
