"""`persona reset`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.rendering import Shown
from persona.errors import Call, UnknownName, listed

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository


@declare(
    "reset",
    takes_files=True,
    example="$ persona reset --hard HEAD~1\n$ persona reset --soft HEAD~2 && persona commit -m 'both in one'",
)
@click.argument("words", nargs=-1, metavar="[REV]", shell_complete=revisions)
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
def command(
    call: Invocation,
    repo: Repository,
    files: tuple[str, ...] | None,
    words: tuple[str, ...],
    mode: Literal["soft", "mixed", "hard"],
) -> Shown:
    """Move the branch to another commit.

    Moves the current branch, or a detached HEAD, to REV. It computes no weights; `persona checkout` does. The
    reflog records where the branch was before.
    """
    named = (*words[1:], *(files or ()))
    if named:
        raise UnknownName(
            f"reset moves the branch, and puts no file back: {listed(named)}",
            hint=(Call("restore", named[0]), " puts the text of HEAD back"),
        )
    rev = words[0] if words else "HEAD"
    with call.files_meant([rev], "restore", "puts the text of {} in HEAD back"):
        repo.resolve(rev)
    result = repo.reset(rev, mode)
    entry = repo["HEAD"]
    lines = [f"HEAD is now at {render.short(entry.id)} {render.printable(entry.subject)}"]
    if mode == "hard" and result.weights.state not in ("clean", "absent"):
        lines += render.weights_lines(result.weights, call.seen_from_here(repo)("."))
    return Shown(result, lines)
