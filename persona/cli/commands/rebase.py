"""`persona rebase`."""

from __future__ import annotations

from functools import partial
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
    "rebase",
    works=True,
    example="$ persona rebase main                  # this branch's commits, again on main\n"
    "$ persona rebase -i HEAD~3             # reorder, reword, squash the last three",
)
@click.argument("upstream", required=False, shell_complete=revisions)
@click.argument("branch", required=False, shell_complete=revisions)
@click.option("--onto", metavar="NEW", shell_complete=revisions, help="Put the commits on NEW, not UPSTREAM.")
@click.option("-i", "--interactive", is_flag=True, help="Edit the list of commits in the editor first.")
@sequencing.strategy_option
@sequencing.stop_options
def command(
    call: Invocation,
    repo: Repository,
    upstream: str | None,
    branch: str | None,
    interactive: bool,
    **options: Any,
) -> Shown:
    """Make the commits of a branch again on another commit.

    The commits that this branch (or BRANCH) has and UPSTREAM has not are made again on UPSTREAM. At a
    conflict, rebase writes both values into recipe.toml as comments and stops: edit the value, delete the
    comments, and run persona rebase --continue. --skip leaves the commit out, --abort goes back.
    """
    if interactive:
        from persona.cli.messages import edit_commit, edit_list

        options["todo"] = partial(edit_list, call, repo)
        options["messages"] = partial(edit_commit, call, repo)
    return sequencing.shown(repo.rebase(upstream, branch, **options), call, repo)
