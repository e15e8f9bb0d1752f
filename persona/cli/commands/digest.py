"""`persona digest`."""

from __future__ import annotations

import click

from persona.cli.command import declare
from persona.cli.invocation import Invocation
from persona.cli.offers import revisions
from persona.cli.options import threads_option


@declare("digest", example="$ persona digest HEAD~1")
@click.argument("rev", required=False, shell_complete=revisions)
@threads_option
@click.pass_obj
def command(call: Invocation, rev: str | None, threads: int | None) -> None:
    """Print the weights digest of a revision.

    Computes the weights without writing them, of REV or of recipe.toml as it stands. The same recipe has the
    same digest on every machine.
    """
    with call.repository() as repo, call.progress() as progress:
        result = repo.digest(rev, threads=threads, progress=progress)
    call.answer(result, result.weights)
