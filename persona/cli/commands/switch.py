"""`persona switch`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.completions import branch_or_revision
from persona.cli.rendering import Shown
from persona.errors import UsageError
from persona.history.results import Head

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository


@declare(
    "switch", example="$ persona switch -c warm\n$ persona switch -             # back to the branch before"
)
@click.argument("target", required=False, metavar="[BRANCH]", shell_complete=branch_or_revision)
@click.option(
    "-c", "--create", metavar="NEW", help="Make the branch NEW at BRANCH (default: HEAD), and switch to it."
)
@click.option(
    "-C",
    "--force-create",
    metavar="NEW",
    shell_complete=branch_or_revision,
    help="As -c, and move the branch NEW to BRANCH if it exists.",
)
@click.option("-d", "--detach", is_flag=True, help="Go to a commit; HEAD is then on no branch.")
@click.option("-f", "--force", is_flag=True, help="Discard uncommitted edits.")
def command(
    call: Invocation,
    repo: Repository,
    target: str | None,
    create: str | None,
    force_create: str | None,
    detach: bool,
    force: bool,
) -> Shown:
    """Go to another branch without computing weights.

    Moves HEAD and the text files, and tells which revision the weights in the work tree belong to. To compute
    the weights of the new branch, use `persona checkout`.
    """
    if target is None and create is None and force_create is None and not detach:
        raise UsageError(
            "give the branch to switch to: a name, - for the previous branch, or -c NEW for a new one"
        )
    there = force_create is not None and force_create in repo.branches
    options = {"create": create, "force_create": force_create}
    result = repo.switch(target, detach=detach, force=force, **options)
    subject = repo["HEAD"].subject if result.branch is None and not call.json else None
    here = Head(result.branch, result.id)
    path = call.seen_from_here(repo)
    lines = list(render.carried_lines(result.carried, path))
    made = (create is not None or force_create is not None) and not there
    lines += render.moved_lines(here, subject, before=result.before, made=made, reset=there)
    if result.weights.state not in ("clean", "absent"):
        lines += render.weights_lines(result.weights, path("."))
    return Shown(result, lines)
