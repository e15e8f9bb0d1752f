"""`persona cherry-pick`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from persona.cli import sequencing
from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.rendering import Shown

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository


@declare(
    "cherry-pick",
    works=True,
    example="$ persona cherry-pick warm             # the last commit of a branch\n"
    "$ persona cherry-pick v1..warm         # every commit since a tag",
)
@click.argument("revs", nargs=-1, metavar="[REV | A..B]…", shell_complete=revisions)
@click.option("-x", "origin", is_flag=True, help="Name the old commit in the new message.")
@click.option(
    "-n", "--no-commit", is_flag=True, help="Edit recipe.toml and the text files, but commit nothing."
)
@sequencing.edit_options
@sequencing.mainline_option("Pick a merge: its change against its Nth parent.")
@sequencing.strategy_option
@sequencing.stop_options
def command(
    call: Invocation, repo: Repository, revs: tuple[str, ...], edit: bool, no_edit: bool, **options: Any
) -> Shown:
    """Make the changes of commits again, each in a new commit.

    If this branch has changed the same value as the commit, each to another one, cherry-pick writes both into
    recipe.toml as comments and stops: edit the value, delete the comments, and run persona cherry-pick
    --continue. --skip leaves the commit out, --abort goes back.
    """
    options["edit"] = sequencing.editor(call, repo, edit, "nothing was picked")
    return sequencing.shown(repo.cherry_pick(*revs, **options), call, repo)
