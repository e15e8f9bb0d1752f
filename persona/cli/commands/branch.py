"""`persona branch`."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.completions import branch_or_start
from persona.cli.reaching import reach_options, reaches
from persona.cli.rendering import Shown
from persona.errors import IntegrityError, UsageError
from persona.history.results import Head

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository


@declare(
    "branch",
    pages=True,
    example="$ persona branch warm HEAD~2\n$ persona branch -v\n$ persona branch -d warm",
)
@click.argument("names", nargs=-1, metavar="[NAME [START] | OLD NEW | GLOB…]", shell_complete=branch_or_start)
@click.option(
    "-d", "--delete", is_flag=True, help="Delete branches whose commits are all in the history of HEAD."
)
@click.option(
    "-D",
    "delete_force",
    is_flag=True,
    help="Delete branches, even if their commits are not in the history of HEAD.",
)
@click.option("-m", "--move", is_flag=True, help="Rename a branch, or the current one.")
@click.option("-M", "move_force", is_flag=True, help="Rename a branch, also if NEW exists already.")
@click.option("-f", "--force", is_flag=True, help="Move NAME if it exists already.")
@click.option("-v", "--verbose", "verbose", is_flag=True, help="Show each branch's commit.")
@click.option("-a", "--all", "all_", is_flag=True, help="No effect: there are no branches of remotes.")
@click.option(
    "-l", "--list", "listed", is_flag=True, help="List only branches that match a GLOB, if one is given."
)
@reach_options
@click.option("--show-current", is_flag=True, help="Print only the name of the current branch.")
def command(
    call: Invocation,
    repo: Repository,
    names: tuple[str, ...],
    delete: bool,
    delete_force: bool,
    move: bool,
    move_force: bool,
    force: bool,
    verbose: bool,
    all_: bool,
    listed: bool,
    show_current: bool,
    **reach: str | None,
) -> Shown:
    """List, make, rename and delete branches.

    Without NAME, branch lists the branches; a star marks the current one. With NAME, it makes a branch at
    HEAD or at START. To go there, use `persona switch`. --list 'warm*' lists only some branches.
    """
    if delete or delete_force:
        return _deleted(repo, names, delete_force or force)
    if move or move_force:
        return _renamed(repo, names, move_force or force)
    filtered = any(rev is not None for rev in reach.values())
    listed = listed or filtered
    if names and all_ and not listed:
        raise UsageError("-a lists branches, and takes no name: `persona branch --list GLOB` takes one")
    if names and not listed:
        return _made(repo, names, force)
    if show_current:
        current = repo.branches.current
        return Shown({"branch": current}, current or ())
    branches, head = list(repo.branches.values()), Head(None, None)
    try:
        head = repo.head()
    except IntegrityError as error:  # a user needs the list to find a way out
        call.remarks([error.note])
    if filtered:
        wanted = reaches(repo, **reach)
        branches = [one for one in branches if wanted(one.id)]
        head = head if head.id is not None and wanted(head.id) else Head(None, None)
    if names:
        branches = [one for one in branches if any(fnmatchcase(one.name, glob) for glob in names)]
        head = Head(None, None)
    return Shown(branches, render.branch_lines(branches, head, verbose))


def _made(repo: Repository, names: tuple[str, ...], force: bool) -> Shown:
    if len(names) > 2:
        raise UsageError(
            "give one branch and the commit where the branch starts: `persona branch NAME [START]`"
        )
    return Shown(repo.branches.create(*names, force=force))


def _deleted(repo: Repository, names: tuple[str, ...], force: bool) -> Shown:
    if not names:
        raise UsageError("give the names of the branches to delete")
    gone = repo.branches.delete(*names, force=force)
    return Shown(gone, [f"Deleted branch {name} (was {render.short(id)})." for name, id in gone.items()])


def _renamed(repo: Repository, names: tuple[str, ...], force: bool) -> Shown:
    if not 1 <= len(names) <= 2:
        raise UsageError("give the new name, or the old and the new one: `persona branch -m [OLD] NEW`")
    old, new = names if len(names) == 2 else (None, names[0])
    return Shown(repo.branches.rename(old, new, force=force))
