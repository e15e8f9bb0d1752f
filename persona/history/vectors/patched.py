"""A sparse patch as the checkpoint that it leads to."""

from __future__ import annotations

from persona.cores import thread_count
from persona.errors import Blank, Call, Keyword, Note, Refused
from persona.history.history import History
from persona.history.options import ImportOptions
from persona.history.planning import plan_of
from persona.history.vectors.trained_from import has_keys_of, unlike
from persona.merge.memory import budget_of
from persona.merge.plan import Plan
from persona.merge.run.merger import tensor_bits
from persona.objects.ids import abbreviate, is_id
from persona.objects.recipe import Recipe
from persona.objects.rules import Rules
from persona.weights import patches
from persona.weights.adapters import Adapter
from persona.weights.checkpoint import Checkpoint


def whole(
    history: History, base: str, checkpoint: Checkpoint, onto: Plan | None, options: ImportOptions
) -> Checkpoint:
    """A checkpoint, or the weights of the base, or of the plan `onto`, as a sparse patch changes them."""
    if not patches.is_patch(checkpoint, (history.base(base) if onto is None else onto.base).spec):
        return checkpoint
    before = onto if onto is not None else plan_of(history, Recipe.of(base, (), Rules.of()))
    budget = budget_of(before, list(before.tensors), thread_count(options["threads"]), history.memory())
    own = before.base
    return patches.Patched(checkpoint, own.spec, own.chunk, tensor_bits(before, budget), own.tied)


def of_start(
    history: History, recipe: Recipe, checkpoint: Checkpoint | Adapter, onto: Plan | None
) -> list[Note]:
    """The sentences on the revision that a sparse patch says that it was made from.

    Raises `Refused` if it is not the base, or the revision of the plan `onto`, in the tensors of the patch.
    """
    if not isinstance(checkpoint, Checkpoint):
        return []
    start = next((shard.metadata.get(patches.FROM) for shard in checkpoint.shards), None)
    if start is None or not is_id(start):
        return []
    before = onto if onto is not None else plan_of(history, Recipe.of(recipe.base, (), Rules.of()))
    if not patches.is_patch(checkpoint, before.base.spec):
        return []
    rev, weights = abbreviate(start), "the base" if onto is None else "the revision that was given"
    if history.store.objects.kind_of(start) != "commit":
        said = f"the patch was made from commit {rev}, which is not here: it was taken as made from {weights}"
        hint = (Keyword(onto=Blank("REV")), " says from which revision it was made") if onto is None else None
        return [Note(said, hint)]
    made_from = plan_of(history, history.recipe_of(start))
    names = {name.removesuffix(patches.INDICES).removesuffix(patches.VALUES) for name in checkpoint.tensors}
    if has_keys_of(made_from, before, names & made_from.by_name.keys()):
        return [] if onto is not None else unlike(history, recipe, made_from, rev)
    said = f"the patch was made from the weights of {rev}, not from those of {weights}"
    if history.base(made_from.recipe.base).digest == history.base(recipe.base).digest:
        raise Refused(
            f"{checkpoint.path}: {said}", hint=(Keyword(onto=rev), " imports it as made from there")
        )
    there = ("import it where the recipe has the base of that commit: ", Call("switch", rev, detach=True))
    raise Refused(f"{checkpoint.path}: {said}", hint=there)
