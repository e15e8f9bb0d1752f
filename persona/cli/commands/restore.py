"""`persona restore`."""

from __future__ import annotations

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.invocation import Invocation
from persona.cli.offers import files, revisions


@declare(
    "restore", example="$ persona restore recipe.toml\n$ persona restore --source HEAD~2 chat_template.jinja"
)
@click.argument("files", nargs=-1, required=True, metavar="FILE…", shell_complete=files)
@click.option(
    "-s",
    "--source",
    metavar="REV",
    shell_complete=revisions,
    default="HEAD",
    help="The revision to take them from.",
)
@click.pass_obj
def command(call: Invocation, files: tuple[str, ...], source: str) -> None:
    """Put text files back as they were committed.

    Overwrites recipe.toml or any tracked text file with what HEAD, or another revision, holds. `.` stands for
    all of them.
    """
    with call.repository() as repo:
        paths = repo.restore(call.tracked(repo, files), source)
    call.report({"files": paths}, f"Put back {render.counted(len(paths), 'file')}")
