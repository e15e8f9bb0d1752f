"""`digest`: the weights digest of a recipe, without writing weights."""

from __future__ import annotations

from persona.history.computing import chosen_recipe, device_choice, notes_of
from persona.history.history import History
from persona.history.options import ComputeOptions
from persona.history.planning import plan_of
from persona.history.query_results import DigestResult


def digest(history: History, rev: str | None, options: ComputeOptions) -> DigestResult:
    """See `Repository.digest`."""
    from persona.merge.run.materialise import materialise

    device = device_choice(options)
    told: list[str] = []
    revision, recipe = chosen_recipe(history, rev, told)
    made = materialise(
        plan_of(history, recipe),
        threads=options["threads"],
        memory=options["memory"],
        progress=options["progress"],
        device=device,
    )
    return DigestResult(revision, made.weights, made.device, (*told, *notes_of(made)))
