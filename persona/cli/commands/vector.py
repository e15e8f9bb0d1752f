"""`persona vector`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from persona.cli import render
from persona.cli.command import CommandGroup, declare
from persona.cli.completions import all_vectors, kept_vectors
from persona.cli.options import plot_option, plot_path, takes
from persona.cli.rendering import Shown
from persona.history.options import WorkOptions

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.act_results import Removed
    from persona.history.verbs.measure import VectorStatistics
    from persona.repository import Repository


@click.group("vector", cls=CommandGroup, example="$ persona vector ls\n$ persona vector show listening")
def command() -> None:
    """List, show and forget vectors.

    A vector is the change that one training run made to its base, stored without loss.
    """


@declare("ls", group=command, example="$ persona vector ls --json")
def ls(repo: Repository) -> Shown:
    """List the vectors.

    Lists the vectors of recipe.toml first, marked with a star, in canonical order. Vectors that the recipe
    does not name come after them.
    """
    vectors = list(repo.vectors.values())
    return Shown(vectors, render.vector_table(vectors))


@declare(
    "show",
    group=command,
    works=True,
    example="$ persona vector show listening\n$ persona vector show listening --plot listening.svg",
)
@click.argument("name", shell_complete=all_vectors)
@plot_option
@takes(WorkOptions)
def show(
    call: Invocation, repo: Repository, name: str, plot: str | None, **options: Unpack[WorkOptions]
) -> VectorStatistics:
    """Show one vector.

    NAME is the name of a vector, or the first digits of its id. For each layer and kind of module, show
    prints how many weights the vector changes and by how much. --plot draws it.
    """
    from persona.cli import heatmap, measures

    place = plot_path(call, plot)
    vector = repo.vectors.statistics(name, **options)
    if place is not None:
        heatmap.write(place, f"Vector {vector.info.name}", measures.vector_sheets(vector))
    return vector


@declare("rm", group=command, example="$ persona vector rm old-draft")
@click.argument("names", nargs=-1, required=True, metavar="NAME…", shell_complete=kept_vectors)
def rm(repo: Repository, names: tuple[str, ...]) -> Removed:
    """Forget kept vectors.

    Removes the names of vectors that recipe.toml does not use. If one cannot be removed, none is. Commits
    that use a vector keep it. To drop a vector from the recipe, use `persona rm`.
    """
    return repo.vectors.delete(*names)
