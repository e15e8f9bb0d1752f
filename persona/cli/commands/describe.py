"""`persona describe`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.options import takes
from persona.cli.rendering import Shown
from persona.history.options import DescribeOptions

if TYPE_CHECKING:
    from persona.repository import Repository


@declare(
    "describe",
    example="$ persona describe --dirty\n$ persona describe --tags --abbrev 0 HEAD~2\n"
    "$ persona describe --match 'v*' --long",
)
@click.argument("rev", required=False, shell_complete=revisions)
@takes(DescribeOptions)
def command(repo: Repository, rev: str | None, **options: Unpack[DescribeOptions]) -> Shown:
    """Name a commit by the nearest tag.

    Prints the tag if REV has one. Otherwise it prints TAG-N-gID: the tag with the fewest commits since, the
    number of these commits, and the first digits of the id. Uses annotated tags, the ones with a message.
    Without REV, it names HEAD.
    """
    found = repo.describe(rev, **options)
    return Shown(found, found.name)
