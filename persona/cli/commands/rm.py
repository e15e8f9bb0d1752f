"""`persona rm`."""

from __future__ import annotations

import click

from persona.cli.command import declare
from persona.cli.completions import vectors
from persona.cli.invocation import Invocation
from persona.errors import UnknownName


@declare("rm", example='$ persona rm suggesting && persona commit -m "suggest as before"')
@click.argument("names", nargs=-1, required=True, metavar="NAME…", shell_complete=vectors)
@click.pass_obj
def command(call: Invocation, names: tuple[str, ...]) -> None:
    """Drop a vector from the recipe.

    Edits recipe.toml. The vector stays in history: earlier commits still have it.
    """
    with call.repository() as repo:
        try:
            repo.recipe.remove(*names)
        except UnknownName as error:
            texts = [name for name in names if call.path(name).is_file()]
            if not texts:
                raise
            raise UnknownName(
                f"{error.message}; to drop the file {texts[0]}, delete it: the next commit leaves it out"
            ) from None
    call.report({"removed": names}, [f"rm '{name}'" for name in names])
