"""`persona status`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from persona.cli import diffs, render
from persona.cli.command import declare
from persona.cli.invocation import Invocation

if TYPE_CHECKING:
    from persona.history.results import Status


@declare("status", example="$ persona status")
@click.pass_obj
def command(call: Invocation) -> None:
    """Show what differs from HEAD and what the weights are.

    Compares recipe.toml and the tracked text files with HEAD, and says whether the weights in the work tree
    are absent, clean, stale (of another revision), those of the edited recipe, edited by hand, or unknown.
    """
    with call.repository() as repo:
        status = repo.status()
        call.answer(status, list(_lines(status)))


def _lines(status: Status) -> Iterator[str]:
    yield render.head_line(status.branch, status.head)
    if status.head is None:
        yield ""
        yield "No commits yet"
    yield ""
    changes = list(status.files_changed)
    if status.diff is not None:
        changes = list(diffs.change_lines(status.diff, status.kept))
    if status.problem is not None:
        yield click.style("recipe.toml cannot be read:", fg="red")
        yield f"  {status.problem}"
        yield '  (edit it, or use "persona restore recipe.toml" to take the committed one)'
        yield ""
    if changes:
        yield "Changes to be committed:"
        yield '  (use "persona restore FILE..." to put a file back as it was committed)'
        for change in changes:
            yield "\t" + click.style(change, fg="green")
        yield ""
    elif status.recipe_changed and status.problem is None:
        yield "Changes to be committed:"
        yield "\t" + click.style("modified:   recipe.toml", fg="green")
        yield ""
    yield from render.weights_lines(status.weights, status.recipe_changed)
    if not changes and not status.recipe_changed and status.problem is None:
        yield ""
        yield "nothing to commit, work tree clean"
