"""`persona mv`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from persona.cli.command import declare
from persona.cli.completions import vectors

if TYPE_CHECKING:
    from persona.history.act_results import Renamed
    from persona.repository import Repository


@declare("mv", example="$ persona mv listening attentive")
@click.argument("old", shell_complete=vectors)
@click.argument("new")
def command(repo: Repository, old: str, new: str) -> Renamed:
    """Rename a vector in the recipe.

    Edits recipe.toml. A name is a label: the weights do not change.
    """
    return repo.recipe.rename(old, new)
