"""`persona status`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from persona.cli import diffs, render
from persona.cli.command import declare
from persona.cli.invocation import Invocation
from persona.errors import Note

if TYPE_CHECKING:
    from persona.history.query_results import Status


@declare("status", example="$ persona status")
@click.pass_obj
def command(call: Invocation) -> None:
    """Show what differs from HEAD and what the weights are.

    Compares recipe.toml and the tracked text files with HEAD. Lists untracked files. Tells the state of the
    weights in the work tree: absent, clean (of HEAD), stale (of another revision), uncommitted (of the edited
    recipe), edited by hand, or unknown.
    """
    with call.repository() as repo:
        status = repo.status()
        call.answer(status, list(_lines(status, call.seen_from_here(repo))))


def _lines(status: Status, path: Callable[[str], str]) -> Iterator[str]:
    """The printed lines; `path` spells a file name relative to the current directory."""

    def shown(name: str) -> str:
        return render.shown_path(path(name))

    yield render.head_line(status.branch, status.head)
    yield ""
    changes = list(_changes(status, path))
    if status.problem is not None:
        yield click.style("recipe.toml cannot be read:", fg="red")
        yield f"  {render.printable(status.problem)}"
        if isinstance(status.problem, Note) and status.problem.hint is not None:
            from persona.cli.hints import in_shell

            yield f"  ({in_shell(status.problem.hint)})"
        else:
            yield '  (edit it, or use "persona restore recipe.toml" to take the committed one)'
        yield ""
    if changes:
        yield "Changes to be committed:"
        new = status.diff is not None and any(file.change == "added" for file in status.diff.file_changes)
        also = "; delete a new one" if new else ""
        yield f'  (use "persona restore FILE..." to put a file back as it was committed{also})'
        yield from ("\t" + click.style(change, fg="green") for change in changes)
        yield ""
    if status.untracked:
        yield "Untracked files:"
        yield '  (use "persona add FILE..." to make them part of every commit)'
        yield from (
            "\t" + click.style(name, fg="red") for name in render.listed([*map(shown, status.untracked)])
        )
        yield ""
    if status.left_out:
        yield "Left out, as no commit can hold them:"
        left_out = [f"{shown(file.path)}  ({file.why})" for file in status.left_out]
        yield from ("\t" + click.style(line, fg="red") for line in render.listed(left_out))
        yield ""
    readable = status.problem is None
    weights = list(render.weights_lines(status.weights, status.recipe_changed))
    yield from weights if readable else weights[:1]  # the advice for them depends on the recipe
    if status.in_the_way:
        names = ", ".join(map(shown, status.in_the_way))
        yield f'  (no index names {names}: "persona checkout" needs that moved away)'
    if not changes and readable:
        yield ""
        clean = not status.untracked and not status.left_out
        yield "nothing to commit, work tree clean" if clean else "nothing to commit"


def _changes(status: Status, path: Callable[[str], str]) -> Iterator[str]:
    """A line for each thing that the next commit would hold."""
    if status.diff is not None:
        yield from diffs.change_lines(status.diff, status.kept, path)
        return
    for name in status.files_changed:
        yield f"{'changed:':<12}{path(name)}"
