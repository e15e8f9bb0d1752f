"""`persona show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from persona.cli import diffs, render
from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.pager import on_terminal
from persona.cli.rendering import Shown

if TYPE_CHECKING:
    from persona.repository import Repository


@declare("show", example="$ persona show HEAD~1", pages=True)
@click.argument("rev", default="HEAD", metavar="[REV]", shell_complete=revisions)
@click.option("--stat", is_flag=True, help="Print a summary of the changes.")
@click.option("--oneline", is_flag=True, help="Print the commit's id and subject on one line.")
def command(repo: Repository, rev: str, stat: bool, oneline: bool) -> Shown:
    """Show one commit.

    Prints its author, date and message, what `verify` measured of it, then what it changed against its first
    parent. With --json, show prints the entry of `log` with a `diff` in it.
    """
    from persona.history.results import as_json

    entry, diff = repo.show(rev)
    refs = on_terminal()
    lines = [render.oneline(entry, refs)] if oneline else [*render.entry_lines(entry, refs), ""]
    if entry.scores is not None and not oneline:
        from persona.cli.verification import scores_lines

        lines += [*scores_lines(entry.scores), ""]
    lines += diffs.stat_lines(diff) if stat else diffs.diff_lines(diff)
    return Shown(as_json(entry) | {"diff": as_json(diff)}, lines)
