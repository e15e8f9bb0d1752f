"""`persona rev-parse`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.rendering import Shown

if TYPE_CHECKING:
    from persona.repository import Repository


@declare("rev-parse", example="$ persona rev-parse 'main@{yesterday}'")
@click.argument("rev", shell_complete=revisions)
@click.option("--short", is_flag=True, help="Print the short id.")
def command(repo: Repository, rev: str, short: bool) -> Shown:
    """Print the full id of a revision.

    REV is HEAD, @, a branch, a tag, or the first digits of an id, at least four. ~n, ^n, @{n} and @{date} may
    follow. REV is also - or :/text.
    """
    id = repo.resolve(rev)
    return Shown({"id": id}, render.short(id) if short else id)
