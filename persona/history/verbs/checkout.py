"""`checkout`: HEAD, text files and weights of one revision in the work tree.

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

from persona.errors import Blank, Keyword, UsageError
from persona.history.computing import chosen_recipe, compute, device_choice, layout_of, notes_of
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.options import RunOptions
from persona.history.planning import plan_of
from persona.history.recipes.text import RECIPE_FILE
from persona.history.results import CheckoutResult
from persona.history.worktree import move as moves
from persona.history.worktree import text_files, weights
from persona.history.worktree.changing import changing
from persona.history.worktree.locked import LockedTree
from persona.history.worktree.move import NO_MOVE, FileMove
from persona.history.worktree.reuse import AlreadyThere, PresentWeights, is_there
from persona.objects.commit import Person
from persona.objects.recipe import Recipe
from persona.weights.writer import ModelWriter

if TYPE_CHECKING:
    from persona.merge.run.materialise import Materialised


def checkout(
    history: History,
    rev: str | None,
    branch: str | None,
    mover: Callable[[], Person],
    options: RunOptions,
) -> CheckoutResult:
    """See `Repository.checkout`."""
    started = time.perf_counter()
    if branch is not None and rev is None:
        options = {**options, "weights": False}  # the same commit: edits stay as they are
    if options["weights"]:
        _ = device_choice(options)  # a missing device is refused before anything moves
    if options["dtype"] is not None:
        raise UsageError(
            "the weights of the work tree have the dtypes of the base",
            hint=(Keyword("dtype"), " goes with ", Keyword(out=Blank("OUT"))),
        )
    with changing(history, force=options["force"]) as tree:
        if rev is None and branch is None:
            return _as_it_stands(tree, options, started)
        return _move(tree, rev, branch, mover, options, started)


def _as_it_stands(tree: LockedTree, options: RunOptions, started: float) -> CheckoutResult:
    history = tree.history
    head = history.head_commit()
    _, recipe = chosen_recipe(history, None)
    same = weights.key_of(recipe) == weights.key_of(history.recipe_of(head))
    revision = head if same else None
    return _place(tree, recipe, revision, NO_MOVE, list, options, started)


def _move(
    tree: LockedTree,
    rev: str | None,
    branch: str | None,
    mover: Callable[[], Person],
    options: RunOptions,
    started: float,
) -> CheckoutResult:
    history = tree.history
    told: list[str] = []
    if branch is not None:
        target = moves.new_branch(history, branch, resolve(history, rev or "HEAD", told))
    else:
        assert rev is not None
        target = moves.target_of(history, rev, told)
    files_move = moves.plan_files(history, target.id, force=options["force"])
    before = history.head_or_name()

    def move() -> list[str]:
        return tree.move_head(target, mover(), "checkout", create=branch is not None)

    recipe = history.recipe_of(target.id)
    revision: str | None = target.id
    if options["weights"] and any(edit.path == RECIPE_FILE for edit in files_move.carried):
        edited = text_files.new_recipe(history).recipe
        if weights.key_of(edited) != weights.key_of(recipe):
            recipe, revision = edited, None
    made = _place(tree, recipe, revision, files_move, move, options, started)
    return replace(made, before=before, notes=tuple(dict.fromkeys([*told, *made.notes])))


def _place(
    tree: LockedTree,
    recipe: Recipe,
    revision: str | None,
    files_move: FileMove,
    move: Callable[[], list[str]],
    options: RunOptions,
    started: float,
) -> CheckoutResult:
    """Weights, text files and HEAD, in the order of the module's docstring."""
    history = tree.history
    if not options["weights"]:
        with tree.moving(files_move):
            notes = [*files_move.notes, *move()]
        return _result(history, None, revision, (), files_move, tuple(notes), started)
    found = weights.look(history, tree)
    if not options["force"]:
        where = RECIPE_FILE if not files_move.paths else "that revision"
        weights.refuse_losing(history, found, recipe, where)
    plan = plan_of(history, recipe)
    unasked = found.state == "intact" and options["max_shard_size"] is None
    if found.record and unasked and is_there(history, found, recipe, options["progress"]):
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
        made = compute(plan, writer, options, source)
        writer.refuse_saved(found.files)
        with tree.moving(files_move):
            weights.expect(tree, recipe, revision, made.weights)
            published = writer.publish(made.tensor_digests, seen=found.files)
            notes = [*files_move.notes, *move()]
    digests = {
        tensor.spec.name: (tensor.key, made.tensor_digests[tensor.spec.name]) for tensor in plan.tensors
    }
    weights.settle(tree, recipe, revision, made.weights, writer.published, digests)
    notes += notes_of(made)
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
