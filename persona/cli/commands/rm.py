"""`persona rm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from persona.cli.command import declare
from persona.cli.completions import vectors
from persona.cli.invocation import Invocation
from persona.errors import UnknownName

if TYPE_CHECKING:
    from persona.history.act_results import Removed
    from persona.repository import Repository


@declare("rm", example='$ persona rm suggesting && persona commit -m "suggest as before"')
@click.argument("names", nargs=-1, required=True, metavar="NAME…", shell_complete=vectors)
@click.option(
    "--keep-files", is_flag=True, help="Keep the text files that came with the vector (`add --files`)."
)
def command(call: Invocation, repo: Repository, names: tuple[str, ...], keep_files: bool) -> Removed:
    """Drop a vector from the recipe.

    Edits recipe.toml. The vector stays in history: earlier commits still have it. Text files that came with
    the vector become what they were before, unless you edited them since.
    """
    try:
        return repo.recipe.remove(*names, keep_files=keep_files)
    except UnknownName as error:
        texts = [name for name in names if call.path(name).is_file()]
        if not texts:
            raise
        hint = f"to drop the file {texts[0]}, delete it: the next commit leaves it out"
        raise UnknownName(error.message, hint=hint) from None
