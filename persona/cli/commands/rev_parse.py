"""`persona rev-parse`."""

from __future__ import annotations

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.invocation import Invocation


@declare("rev-parse", example="$ persona rev-parse 'main@{yesterday}'")
@click.argument("rev", shell_complete=revisions)
@click.option("--short", is_flag=True, help="Print the short id.")
@click.pass_obj
def command(call: Invocation, rev: str, short: bool) -> None:
    """Print the full id of a revision.

    REV is HEAD, @, a branch, a tag, or the first digits of an id, at least four. ~n, ^n, @{n} and @{date} may
    follow. REV is also - or :/text.
    """
    with call.repository() as repo:
        id = repo.resolve(rev)
    call.answer({"id": id}, render.short(id) if short else id)
