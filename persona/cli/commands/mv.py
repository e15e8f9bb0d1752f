"""`persona mv`."""

from __future__ import annotations

import click

from persona.cli.command import declare
from persona.cli.completions import vectors
from persona.cli.invocation import Invocation


@declare("mv", example="$ persona mv listening attentive")
@click.argument("old", shell_complete=vectors)
@click.argument("new")
@click.pass_obj
def command(call: Invocation, old: str, new: str) -> None:
    """Rename a vector in the recipe.

    Edits recipe.toml. A name is a label: the weights do not change.
    """
    with call.repository() as repo:
        repo.recipe.rename(old, new)
    call.report({"from": old, "to": new}, [])
