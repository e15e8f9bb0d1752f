"""`persona rev-parse`."""

from __future__ import annotations

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.invocation import Invocation
from persona.cli.offers import revisions


@declare("rev-parse", example="$ persona rev-parse 'main@{yesterday}'")
@click.argument("rev", shell_complete=revisions)
@click.option("--short", is_flag=True, help="Print the abbreviated id.")
@click.pass_obj
def command(call: Invocation, rev: str, short: bool) -> None:
    """Print the full id of a revision.

    Understands HEAD, @, branches, tags, ids of four digits or more, ~n, ^n, @{n}, @{date}, - and :/text.
    """
    with call.repository() as repo:
        id = repo.resolve(rev)
    call.answer({"id": id}, render.short(id) if short else id)
