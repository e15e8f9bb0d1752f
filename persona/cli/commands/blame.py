"""`persona blame`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from persona.cli.command import declare
from persona.cli.completions import all_vectors, revisions
from persona.cli.options import takes
from persona.errors import UsageError
from persona.history.options import MemoryOptions

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.verbs.blame import Blame
    from persona.history.verbs.blame_weights import WeightsBlame
    from persona.repository import Repository


@declare(
    "blame",
    works=True,
    example="$ persona blame\n$ persona blame v1 --vector listening\n"
    "$ persona blame --weights model.layers.3.mlp.down_proj.weight",
    takes_files=True,
    pages=True,
)
@click.argument("rev", required=False, metavar="[REV]", shell_complete=revisions)
@click.option(
    "--vector", metavar="NAME", shell_complete=all_vectors, help="Show only the keys of the vector NAME."
)
@click.option("--weights", metavar="TENSOR", help="Show which vectors decide the weights of TENSOR.")
@takes(MemoryOptions)
def command(
    call: Invocation,
    repo: Repository,
    files: tuple[str, ...] | None,
    rev: str | None,
    vector: str | None,
    weights: str | None,
    **options: Unpack[MemoryOptions],
) -> Blame | WeightsBlame:
    """Show which commit set each value of the recipe.

    For every vector, blame shows the commit that named it, and the commits that set its weights, alpha,
    density, filter and join; for the recipe, the commits that set its base and merge rules. A key that is
    not set is left out, unless a commit took its value away.

    Without REV, blame shows recipe.toml as it is. A value that HEAD does not have is not committed yet.

    --weights computes one tensor, and shows for each vector how many of its weights the vector changes,
    joins and decides, and where the other vectors outvote it.
    """
    from persona.history.recipes.text import RECIPE_FILE

    if rev == RECIPE_FILE and RECIPE_FILE not in repo:
        rev = None
    with call.files_meant(filter(None, [rev]), "log", "shows the commits that changed {}"):
        names = [name for name in call.tracked(repo, files or ()) if name != RECIPE_FILE]
        if vector is None and len(names) == 1 and names[0] in repo[rev or "HEAD"].recipe.vectors:
            vector = names.pop()
        if names:
            raise UsageError(
                f"blame looks at {RECIPE_FILE} only; `persona log -p -- FILE` shows each change of a file"
            )
        if weights is None:
            return repo.blame(rev, vector=vector)
        if vector is not None:
            raise UsageError("--weights shows all vectors of a tensor: leave out --vector")
        return repo.blame_weights(weights, rev, **options)
