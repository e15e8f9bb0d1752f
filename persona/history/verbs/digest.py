"""`digest`: the weights digest of a recipe, without writing weights."""

from __future__ import annotations

from typing import Unpack

from persona.history.computing import chosen_recipe, device_choice, notes_of
from persona.history.history import History
from persona.history.options import ComputeOptions
from persona.history.planning import plan_of
from persona.history.query_results import DigestResult


def digest(history: History, rev: str | None = None, **options: Unpack[ComputeOptions]) -> DigestResult:
    """The weights digest of a revision, or of `recipe.toml` as it stands; writes no files.

    The digest is the same on every device. Options as for `checkout`.
    """
    from persona.merge.run.materialise import materialise

    how = history.in_force(ComputeOptions, options)
    device = device_choice(how)
    notes: list[str] = []
    revision, recipe = chosen_recipe(history, rev, notes)
    made = materialise(
        plan_of(history, recipe),
        threads=how["threads"],
        memory=how["memory"],
        progress=how["progress"],
        device=device,
    )
    return DigestResult(revision, made.weights, made.device, (*notes, *notes_of(made)))
