"""A sparse patch as the checkpoint that it leads to."""

from __future__ import annotations

from persona.cores import thread_count
from persona.history.history import History
from persona.history.options import ImportOptions
from persona.history.planning import plan_of
from persona.merge.memory import budget_of
from persona.merge.plan import Plan
from persona.merge.run.merger import tensor_bits
from persona.objects.recipe import Recipe
from persona.objects.rules import Rules
from persona.weights import patches
from persona.weights.checkpoint import Checkpoint


def whole(
    history: History, base: str, checkpoint: Checkpoint, onto: Plan | None, options: ImportOptions
) -> Checkpoint:
    """A checkpoint, or the weights of the base, or of the plan `onto`, as a sparse patch changes them."""
    if not patches.is_patch(checkpoint, (history.base(base) if onto is None else onto.base).spec):
        return checkpoint
    before = onto if onto is not None else plan_of(history, Recipe.of(base, (), Rules.of()))
    budget = budget_of(before, list(before.tensors), thread_count(options["threads"]), history.memory())
    return patches.Patched(checkpoint, before.base.spec, before.base.chunk, tensor_bits(before, budget))
