"""`persona reset`."""

from __future__ import annotations

from typing import Literal

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.invocation import Invocation


@declare(
    "reset",
    example="$ persona reset --hard HEAD~1\n$ persona reset --soft HEAD~2 && persona commit -m 'both in one'",
)
@click.argument("rev", default="HEAD", metavar="[REV]", shell_complete=revisions)
@click.option("--soft", "mode", flag_value="soft", help="Move the branch and leave the work tree.")
@click.option(
    "--mixed",
    "mode",
    flag_value="mixed",
    default=True,
    help="The same, but files that `add` named become untracked (default).",
)
@click.option(
    "--hard", "mode", flag_value="hard", help="Also put the text files of REV in place; edits are lost."
)
@click.pass_obj
def command(call: Invocation, rev: str, mode: Literal["soft", "mixed", "hard"]) -> None:
    """Move the branch to another commit.

    Moves the current branch, or a detached HEAD, to REV. It computes no weights; `persona checkout` does. The
    reflog records where the branch was before.
    """
    with call.repository() as repo:
        result = repo.reset(rev, mode)
        entry = repo["HEAD"]
    call.remarks(result.notes)
    lines = [f"HEAD is now at {render.short(entry.id)} {render.printable(entry.subject)}"]
    if mode == "hard" and result.weights.state not in ("clean", "absent"):
        lines += render.weights_lines(result.weights)
    call.report(result, lines)
