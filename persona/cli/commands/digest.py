"""`persona digest`."""

from __future__ import annotations

from typing import Unpack

import click

from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.invocation import Invocation
from persona.cli.options import takes
from persona.history.options import ComputeOptions


@declare("digest", example="$ persona digest HEAD~1")
@click.argument("rev", required=False, shell_complete=revisions)
@takes(ComputeOptions)
@click.pass_obj
def command(call: Invocation, rev: str | None, **options: Unpack[ComputeOptions]) -> None:
    """Print the weights digest of a revision.

    Computes the weights of REV, or of recipe.toml as it stands, without writing them. The same recipe has the
    same digest on every machine and device.
    """
    with call.repository() as repo, call.progress() as progress:
        options["progress"] = progress
        result = repo.digest(rev, **options)
    call.remarks(result.notes)
    call.answer(result, result.weights)
