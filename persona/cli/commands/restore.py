"""`persona restore`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from persona.cli.command import declare
from persona.cli.completions import files, revisions
from persona.cli.invocation import Invocation

if TYPE_CHECKING:
    from persona.history.act_results import Restored
    from persona.repository import Repository


@declare(
    "restore", example="$ persona restore recipe.toml\n$ persona restore --source HEAD~2 chat_template.jinja"
)
@click.argument("paths", nargs=-1, required=True, metavar="FILE…", shell_complete=files)
@click.option(
    "-s",
    "--source",
    metavar="REV",
    shell_complete=revisions,
    help="Take the files from REV.",
)
@click.option("--ours", is_flag=True, help="Of files with a conflict: take your side as a whole.")
@click.option("--theirs", is_flag=True, help="Of files with a conflict: take the other side as a whole.")
@click.option("-m", "--merge", is_flag=True, help="Of files with a conflict: write the conflict again.")
def command(
    call: Invocation, repo: Repository, paths: tuple[str, ...], source: str | None, **sides: bool
) -> Restored:
    """Put text files back as they were committed.

    Overwrites recipe.toml or another tracked text file with its text in HEAD, or in another revision. `.`
    stands for all files. While a merge waits, a file without a conflict becomes what the merge has made of
    it.
    """
    return repo.restore(call.tracked(repo, paths), source, **sides)
