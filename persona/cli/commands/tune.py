"""`persona tune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from persona.cli.command import declare
from persona.cli.completions import trainables, vectors
from persona.cli.options import takes
from persona.cli.rendering import Shown
from persona.cli.tuning import notes_of, tuned_lines
from persona.history.options import ComputeOptions

if TYPE_CHECKING:
    from persona.repository import Repository


@declare(
    "tune",
    works=True,
    example="$ persona tune --dry-run              # print what would change\n"
    "$ persona tune\n"
    "$ persona tune --vector voice         # change only the α of voice\n"
    "$ persona tune --max-damage 1.01 --measurements 20",
)
@click.option(
    "--probe",
    metavar="KEY",
    multiple=True,
    shell_complete=trainables,
    help="Count only the effect of this pattern, and change only its vectors. May be repeated.",
)
@click.option(
    "--vector",
    metavar="NAME",
    multiple=True,
    shell_complete=vectors,
    help="Change only this vector. May be repeated.",
)
@click.option(
    "--measurements",
    metavar="N",
    type=int,
    default=12,
    help="Measure at most N points; a gradient counts as 3. Default: 12.",
)
@click.option("--seed", metavar="N", type=int, default=0, help="Seed of the optimizer. Default: 0.")
@click.option(
    "--max-damage",
    metavar="R",
    type=float,
    default=1.02,
    help="Largest ratio of the losses on neutral text, model to base. Default: 1.02.",
)
@click.option(
    "--max-alpha", metavar="A", type=float, default=2.0, help="Largest strength, without sign. Default: 2."
)
@click.option("--any-sign", is_flag=True, help="An α may change its sign.")
@click.option("--densities", is_flag=True, help="Change the densities of the vectors too.")
@click.option("-n", "--dry-run", is_flag=True, help="Leave recipe.toml as it is.")
@takes(ComputeOptions)
def command(
    repo: Repository,
    probe: tuple[str, ...],
    vector: tuple[str, ...],
    measurements: int,
    seed: int,
    max_damage: float,
    max_alpha: float,
    any_sign: bool,
    densities: bool,
    dry_run: bool,
    **options: Unpack[ComputeOptions],
) -> Shown:
    """Find the strengths of all vectors together that do the most.

    Changes the α of all vectors of recipe.toml together, so that the patterns have the most effect while the
    damage on neutral text stays within --max-damage. tune takes a gradient, proposes a point, and measures
    it as verify does. It writes the best measured point into recipe.toml, and commits nothing. If no point is
    better, recipe.toml stays as it is.

    The exit code is 1 if recipe.toml is above the limit of damage and no point under it was found.
    """
    found = repo.tune(
        probe=probe,
        vector=vector,
        measurements=measurements,
        seed=seed,
        max_damage=max_damage,
        max_alpha=max_alpha,
        any_sign=any_sign,
        densities=densities,
        dry_run=dry_run,
        **options,
    )
    return Shown(found, tuned_lines(found), 0 if found.within else 1, notes=notes_of(found))
