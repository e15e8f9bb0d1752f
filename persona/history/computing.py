"""The weights of a recipe: which recipe a command means, how it is computed, and the notes about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.options import ComputeOptions, RunOptions
from persona.history.worktree import text_files
from persona.history.worktree.reuse import PresentWeights
from persona.limits import MIB
from persona.objects.recipe import Recipe
from persona.store.refs import NoteList
from persona.weights.shards import ShardLayout, by_layers, plan_shards

if TYPE_CHECKING:
    from persona.merge.devices.choose import DeviceChoice
    from persona.merge.plan import Plan
    from persona.merge.run.materialise import Cast, Materialised, Sink

_SHARDS: Final = 32
_SHARD_BYTES: Final = 128 * MIB
"""A shard holds at most this many bytes, or a 32nd of the weights if that is more (docs/decisions/009)."""


def device_choice(options: ComputeOptions) -> DeviceChoice:
    """Where terms are merged, the CPU unless options say otherwise.

    Raises `UsageError` for an unknown device, `SystemFault` for a missing one.
    """
    from persona.merge.devices.choose import DeviceChoice

    device = options["device"]
    choice = DeviceChoice("cpu" if device is None else device, options["device_memory"])
    choice.check()
    return choice


def chosen_recipe(
    history: History, rev: str | None, notes: NoteList | None = None
) -> tuple[str | None, Recipe]:
    """The commit and recipe of a revision; without one, None and `recipe.toml` as it is."""
    if rev is None:
        return None, text_files.new_recipe(history).recipe
    id = resolve(history, rev, notes)
    return id, history.recipe_of(id)


def layout_of(plan: Plan, options: RunOptions) -> list[ShardLayout]:
    """The files of the work tree's weights.

    Their number follows `max_shard_size`, else the base; a sharded base is cut at its layers.
    """
    base = plan.base
    layout = plan_shards(base.tensors, options["max_shard_size"], shards=base.shards, shard_of=base.shard_of)
    if options["max_shard_size"] is not None:
        return layout
    return by_layers(layout, max(_SHARD_BYTES, sum(shard.nbytes for shard in layout) // _SHARDS))


def compute(
    plan: Plan,
    writer: Sink,
    options: RunOptions,
    device: DeviceChoice,
    source: PresentWeights | None = None,
    cast: Cast | None = None,
) -> Materialised:
    """The weights of a plan into an unpublished writer. `device`: where terms are merged."""
    from persona.merge.run.materialise import materialise

    return materialise(
        plan,
        writer,
        source=source,
        unchanged=source.unchanged if source else {},
        cast=cast,
        threads=options["threads"],
        memory=options["memory"],
        progress=options["progress"],
        allow_nonfinite=options["allow_nonfinite"],
        device=device,
    )


def notes_of(made: Materialised) -> list[str]:
    """NoteList on where weights were computed, and on elements that are not finite and were allowed."""
    return made.notes + [
        f"tensor {name}: {count} elements are not finite" for name, count in made.not_finite.items()
    ]
