"""`persona reflog`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.completions import moved_refs
from persona.cli.rendering import Shown

if TYPE_CHECKING:
    from persona.repository import Repository


@declare("reflog", pages=True, example="$ persona reflog\n$ persona reset --hard 'HEAD@{2}'")
@click.argument("ref", default="HEAD", metavar="[BRANCH]", shell_complete=moved_refs)
@click.option("-n", "--max-count", metavar="N", type=click.IntRange(min=0), help="Show at most N moves.")
def command(repo: Repository, ref: str, max_count: int | None) -> Shown:
    """Show where a branch or HEAD has been.

    Every commit, checkout, switch and reset adds a line. The newest line comes first. If a branch has lost a
    commit, you find it here.
    """
    entries = repo.reflog(ref)[:max_count]
    return Shown(entries, render.reflog_lines(entries))
