"""`persona diff`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from persona.cli import diffs
from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.dashes import files_after_dashes
from persona.cli.invocation import Invocation
from persona.cli.options import plot_option, plot_path, takes
from persona.cli.render import short
from persona.errors import UsageError
from persona.history.options import MemoryOptions

if TYPE_CHECKING:
    from persona.history.results import Diff
    from persona.history.verbs.measure import WeightsDiff


@declare(
    "diff",
    example="$ persona diff                 # what the next commit would hold\n"
    "$ persona diff HEAD~2 HEAD --stat\n"
    "$ persona diff HEAD~2 HEAD --weights --plot change.png\n"
    "$ persona diff HEAD~2 -- recipe.toml notes",
    takes_files=True,
    pages=True,
)
@click.argument("a", required=False, shell_complete=revisions)
@click.argument("b", required=False, shell_complete=revisions)
@click.option("--stat", is_flag=True, help="Print a summary instead.")
@click.option("--weights", is_flag=True, help="Also compute and compare the weights, layer by layer.")
@plot_option
@takes(MemoryOptions)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if anything differs.")
@click.pass_context
def command(
    ctx: click.Context,
    a: str | None,
    b: str | None,
    stat: bool,
    weights: bool,
    plot: str | None,
    exit_code: bool,
    **options: Unpack[MemoryOptions],
) -> int:
    """Show what differs between two recipes.

    Without a revision, diff compares HEAD with the work tree. With A, it compares A with the work tree. With
    A B or A..B, it compares A with B. Vectors and merge rules are printed as in recipe.toml, text files as
    unified diffs.

    --weights compares the weights as well. For each layer and kind of module it tells how many weights
    change, by how much, and which vectors pull in opposite directions.

    Names after -- are files to compare. -q prints nothing: the exit code is 1 if anything differs.
    """
    call: Invocation = ctx.obj
    files = files_after_dashes(ctx)
    place = plot_path(call, plot)
    if files is not None and (weights or place is not None):
        raise UsageError("--weights and --plot compare whole models: leave out the files")
    silent = call.quiet and not call.json
    meant = call.files_meant(filter(None, (a, b)), "diff", "compares {}")
    with call.repository() as repo, meant:
        diff = repo.diff(a, b, paths=None if files is None else call.tracked(repo, files))
        if silent and place is None:
            return 0 if diff.empty else 1
        lines = diffs.stat_lines(diff) if stat else diffs.diff_lines(diff)
        if not weights and place is None:
            call.answer(diff, lines)
        else:
            with call.progress() as progress:
                options["progress"] = progress
                measured = repo.diff_weights(a, b, **options)
            _answer(call, diff, lines, measured, stat, place)
    return 1 if (exit_code or call.quiet) and not diff.empty else 0


def _answer(
    call: Invocation, diff: Diff, lines: Iterable[str], measured: WeightsDiff, stat: bool, place: Path | None
) -> None:
    """The difference of the recipes, then of the weights, and the picture."""
    from persona.cli import heatmap, measures
    from persona.history.results import as_json

    if place is not None:
        title = f"{short(diff.from_ or 'nothing')} → {short(diff.to) if diff.to else 'recipe.toml'}"
        heatmap.write(place, f"Weights, {title}", measures.diff_sheets(measured))
    if call.json:
        call.answer_json(as_json(diff) | {"weights": as_json(measured)})
        return
    if call.quiet:
        return
    above = list(lines)
    shown = measures.weights_lines(measured, brief=stat)
    call.answer(diff, [*above, *([""] if above else []), *shown])
