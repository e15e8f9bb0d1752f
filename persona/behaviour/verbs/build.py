"""`build`: the patterns of the graph become a personality: trained, measured, composed and committed."""

from __future__ import annotations

import math
import time
from typing import Unpack

from persona.behaviour.assessing import MAX_DAMAGE
from persona.behaviour.building import plan as plans
from persona.behaviour.building.outcome import Outcome
from persona.behaviour.building.results import BuildPlan, Built
from persona.errors import InvalidInput
from persona.history.commit_builder import tidy
from persona.history.history import History
from persona.history.options import ComputeOptions
from persona.history.sequencing.state import refuse_second
from persona.history.worktree import text_files
from persona.objects.commit import Signer


def build(
    history: History,
    *keys: str,
    dry_run: bool = False,
    verify: bool = True,
    keep_going: bool = False,
    force: bool = False,
    checkout: bool = True,
    message: str | None = None,
    author: Signer = None,
    max_damage: float = MAX_DAMAGE,
    **options: Unpack[ComputeOptions],
) -> BuildPlan | Built:
    """Makes the personality that the graph describes (docs/behaviour.md, "Building a personality").

    Trains the patterns whose vector is missing or stale, measures each vector that was not measured with the
    probes as they are, puts the vectors into `recipe.toml`, measures the recipe as a whole, commits the work
    tree, and computes the weights. What is up to date is not done again. `keys`: only these patterns, KEY or
    KEY#FACET. `dry_run`: only a `BuildPlan`.

    A pattern that fails, or is inconclusive, ends the build; nothing is committed, and the result is
    `refused`. With `keep_going` the other patterns are built without it, with `force` it is taken. A pattern
    without probes is taken. `verify` False: nothing is measured. `checkout` False: no weights. `message`: of
    the commit, by default one that lists what was done. `max_damage`: as for `verify`.

    A build that was cut short goes on where it was. Raises `InvalidInput` for a graph with problems before
    anything is trained, `UnknownName` if there is nothing to build, and what `train` and `commit` raise.
    """
    started = time.monotonic()
    how = history.in_force(ComputeOptions, options)
    if not (math.isfinite(max_damage) and max_damage > 0):
        raise InvalidInput(f"must be a number above 0, not {max_damage!r:.40}", parameter="max_damage")
    graph = plans.checked_graph(history)
    plan = plans.plan(
        history, graph, keys, limit=max_damage, verify=verify, force=force, keep_going=keep_going
    )
    view = plan.view(checkout=checkout)
    if dry_run:
        return view
    refuse_second(history, "build")
    outcome = Outcome(history, plan, started)
    if plan.refused and not keep_going:
        return outcome.stopped(plan.refused[0])
    if plan.scores is not None and plan.refuses(plan.scores.verdict) and not view.commit:
        return outcome.whole_refused(text_files.recipe(history).recipe, plan.scores)
    if view.nothing_to_do:
        return outcome.ended(None, plan.scores)
    if message is not None:
        tidy(message)
    from persona.behaviour.building.work import Work  # imports torch

    return Work(history, graph, outcome, how, max_damage).run(author, message, checkout)
