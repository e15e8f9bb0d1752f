"""`persona digest`."""

from __future__ import annotations

import click

from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.invocation import Invocation
from persona.cli.options import (
    device_arguments,
    device_options,
    memory_argument,
    memory_option,
    threads_option,
)


@declare("digest", example="$ persona digest HEAD~1")
@click.argument("rev", required=False, shell_complete=revisions)
@device_options
@threads_option
@memory_option
@click.pass_obj
def command(
    call: Invocation,
    rev: str | None,
    device: str | None,
    device_memory: int | None,
    threads: int | None,
    memory: int | None,
) -> None:
    """Print the weights digest of a revision.

    Computes the weights of REV, or of recipe.toml as it stands, without writing them. The same recipe has the
    same digest on every machine and device.
    """
    with call.repository() as repo, call.progress() as progress:
        where = device_arguments(repo, device, device_memory)
        memory = memory_argument(repo, memory)
        result = repo.digest(rev, **where, threads=threads, memory=memory, progress=progress)
    call.remarks(result.notes)
    call.answer(result, result.weights)
