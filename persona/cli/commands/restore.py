"""`persona restore`."""

from __future__ import annotations

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.completions import files, revisions
from persona.cli.invocation import Invocation


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
    help="Take the files from REV.",
)
@click.pass_obj
def command(call: Invocation, files: tuple[str, ...], source: str) -> None:
    """Put text files back as they were committed.

    Overwrites recipe.toml or another tracked text file with its text in HEAD, or in another revision. `.`
    stands for all files.
    """
    with call.repository() as repo:
        paths = repo.restore(call.tracked(repo, files), source)
    call.report({"files": paths}, f"Put back {render.counted(len(paths), 'file')}")
