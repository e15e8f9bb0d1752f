"""`persona sweep`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from persona.behaviour.options import SweepOptions
from persona.cli.command import declare
from persona.cli.completions import all_vectors, files
from persona.cli.options import plot_path, takes
from persona.cli.rendering import Shown

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository


@declare(
    "sweep",
    works=True,
    example="$ persona sweep listening --alpha -1:1.5:0.25\n"
    "$ persona sweep listening --alpha 0:1.5:0.5 --preset ties,linear --plot listening.png\n"
    "$ persona sweep waffle --alpha -1:0:0.25 --join vote,add --probe pirate",
)
@click.argument("name", metavar="NAME", shell_complete=all_vectors)
@click.option(
    "--alpha",
    metavar="A,…",
    required=True,
    help="Measure at each of these values: numbers such as 0,0.5,1, and ranges FROM:TO:STEP.",
)
@takes(SweepOptions)
@click.option(
    "--plot",
    metavar="FILE",
    shell_complete=files,
    help="Also draw effect, spill and damage against alpha into FILE, a .png or .svg.",
)
def command(
    call: Invocation,
    repo: Repository,
    name: str,
    alpha: str,
    plot: str | None,
    **options: Unpack[SweepOptions],
) -> Shown:
    """Measure a vector at several strengths, and find the best one.

    Measures recipe.toml as it stands, with vector NAME at each alpha, against the base. effect: on the probes
    of NAME's pattern. spill: what NAME moves on all other probes. damage: on neutral text. Says up to which
    alpha the effect rises, and which alpha has the largest effect in the wanted direction without too much
    damage.

    Edits and commits nothing. Measurements are kept: what was measured before takes no time.
    """
    place = plot_path(call, plot)
    found = repo.sweep(name, alpha, **options)
    if place is not None:
        from persona.cli import sweep_drawing

        sweep_drawing.write(place, found)
    from persona.cli import sweeping

    return Shown(found, sweeping.lines(found))
