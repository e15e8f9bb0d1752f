"""`digest`: the digest of weights, without writing them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona.history.history import History
from persona.history.planning import plan_of
from persona.history.query_results import DigestResult

if TYPE_CHECKING:
    pass
from persona.history.computing import RunOptions, chosen_recipe, notes_of


def digest(history: History, rev: str | None, options: RunOptions) -> DigestResult:
    """See `Repository.digest`."""
    from persona.merge.run.materialise import materialise

    place = options.place
    told: list[str] = []
    revision, recipe = chosen_recipe(history, rev, told)
    made = materialise(
        plan_of(history, recipe),
        threads=options.threads,
        memory=options.memory,
        progress=options.progress,
        place=place,
    )
    return DigestResult(revision, made.weights, made.device, (*told, *notes_of(made)))
