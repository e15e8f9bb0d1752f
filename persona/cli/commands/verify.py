"""`persona verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from persona.cli import verification
from persona.cli.command import declare
from persona.cli.completions import directories, revisions, trainables, vectors
from persona.cli.options import takes
from persona.cli.rendering import Shown
from persona.history.options import ComputeOptions

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository


@declare(
    "verify",
    works=True,
    example="$ persona verify                       # recipe.toml as it stands\n"
    "$ persona verify HEAD~1\n"
    "$ persona verify --vector listening    # one vector alone, at α 1\n"
    "$ persona verify --each                # the leakage matrix\n"
    "$ persona verify --probe listening --no-checks",
)
@click.argument("rev", required=False, shell_complete=revisions)
@click.option(
    "--vector",
    "vector",
    metavar="NAME",
    multiple=True,
    shell_complete=vectors,
    help="Measure this vector alone, at α 1. May be repeated.",
)
@click.option("--each", is_flag=True, help="Measure the vector of each pattern alone: the leakage matrix.")
@click.option(
    "--probe",
    "probe",
    metavar="KEY",
    multiple=True,
    shell_complete=trainables,
    help="Use the probes of this pattern alone. May be repeated.",
)
@click.option(
    "--max-damage",
    metavar="R",
    type=float,
    default=1.02,
    help="Largest ratio of the losses on neutral text, model to base. Default: 1.02.",
)
@click.option("--checks/--no-checks", default=True, help="Generate answers for checks (default), or do not.")
@click.option(
    "--tasks",
    metavar="NAME,…",
    help="Also run these tasks of lm-evaluation-harness, on the base and on what is measured.",
)
@click.option(
    "--tasks-dir",
    metavar="DIR",
    type=click.Path(),
    shell_complete=directories,
    help="Look for tasks in DIR as well.",
)
@click.option("--task-limit", metavar="N", type=int, help="Run only the first N items of each task.")
@takes(ComputeOptions)
def command(
    call: Invocation,
    repo: Repository,
    rev: str | None,
    vector: tuple[str, ...],
    each: bool,
    probe: tuple[str, ...],
    max_damage: float,
    checks: bool,
    tasks: str | None,
    tasks_dir: str | None,
    task_limit: int | None,
    **options: Unpack[ComputeOptions],
) -> Shown:
    """Measure what a recipe or a vector does to the model's behaviour.

    Measures REV, or recipe.toml as it stands, against the base. effect: what the recipe does on the probes of
    the patterns whose vectors it holds. spill: what it does on all other probes. damage: what it breaks on
    neutral text. An effect passes if its 95 % interval is above 0 and above the effect of random vectors of
    the same size.

    The exit code is 0 for pass, 1 for fail, and 8 for inconclusive or unverified. Measurements are kept: what
    was measured before takes no time.
    """
    found = repo.verify(
        rev,
        vector=vector,
        each=each,
        probe=probe,
        max_damage=max_damage,
        checks=checks,
        tasks=tuple(filter(None, (tasks or "").split(","))),
        tasks_dir=None if tasks_dir is None else call.path(tasks_dir),
        task_limit=task_limit,
        **options,
    )
    all_scores = found if isinstance(found, tuple) else (found,)
    code = verification.exit_code([scores.verdict for scores in all_scores])
    if len(all_scores) == 1 and not each:
        return Shown(all_scores[0], verification.scores_lines(all_scores[0]), code)
    typed = dict.fromkeys(vector) if not each else {}
    names = [*typed, *([""] * (len(all_scores) - len(typed)))]
    rows = [
        (name or verification.name_of(scores), scores) for name, scores in zip(names, all_scores, strict=True)
    ]
    notes = dict.fromkeys(note for scores in all_scores for note in scores.notes)
    return Shown(all_scores, verification.matrix_lines(rows), code, notes=notes)
