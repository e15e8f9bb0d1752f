"""`persona export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.options import adapter_place, takes
from persona.errors import Blank, Call, UsageError
from persona.history.options import AdapterOptions

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.verbs.adapters import AdapterResult
    from persona.repository import Repository


@declare(
    "export",
    works=True,
    example="$ persona export --adapter HEAD -o ../release-adapter\n"
    "$ persona export --adapter main --rank 32 --dtype bfloat16 -o ../release-r32",
)
@click.argument("rev", required=False, shell_complete=revisions)
@click.option("--adapter", is_flag=True, help="Write a PEFT adapter directory at OUT.")
@adapter_place
@takes(AdapterOptions)
def command(
    call: Invocation,
    repo: Repository,
    rev: str | None,
    adapter: bool,
    out: str,
    **options: Unpack[AdapterOptions],
) -> AdapterResult:
    """Write a revision as a PEFT adapter.

    Writes the change from the base to the weights of REV, or of recipe.toml as it stands. If the recipe is a
    plain sum of adapters, the adapter is exact. Otherwise each matrix keeps the R largest singular values of
    its change, and export prints which part of the change that is.
    """
    if not adapter:
        raise UsageError(
            "export needs a form to write",
            hint=(
                "give --adapter; ",
                Call("checkout", Blank("REV"), out=Blank("OUT")),
                " writes a whole model",
            ),
        )
    return repo.export_adapter(rev, out=call.path(out), **options)
