"""`persona reset`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.rendering import Shown

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository


@declare(
    "reset",
    example="$ persona reset --hard HEAD~1\n$ persona reset --soft HEAD~2 && persona commit -m 'both in one'",
)
@click.argument("rev", default="HEAD", metavar="[REV]", shell_complete=revisions)
@click.option("--soft", "mode", flag_value="soft", help="Move the branch; the work tree does not change.")
@click.option(
    "--mixed",
    "mode",
    flag_value="mixed",
    default=True,
    help="Move the branch; files that `add` tracked become untracked (default).",
)
@click.option(
    "--hard",
    "mode",
    flag_value="hard",
    help="Move the branch, and put the text files of REV in place; uncommitted edits are lost.",
)
def command(call: Invocation, repo: Repository, rev: str, mode: Literal["soft", "mixed", "hard"]) -> Shown:
    """Move the branch to another commit.

    Moves the current branch, or a detached HEAD, to REV. It computes no weights; `persona checkout` does. The
    reflog records where the branch was before.
    """
    result = repo.reset(rev, mode)
    entry = repo["HEAD"]
    lines = [f"HEAD is now at {render.short(entry.id)} {render.printable(entry.subject)}"]
    if mode == "hard" and result.weights.state not in ("clean", "absent"):
        lines += render.weights_lines(result.weights, call.seen_from_here(repo)("."))
    return Shown(result, lines)
