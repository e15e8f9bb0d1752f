"""`persona fsck`."""

from __future__ import annotations

import click

from persona.cli import render
from persona.cli.command import declare
from persona.cli.invocation import Invocation
from persona.errors import IntegrityError


@declare("fsck", example="$ persona fsck --full")
@click.option("--full", is_flag=True, help="Also compute every id again from its content.")
@click.pass_obj
def command(call: Invocation, full: bool) -> int:
    """Check that everything stored is whole.

    Verifies every record, ref and reflog, and that everything they name exists. Exits with 5 if something is
    damaged or missing.
    """
    with call.repository() as repo, call.progress() as progress:
        result = repo.fsck(full=full, progress=progress)
    call.answer(result, render.fsck_lines(result))
    return 0 if result.ok else IntegrityError.exit_code
