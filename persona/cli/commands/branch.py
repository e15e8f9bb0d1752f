"""`persona branch`."""

from __future__ import annotations

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.completions import branch_or_start
from persona.cli.invocation import Invocation
from persona.errors import IntegrityError, UsageError
from persona.history.results import Head


@declare(
    "branch",
    pages=True,
    example="$ persona branch warm HEAD~2\n$ persona branch -v\n$ persona branch -d warm",
)
@click.argument("names", nargs=-1, metavar="[NAME [START] | OLD NEW]", shell_complete=branch_or_start)
@click.option("-d", "--delete", is_flag=True, help="Delete branches whose commits HEAD has in its history.")
@click.option("-D", "delete_force", is_flag=True, help="Delete branches, also if HEAD lacks their commits.")
@click.option("-m", "--move", is_flag=True, help="Rename a branch, or the current one.")
@click.option("-M", "move_force", is_flag=True, help="Rename a branch, also if NEW exists already.")
@click.option("-f", "--force", is_flag=True, help="Move NAME if it exists already.")
@click.option("-v", "--verbose", "verbose", is_flag=True, help="Show each branch's commit.")
@click.option("--show-current", is_flag=True, help="Print only the name of the current branch.")
@click.pass_obj
def command(
    call: Invocation,
    names: tuple[str, ...],
    delete: bool,
    delete_force: bool,
    move: bool,
    move_force: bool,
    force: bool,
    verbose: bool,
    show_current: bool,
) -> None:
    """List, make, rename and delete branches.

    Without NAME, branch lists the branches; a star marks the current one. With NAME, it makes a branch at
    HEAD or at START. To go there, use `persona switch`.
    """
    if delete or delete_force:
        _delete(call, names, delete_force or force)
    elif move or move_force:
        _rename(call, names, move_force or force)
    elif names:
        _create(call, names, force)
    else:
        with call.repository() as repo:
            if show_current:
                current = repo.head().branch
                call.answer({"branch": current}, [current] if current else [])
                return
            branches, head = list(repo.branches.values()), Head(None, None)
            try:
                head = repo.head()
            except IntegrityError as error:  # a user needs the list to find a way out
                call.remarks([error.note])
            call.answer(branches, render.branch_lines(branches, head, verbose))


def _create(call: Invocation, names: tuple[str, ...], force: bool) -> None:
    if len(names) > 2:
        raise UsageError("name one branch and where it starts: `persona branch NAME [START]`")
    with call.repository() as repo:
        made = repo.branches.create(*names, force=force)
    call.report(made, [])


def _delete(call: Invocation, names: tuple[str, ...], force: bool) -> None:
    if not names:
        raise UsageError("name the branches to delete")
    with call.repository() as repo:
        gone = repo.branches.delete(*names, force=force)
    call.report(
        {"deleted": gone}, [f"Deleted branch {name} (was {render.short(id)})." for name, id in gone.items()]
    )


def _rename(call: Invocation, names: tuple[str, ...], force: bool) -> None:
    if not 1 <= len(names) <= 2:
        raise UsageError("give the new name, or the old and the new one: `persona branch -m [OLD] NEW`")
    with call.repository() as repo:
        old, new = names if len(names) == 2 else (None, names[0])
        old = repo.branches.rename(old, new, force=force)
    call.report({"from": old, "to": new}, [])
