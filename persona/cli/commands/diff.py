"""`persona diff`."""

from __future__ import annotations

import click

from persona.cli import diffs
from persona.cli.command import declare
from persona.cli.invocation import Invocation
from persona.cli.offers import revisions


@declare(
    "diff",
    example="$ persona diff                 # what the next commit would hold\n"
    "$ persona diff HEAD~2 HEAD --stat",
)
@click.argument("a", required=False, shell_complete=revisions)
@click.argument("b", required=False, shell_complete=revisions)
@click.option("--stat", is_flag=True, help="Show a summary instead.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 where something differs.")
@click.pass_obj
def command(call: Invocation, a: str | None, b: str | None, stat: bool, exit_code: bool) -> int:
    """Show what differs between two recipes.

    Without a revision: HEAD against the work tree. With one: it against the work tree. With two, or A..B: the
    first against the second. Vectors and merge rules are shown in the words of recipe.toml, text files as
    unified diffs.
    """
    with call.repository() as repo:
        diff = repo.diff(a, b)
        call.answer(diff, diffs.stat_lines(diff) if stat else diffs.diff_lines(diff))
    return 1 if exit_code and not diff.empty else 0
