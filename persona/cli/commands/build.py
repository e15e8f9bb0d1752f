"""`persona build`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from persona.cli.command import declare
from persona.cli.completions import trainables
from persona.cli.messages import read_message
from persona.cli.options import takes
from persona.cli.rendering import Shown
from persona.history.options import ComputeOptions

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository


@declare(
    "build",
    works=True,
    example="$ persona init mybot --base ./SmolLM2-135M-Instruct --example companion\n$ cd mybot\n"
    "$ persona build                        # train, measure, compose, commit, check out\n"
    "$ persona build -n                     # what would be done, and why\n"
    "$ persona build listening voice --keep-going",
)
@click.argument("keys", nargs=-1, metavar="[KEY…]", shell_complete=trainables)
@click.option("-n", "--dry-run", is_flag=True, help="Only list what would be done, and why; change nothing.")
@click.option(
    "-k", "--keep-going", is_flag=True, help="Build the others without the patterns that do not pass."
)
@click.option("-f", "--force", is_flag=True, help="Take patterns that do not pass, too.")
@click.option("--verify/--no-verify", default=True, help="Measure (default), or take everything unmeasured.")
@click.option(
    "--checkout/--no-checkout", default=True, help="Compute the weights afterwards (default), or do not."
)
@click.option(
    "-m", "--message", metavar="MSG", multiple=True, help="The message. Default: what was done, in words."
)
@click.option(
    "--max-damage",
    metavar="R",
    type=float,
    default=1.02,
    help="Largest ratio of the losses on neutral text, model to base. Default: 1.02.",
)
@takes(ComputeOptions)
def command(
    call: Invocation,
    repo: Repository,
    keys: tuple[str, ...],
    dry_run: bool,
    keep_going: bool,
    force: bool,
    verify: bool,
    checkout: bool,
    message: tuple[str, ...],
    max_damage: float,
    **options: Unpack[ComputeOptions],
) -> Shown:
    """Make the personality that the graph describes.

    build trains each pattern whose vector is missing or stale, measures each vector that was not measured
    with the probes as they are, puts the vectors into recipe.toml, measures the recipe as a whole, commits
    the work tree as commit does, and computes the weights. What is up to date is not done again. KEY is a
    pattern or KEY#FACET; without any, build takes all patterns.

    A new vector gets the sign of its pattern as its alpha. Vectors that recipe.toml has already keep alpha,
    density and the rest.

    If a pattern or the recipe as a whole does not pass, nothing is committed. The exit code is then 1, or 8
    if all that did not pass is inconclusive. If build is interrupted or killed, the same command goes on.
    """
    from persona.cli import building

    result = repo.build(
        *keys,
        dry_run=dry_run,
        keep_going=keep_going,
        force=force,
        verify=verify,
        checkout=checkout,
        message=read_message(call, message, None),
        max_damage=max_damage,
        **options,
    )
    return building.shown(repo, result)
