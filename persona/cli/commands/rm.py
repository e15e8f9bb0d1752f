"""`persona rm`."""

from __future__ import annotations

import click

from persona.cli.command import declare
from persona.cli.invocation import Invocation
from persona.cli.offers import vectors


@declare("rm", example='$ persona rm suggesting && persona commit -m "suggest as before"')
@click.argument("names", nargs=-1, required=True, metavar="NAME…", shell_complete=vectors)
@click.pass_obj
def command(call: Invocation, names: tuple[str, ...]) -> None:
    """Drop a vector from the recipe.

    Edits recipe.toml; the vector itself stays in history, and an earlier commit still has it.
    """
    with call.repository() as repo:
        repo.remove_term(*names)
    call.report({"removed": names}, [f"rm '{name}'" for name in names])
