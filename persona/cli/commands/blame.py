"""`persona blame`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from persona.cli.command import declare
from persona.cli.completions import all_vectors, revisions
from persona.errors import UsageError

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.verbs.blame import Blame
    from persona.repository import Repository


@declare(
    "blame",
    example="$ persona blame\n$ persona blame v1 --vector listening",
    takes_files=True,
    pages=True,
)
@click.argument("rev", required=False, metavar="[REV]", shell_complete=revisions)
@click.option(
    "--vector", metavar="NAME", shell_complete=all_vectors, help="Show only the keys of the vector NAME."
)
def command(
    call: Invocation, repo: Repository, files: tuple[str, ...] | None, rev: str | None, vector: str | None
) -> Blame:
    """Show which commit set each value of the recipe.

    For every vector, blame shows the commit that named it, and the commits that set its weights, alpha,
    density, filter and join; for the recipe, the commits that set its base and merge rules. A key that is
    not set is left out, unless a commit took its value away.

    Without REV, blame shows recipe.toml as it is. A value that HEAD does not have is not committed yet.
    """
    from persona.history.recipes.text import RECIPE_FILE

    if rev == RECIPE_FILE and RECIPE_FILE not in repo:
        rev = None
    with call.files_meant(filter(None, [rev]), "log", "shows the commits that changed {}"):
        if any(name != RECIPE_FILE for name in call.tracked(repo, files or ())):
            raise UsageError(
                f"blame looks at {RECIPE_FILE}; `persona log -p -- FILE` shows who changed a file"
            )
        return repo.blame(rev, vector=vector)
