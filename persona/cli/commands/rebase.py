"""`persona rebase`."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from persona.cli import rebasing, sequencing
from persona.cli.command import declare
from persona.cli.completions import files, revisions
from persona.cli.rendering import Shown
from persona.errors import UsageError

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
@click.option(
    "--base",
    metavar="NEWBASE",
    shell_complete=files,
    help="Move the recipe onto another base: a model directory, ORG/NAME, or a base by name.",
)
@click.option("--name", metavar="NAME", help="With --base: name the base. Default: its directory's name.")
@click.option("-m", "--message", metavar="MSG", help="With --base: use MSG as the commit's message.")
@click.option("-i", "--interactive", is_flag=True, help="Edit the list of commits in the editor first.")
@click.option(
    "-x",
    "--exec",
    "commands",
    metavar="CMD",
    multiple=True,
    help="Run CMD in the shell after each new commit.",
)
@click.option(
    "--autosquash/--no-autosquash",
    default=False,
    help="Put commits named 'fixup! …' and 'squash! …' into the commits that they name.",
)
@sequencing.strategy_option
@sequencing.stop_options
@click.option("--edit-todo", is_flag=True, help="Edit the list of the commits that wait in the editor.")
def command(
    call: Invocation,
    repo: Repository,
    upstream: str | None,
    branch: str | None,
    base: str | None,
    name: str | None,
    message: str | None,
    interactive: bool,
    edit_todo: bool,
    **options: Any,
) -> Shown:
    """Make the commits of a branch again on another commit.

    The commits that this branch (or BRANCH) has and UPSTREAM has not are made again on UPSTREAM. At a
    conflict, rebase writes both values into recipe.toml as comments and stops: edit the value, delete the
    comments, and run persona rebase --continue. --skip leaves the commit out, --abort goes back.

    With -x, CMD runs after each commit, in the root of the work tree. If it fails, or leaves edits, rebase
    stops there.

    --base moves the recipe onto another base of the same tensors, in one commit. Every vector keeps its
    changes, rounded once; the largest rounding is printed.
    """
    if base is not None:
        if upstream is not None or interactive or edit_todo or any(options.values()):
            raise UsageError("--base moves the recipe, not commits: give only --name and -m with it")
        place = call.path(base)
        given = place if os.path.lexists(place) else base
        return rebasing.shown(repo.rebase_base(given, name=name, message=message), repo)
    if name is not None or message is not None:
        raise UsageError("--name and -m go with --base")
    if interactive or edit_todo:
        from persona.cli.messages import edit_commit, edit_list

        options["todo"] = partial(edit_list, call, repo)
        options["messages"] = partial(edit_commit, call, repo)
    elif options["autosquash"]:
        from persona.cli.messages import edit_commit

        if call.interactive:
            options["messages"] = partial(edit_commit, call, repo)
    execute = partial(rebasing.execute, call, repo)
    result = repo.rebase(upstream, branch, edit_todo=edit_todo, execute=execute, **options)
    return sequencing.shown(result, call, repo)
