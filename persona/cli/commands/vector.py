"""`persona vector`."""

from __future__ import annotations

from typing import Unpack

import click

from persona.cli import render
from persona.cli.command import Command, CommandGroup
from persona.cli.completions import all_vectors, kept_vectors
from persona.cli.invocation import Invocation
from persona.cli.options import plot_option, plot_path, takes
from persona.history.options import WorkOptions


@click.group("vector", cls=CommandGroup, example="$ persona vector ls\n$ persona vector show listening")
def command() -> None:
    """List, show and forget vectors.

    A vector is the change that one training run made to its base, stored without loss.
    """


@command.command("ls", cls=Command, example="$ persona vector ls --json")
@click.pass_obj
def ls(call: Invocation) -> None:
    """List the vectors.

    Lists the vectors of recipe.toml first, marked with a star, in canonical order. Vectors that the recipe
    does not name come after them.
    """
    with call.repository() as repo:
        vectors = list(repo.vectors.values())
    call.answer(vectors, render.vector_table(vectors))


@command.command(
    "show",
    cls=Command,
    example="$ persona vector show listening\n$ persona vector show listening --plot listening.svg",
)
@click.argument("name", shell_complete=all_vectors)
@plot_option
@takes(WorkOptions)
@click.pass_obj
def show(call: Invocation, name: str, plot: str | None, **options: Unpack[WorkOptions]) -> None:
    """Show one vector.

    NAME is the name of a vector, or the first digits of its id. For each layer and kind of module, show
    prints how many weights the vector changes and by how much. --plot draws it.
    """
    from persona.cli import heatmap, measures

    place = plot_path(call, plot)
    with call.repository() as repo, call.progress() as progress:
        options["progress"] = progress
        vector = repo.vectors.statistics(name, **options)
    if place is not None:
        heatmap.write(place, f"Vector {vector.info.name}", measures.vector_sheets(vector))
    call.answer(vector, measures.statistics_lines(vector))


@command.command("rm", cls=Command, example="$ persona vector rm old-draft")
@click.argument("names", nargs=-1, required=True, metavar="NAME…", shell_complete=kept_vectors)
@click.pass_obj
def rm(call: Invocation, names: tuple[str, ...]) -> None:
    """Forget kept vectors.

    Removes the names of vectors that recipe.toml does not use. If one cannot be removed, none is. Commits
    that use a vector keep it. To drop a vector from the recipe, use `persona rm`.
    """
    with call.repository() as repo:
        repo.vectors.delete(*names)
    call.report({"removed": names}, [f"rm '{name}'" for name in names])
