"""`persona digest`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.options import takes
from persona.history.options import ComputeOptions

if TYPE_CHECKING:
    from persona.history.query_results import DigestResult
    from persona.repository import Repository


@declare("digest", works=True, example="$ persona digest HEAD~1")
@click.argument("rev", required=False, shell_complete=revisions)
@takes(ComputeOptions)
def command(repo: Repository, rev: str | None, **options: Unpack[ComputeOptions]) -> DigestResult:
    """Print the weights digest of a revision.

    Computes the weights of REV, or of recipe.toml as it stands, without writing them. The same recipe has the
    same digest on every machine and device.
    """
    return repo.digest(rev, **options)
