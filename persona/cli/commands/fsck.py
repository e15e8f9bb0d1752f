"""`persona fsck`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.rendering import Shown
from persona.errors import IntegrityError

if TYPE_CHECKING:
    from persona.repository import Repository


@declare("fsck", works=True, example="$ persona fsck --full")
@click.option("--full", is_flag=True, help="Also compute every id again from its content.")
def command(repo: Repository, full: bool) -> Shown:
    """Check that everything stored is whole.

    Verifies every record, ref and reflog, and that everything they name exists. Exits with 5 if something is
    damaged or missing.
    """
    result = repo.fsck(full=full)
    return Shown(result, render.fsck_lines(result), 0 if result.ok else IntegrityError.exit_code)
