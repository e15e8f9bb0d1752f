"""`checkout`: HEAD, text files and weights of a revision in the work tree, or a model directory elsewhere."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from persona.errors import Blank, Keyword, UsageError
from persona.history import placing
from persona.history.arguments import AnyPath
from persona.history.computing import device_choice
from persona.history.exporting import export
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.options import RunOptions
from persona.history.recipes.text import RECIPE_FILE
from persona.history.results import CheckoutResult
from persona.history.vectors.trained_from import left_behind_at
from persona.history.worktree import move as moves
from persona.history.worktree import text_files
from persona.history.worktree.changing import changing
from persona.history.worktree.locked import LockedTree
from persona.history.worktree.sequence import is_sequence_under_way, is_unmerged

if TYPE_CHECKING:
    from persona.merge.devices.choose import DeviceChoice


def checkout(
    history: History,
    rev: str | None = None,
    *,
    branch: str | None = None,
    out: AnyPath | None = None,
    **options: Unpack[RunOptions],
) -> CheckoutResult:
    """Moves HEAD to `rev` with its files and weights.

    A branch attaches HEAD, any other revision detaches it, "-" goes back. Without `rev`: the weights of
    `recipe.toml` as it is. `branch` makes that branch at `rev` and attaches to it. `out`: a model directory
    elsewhere; HEAD stays.

    `device` merges the vectors: "cpu" (the default), "cuda", or "auto" for CUDA if possible, with a note if
    not. The bytes are the same on all devices. `device_memory`: bytes that chunks may take on each GPU.
    `memory`: bytes that decoded chunks may take together. `max_shard_size` in bytes. `dtype`: "bfloat16",
    "float16" or "float32" for the written floats, only with `out`. `weights=False`: only text files. `force`
    overwrites edited weights, and edits that are not committed.
    """
    started = time.perf_counter()
    how = history.in_force(RunOptions, options)
    if out is not None:
        return export(history, rev, branch, Path(out), how)
    if branch is not None and rev is None:
        how = {**how, "weights": False}  # the same commit: edits stay as they are
    device = device_choice(how) if how["weights"] else None  # a missing one is refused before anything moves
    if how["dtype"] is not None:
        raise UsageError(
            "the weights of the work tree have the dtypes of the base",
            hint=(Keyword("dtype"), " goes with ", Keyword(out=Blank("OUT"))),
        )
    with changing(history, force=how["force"]) as tree:
        if rev is None and branch is None:
            return placing.as_it_stands(tree, how, device, started)
        return _move(tree, rev, branch, how, device, started)


def _move(
    tree: LockedTree,
    rev: str | None,
    branch: str | None,
    options: RunOptions,
    device: DeviceChoice | None,
    started: float,
) -> CheckoutResult:
    history = tree.history
    if is_sequence_under_way(history) or is_unmerged(history):
        from persona.history.sequencing.state import refuse_second

        refuse_second(history, "move HEAD")
    notes: list[str] = []
    if branch is not None:
        target = moves.new_branch(history, branch, resolve(history, rev or "HEAD", notes))
    else:
        assert rev is not None
        target = moves.target_of(history, rev, notes)
    files_move = moves.plan_files(history, target.id, force=options["force"])
    before = history.head_or_name()

    def move() -> list[str]:
        start = (rev or "HEAD") if branch is not None else None
        return tree.move_head(target, history.committer(), typed=rev, created=start)

    recipe = history.recipe_of(target.id)
    revision: str | None = target.id
    if device is not None and any(edit.path == RECIPE_FILE for edit in files_move.carried):
        edited = text_files.new_recipe(history).recipe
        if edited.key != recipe.key:
            recipe, revision = edited, None
    made = placing.place(tree, recipe, revision, files_move, move, options, device, started)
    lost = left_behind_at(history, target.id, before.id)
    return replace(made, before=before, notes=tuple(dict.fromkeys([*notes, *made.notes, *lost])))
