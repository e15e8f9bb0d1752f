"""`persona reflog`."""

from __future__ import annotations

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.completions import moved_refs
from persona.cli.invocation import Invocation


@declare("reflog", pages=True, example="$ persona reflog\n$ persona reset --hard 'HEAD@{2}'")
@click.argument("ref", default="HEAD", metavar="[BRANCH]", shell_complete=moved_refs)
@click.option("-n", "--max-count", metavar="N", type=click.IntRange(min=0), help="Show at most N moves.")
@click.pass_obj
def command(call: Invocation, ref: str, max_count: int | None) -> None:
    """Show where a branch or HEAD has been.

    Every commit, checkout, switch and reset adds a line. The newest line comes first. If a branch has lost a
    commit, you find it here.
    """
    with call.repository() as repo:
        entries = repo.reflog(ref)[:max_count]
    call.answer(entries, render.reflog_lines(entries))
