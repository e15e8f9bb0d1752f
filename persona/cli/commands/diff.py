"""`persona diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from persona.cli import diffs
from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.options import changes_options, plot_option, plot_path, takes
from persona.cli.render import short
from persona.cli.rendering import Shown
from persona.errors import UsageError
from persona.history.options import MemoryOptions

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.results import Diff
    from persona.repository import Repository


@declare(
    "diff",
    works=True,
    example="$ persona diff                 # what the next commit would hold\n"
    "$ persona diff HEAD~2 HEAD --stat\n"
    "$ persona diff HEAD~2 HEAD --weights --plot change.png\n"
    "$ persona diff HEAD~2 -- recipe.toml notes\n"
    "$ persona diff v1:notes.md HEAD:notes.md",
    takes_files=True,
    pages=True,
)
@click.argument("words", nargs=-1, metavar="[A [B] | REV:FILE REV:FILE] [FILE]…", shell_complete=revisions)
@changes_options
@click.option("--weights", is_flag=True, help="Also compute and compare the weights, layer by layer.")
@plot_option
@takes(MemoryOptions)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if anything differs.")
def command(
    call: Invocation,
    repo: Repository,
    files: tuple[str, ...] | None,
    words: tuple[str, ...],
    changes: str | None,
    weights: bool,
    plot: str | None,
    exit_code: bool,
    **options: Unpack[MemoryOptions],
) -> Shown:
    """Show what differs between two recipes.

    Without a revision, diff compares HEAD with the work tree. With A, it compares A with the work tree. With
    A B or A..B, it compares A with B. Vectors and merge rules are printed as in recipe.toml, text files as
    unified diffs.

    --weights compares the weights as well. For each layer and kind of module it tells how many weights
    change, by how much, and which vectors pull in opposite directions.

    If `verify` measured both sides, diff also compares their scores.

    REV:FILE REV:FILE compares two files as lines, also recipe.toml.

    If files are named, diff compares only these. Put -- before files that are not there any more. -q prints
    nothing: the exit code is 1 if anything differs.
    """
    place = plot_path(call, plot)
    revs, paths = call.revisions_and_files(repo, words, files)
    if len(revs) > 2:
        raise UsageError(
            f"diff compares two revisions at most, not {len(revs)}; put -- before the names of files"
        )
    if any(":" in rev for rev in revs) and (two := _of_files(call, repo, revs)) is not None:
        if weights or place is not None or paths is not None:
            raise UsageError("REV:FILE compares two files only: leave out --weights, --plot and other files")
        return Shown(
            two, () if call.quiet else diffs.changes(two, changes or "patch"), _code(call, exit_code, two)
        )
    a, b = [*revs, None, None][:2]
    if paths is not None and (weights or place is not None):
        raise UsageError("--weights and --plot compare whole models: leave out the files")
    silent = call.quiet and not call.json
    diff = repo.diff(a, b, paths=paths)
    code = _code(call, exit_code, diff)
    if silent and place is None:
        return Shown(diff, (), code)
    from persona.history.results import as_json

    scores = None if paths is not None or changes in ("none", "names", "status") else repo.diff_scores(a, b)
    value = as_json(diff) | ({} if scores is None else {"scores": as_json(scores)})
    lines = list(diffs.changes(diff, changes or "patch"))
    if scores is not None:
        from persona.cli.verification import diff_lines

        lines += [*([""] if lines else []), *diff_lines(scores)]
    if not weights and place is None:
        return Shown(value, lines, code)
    from persona.cli import heatmap, measures

    measured = repo.diff_weights(a, b, **options)
    if place is not None:
        title = f"{short(diff.from_ or 'nothing')} → {short(diff.to) if diff.to else 'recipe.toml'}"
        heatmap.write(place, f"Weights, {title}", measures.diff_sheets(measured))
    lines += [*([""] if lines else []), *measures.weights_lines(measured, brief=changes == "stat")]
    return Shown(value | {"weights": as_json(measured)}, () if silent else lines, code)


def _of_files(call: Invocation, repo: Repository, words: list[str]) -> Diff | None:
    """The difference of two files that are named as REV:FILE; None if no word names one."""
    from persona.cli.blobs import difference, in_a_commit

    return difference(call, repo, words) if any(map(in_a_commit, words)) else None


def _code(call: Invocation, exit_code: bool, diff: Diff) -> int:
    return 1 if (exit_code or call.quiet) and not diff.empty else 0
