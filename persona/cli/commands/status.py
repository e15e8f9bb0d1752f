"""`persona status`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from persona.cli import diffs, render
from persona.cli.command import declare
from persona.cli.rendering import Shown
from persona.errors import Note
from persona.history.recipes.text import RECIPE_FILE

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.query_results import Status
    from persona.repository import Repository


@declare("status", example="$ persona status\n$ persona status -s")
@click.option("-s", "--short", is_flag=True, help="Print one line for each file, as git does.")
@click.option("-b", "--branch", is_flag=True, help="With -s: print the branch first.")
@click.option("--porcelain", is_flag=True, help="As -s, without colours, and with files named from the top.")
def command(call: Invocation, repo: Repository, short: bool, branch: bool, porcelain: bool) -> Status | Shown:
    """Show what differs from HEAD and what the weights are.

    Compares recipe.toml and the tracked text files with HEAD. Lists untracked files. Tells the state of the
    weights in the work tree: absent, clean (of HEAD), stale (of another revision), uncommitted (of the edited
    recipe), edited by hand, or unknown.
    """
    result = repo.status()
    if not (short or porcelain or branch):
        return result
    seen: Callable[[str], str] = str if porcelain else call.seen_from_here(repo)
    lines = [*(_branch_line(result) if branch else ()), *_short_lines(result, seen)]
    return Shown(result, [click.unstyle(line) for line in lines] if porcelain else lines)


def _branch_line(result: Status) -> Iterator[str]:
    if result.branch is None:
        yield f"## {click.style('HEAD (no branch)', fg='red')}"
    else:
        yield f"## {click.style(result.branch, fg='green')}"


def _short_lines(result: Status, path: Callable[[str], str]) -> Iterator[str]:
    """`M  recipe.toml`: the letter stands in git's first column, as the next commit holds the change.

    Files with a conflict that stands come first, as `UU recipe.toml`.
    """
    letters = {"added": "A", "removed": "D"}
    if result.diff is None:  # recipe.toml cannot be read
        changes = dict.fromkeys([*result.files_changed, RECIPE_FILE], "M")
    else:
        changes = {change.path: letters.get(change.change, "M") for change in result.diff.file_changes}
        if result.recipe_changed:
            changes[RECIPE_FILE] = "M"
    if result.sequence is not None and result.sequence.conflicts:
        from persona.cli.sequencing import unmerged_marks

        unmerged = unmerged_marks(result.sequence)
        changes = {name: letter for name, letter in changes.items() if name not in unmerged}
        for name, mark in sorted(unmerged.items()):
            yield f"{click.style(mark, fg='red')} {render.shown_path(path(name))}"
    for name, letter in sorted(changes.items()):
        yield f"{click.style(letter, fg='green')}  {render.shown_path(path(name))}"
    marks = [*(("??", name) for name in result.untracked), *(("!!", left.path) for left in result.left_out)]
    for mark, name in marks:
        yield f"{click.style(mark, fg='red')} {render.shown_path(path(name))}"


def status(result: Status, call: Invocation, repo: Repository) -> Iterator[str]:
    """The printed lines, with files named as a user types them where the command runs."""
    path = call.seen_from_here(repo)

    def shown(name: str) -> str:
        return render.shown_path(path(name))

    yield render.head_line(result.branch, result.head)
    yield ""
    if result.bisect is not None:
        branch, id = result.bisect.branch, result.bisect.id
        where = f"branch '{branch}'" if branch is not None else render.short(id or "")
        yield f"You are currently bisecting, started from {where}."
        yield '  (use "persona bisect reset" to go back there)'
        yield ""
    if result.sequence is not None:
        from persona.cli.sequencing import under_way_lines

        yield from under_way_lines(result.sequence)
    changes = list(_changes(result, path))
    if result.problem is not None:
        yield click.style("recipe.toml cannot be read:", fg="red")
        yield f"  {render.printable(result.problem)}"
        if isinstance(result.problem, Note) and result.problem.hint is not None:
            from persona.cli.hints import in_shell

            yield f"  ({in_shell(result.problem.hint)})"
        else:
            yield '  (edit it, or use "persona restore recipe.toml" to take the committed one)'
        yield ""
    if changes:
        yield "Changes to be committed:"
        new = result.diff is not None and any(file.change == "added" for file in result.diff.file_changes)
        also = "; delete a new one" if new else ""
        waits = result.sequence is not None and result.sequence.why in ("conflict", "prepared")
        then = f"the {result.sequence.verb} left it" if waits and result.sequence else "it was committed"
        yield f'  (use "persona restore FILE..." to put a file back as {then}{also})'
        yield from ("\t" + click.style(change, fg="green") for change in changes)
        yield ""
    if result.sequence is not None:
        from persona.cli.sequencing import unmerged_lines

        yield from unmerged_lines(result.sequence, path)
    if result.untracked:
        yield "Untracked files:"
        yield '  (use "persona add FILE..." to make them part of every commit)'
        yield from (
            "\t" + click.style(name, fg="red") for name in render.listed([*map(shown, result.untracked)])
        )
        yield ""
    if result.left_out:
        yield "Left out, as no commit can hold them:"
        left_out = [f"{shown(file.path)}  ({file.why})" for file in result.left_out]
        yield from ("\t" + click.style(line, fg="red") for line in render.listed(left_out))
        yield ""
    readable = result.problem is None
    weights = list(render.weights_lines(result.weights, path("."), result.recipe_changed))
    yield from weights if readable else weights[:1]  # what to do about them depends on the recipe
    if result.in_the_way:
        names = ", ".join(map(shown, result.in_the_way))
        yield f'  (no index lists {names}; move away what is listed before the next "persona checkout")'
    waits = result.sequence is not None and result.sequence.why in ("conflict", "prepared")
    if not changes and readable and not waits:
        yield ""
        clean = not result.untracked and not result.left_out
        yield "nothing to commit, work tree clean" if clean else "nothing to commit"


def _changes(result: Status, path: Callable[[str], str]) -> Iterator[str]:
    """A line for each thing that the next commit would hold."""
    if result.diff is not None:
        diff = result.diff
        if result.sequence is not None and result.sequence.conflicts:
            unmerged = {conflict.path for conflict in result.sequence.conflicts}
            merged = tuple(file for file in diff.file_changes if file.path not in unmerged)
            diff = replace(diff, file_changes=merged)
        yield from diffs.change_lines(diff, result.kept, path)
        return
    for name in result.files_changed:
        yield f"{'changed:':<12}{path(name)}"
