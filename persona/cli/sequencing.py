"""Merge, cherry-pick, revert and rebase as text: what was done, and what is under way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from persona.cli import diffs, render
from persona.cli.completions import one_of
from persona.cli.rendering import Shown
from persona.errors import UsageError

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.sequence_views import ConflictView, UnderWay
    from persona.history.sequencing.results import SequenceResult
    from persona.repository import Repository

F = TypeVar("F", bound=Callable[..., Any])

_DOING = {"merge": "merging", "cherry-pick": "cherry-picking", "revert": "reverting", "rebase": "rebasing"}
_SIDES = {
    "yyy": ("both modified:", "UU"),
    "nyy": ("both added:", "AA"),
    "yny": ("deleted by them:", "UD"),
    "yyn": ("deleted by us:", "DU"),
}
"""Whether the base, theirs and ours have a file, and git's words and letters for that."""


def shown(result: SequenceResult, call: Invocation, repo: Repository) -> Shown:
    """What a merge, cherry-pick, revert or rebase has done."""
    lines = _lines(result, call, repo)
    if result.last is not None and result.last.failure is not None:
        failed = diffs.unplaced(result.last, result.last.failure, lines)
        failed.notes = result.notes
        return failed
    return Shown(result, lines, act=True)


def _lines(result: SequenceResult, call: Invocation, repo: Repository) -> Iterator[str]:
    path = call.seen_from_here(repo)
    yield from render.carried_lines(result.carried, path)
    before, now = result.before.id or "", result.head.id or ""
    if result.state == "up to date":
        yield "Already up to date." if result.verb == "merge" else _up_to_date(result)
    elif result.state == "fast-forward":
        yield f"Updating {render.short(before)}..{render.short(now)}"
        yield "Fast-forward"
        yield from diffs.stat_lines(repo.diff(before, now))
    elif result.state == "prepared" and result.verb == "merge" and result.commits:
        yield "Squash commit -- not updating HEAD"
        yield from diffs.committed_lines(repo, result.commits[0])
    elif result.state == "prepared" and not result.commits:
        yield "Automatic merge went well; stopped before committing as requested"
    elif result.state in ("list", "quit"):
        return
    elif result.state == "aborted":
        where = result.head.branch or render.short(now)
        yield f"The {result.verb} is undone; HEAD is on {where} at {render.short(now)}"
    else:
        for commit in result.commits:
            yield from diffs.committed_lines(repo, commit)
        if result.state == "edit" and result.stopped is not None:
            yield f"Stopped at {render.short(result.stopped)}... {render.printable(repo['HEAD'].subject)}"
            yield 'You can amend the commit now, with "persona commit --amend".'
            yield 'Once you are satisfied with your changes, run "persona rebase --continue".'
        elif result.verb == "rebase":
            yield f"Successfully rebased and updated {_ref_of(result)}."
    weights = result.weights
    if result.state != "up to date" and weights is not None and weights.state not in ("clean", "absent"):
        yield from render.weights_lines(weights, path("."))


def _up_to_date(result: SequenceResult) -> str:
    where = f"branch {result.head.branch}" if result.head.branch is not None else "HEAD"
    return f"Current {where} is up to date."


def _ref_of(result: SequenceResult) -> str:
    return f"refs/heads/{result.head.branch}" if result.head.branch is not None else "detached HEAD"


# -- options -------------------------------------------------------------------------------------------------


def strategy_option(function: F) -> F:
    """`--strategy`."""
    return click.option(
        "-X",
        "--strategy",
        metavar="ours|theirs|mean",
        type=click.Choice(["ours", "theirs", "mean"]),
        shell_complete=one_of("ours", "theirs", "mean"),
        help="Decide conflicts: our value, theirs, or the mean of two numbers.",
    )(function)


def stop_options(function: F) -> F:
    """`--continue`, `--skip`, `--abort` and `--quit`."""
    function = quit_option(function)
    function = click.option("--abort", is_flag=True, help="Go back to where it began.")(function)
    function = click.option("--skip", is_flag=True, help="Leave this commit out, and go on.")(function)
    return click.option("--continue", "continue_", is_flag=True, help="Commit what is resolved, and go on.")(
        function
    )


def quit_option(function: F) -> F:
    """`--quit`."""
    return click.option(
        "--quit", "quit_", is_flag=True, help="Forget it; HEAD and the files stay as they are."
    )(function)


def edit_options(function: F) -> F:
    """`-e` and `--no-edit`."""
    function = click.option("--no-edit", is_flag=True, help="No effect: the editor opens only with -e.")(
        function
    )
    return click.option("-e", "--edit", is_flag=True, help="Edit the message in the editor.")(function)


def editor(call: Invocation, repo: Repository, edit: bool, undone: str) -> Callable[[str], str] | None:
    """The editor on a message; None if the user did not ask for it."""
    if not edit:
        return None
    from persona.cli.messages import edit_commit

    return partial(edit_commit, call, repo, undone=undone)


def mainline_option(text: str) -> Callable[[F], F]:
    """`-m N`, the parent of a merge."""

    def number(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
        if value is not None and not re.fullmatch(r"[1-9][0-9]{0,3}", value):
            raise UsageError("-m takes the number of a merge's parent, as in git")
        return None if value is None else int(value)

    return click.option("-m", "--mainline", metavar="N", callback=number, help=text)


# -- status --------------------------------------------------------------------------------------------------


def under_way_lines(sequence: UnderWay) -> Iterator[str]:
    """What is under way, and how it goes on."""
    if sequence.verb == "stash":
        return  # nothing waits
    verb, doing = sequence.verb, _DOING[sequence.verb]
    go_on, back = f'"persona {verb} --continue"', f'"persona {verb} --abort"'
    stopped = None if sequence.stopped is None else render.short(sequence.stopped)
    if verb == "merge":
        merged = "You have unmerged paths." if sequence.conflicts else "You are still merging."
        yield merged if sequence.conflicts else f"All conflicts fixed but {merged[0].lower()}{merged[1:]}"
    elif verb == "rebase":
        onto = "" if sequence.onto is None else f" on '{render.short(sequence.onto)}'"
        what = f" branch '{sequence.branch}'" if sequence.branch is not None else ""
        yield f"You are currently {doing}{what}{onto}."
    elif stopped is not None:
        yield f"You are currently {doing} commit {stopped}."
    else:
        yield f"{verb.capitalize()} currently in progress."
    if sequence.left:
        what = "step" if verb == "rebase" else "commit"
        yield f"  ({render.counted(sequence.left, what)} left to do)"
    if sequence.cut_short:
        yield f"  (a command was cut short; use {go_on} to finish it)"
    elif sequence.conflicts:
        yield f"  (fix conflicts and run {go_on})"
    elif sequence.why == "edit":
        yield '  (use "persona commit --amend" to amend the current commit)'
        yield f"  (use {go_on} once you are satisfied with your changes)"
    elif verb == "merge":
        yield '  (use "persona commit" to conclude merge)'
    elif stopped is None:
        yield f"  (run {go_on} to go on with the others)"
    else:
        yield f"  (all conflicts fixed: run {go_on})"
    if verb != "merge" and stopped is not None and sequence.why != "edit":
        yield f'  (use "persona {verb} --skip" to skip this commit)'
    yield f"  (use {back} to go back to where the {verb} began)"
    yield ""


def unmerged_lines(sequence: UnderWay, path: Callable[[str], str]) -> Iterator[str]:
    """The conflicts that stand, by files."""
    if not sequence.conflicts:
        return
    yield "Unmerged paths:"
    yield "  (edit the files and delete the markers,"
    yield '   or use "persona restore --ours|--theirs FILE..." to take one side as a whole)'
    if any(conflict.key is None for conflict in sequence.conflicts):
        yield '  (use "persona add FILE..." to keep a file as it is)'
    for name in dict.fromkeys(conflict.path for conflict in sequence.conflicts):
        here = [conflict for conflict in sequence.conflicts if conflict.path == name]
        yield "\t" + click.style(f"{_side(here[0])[0]:<17}{render.shown_path(path(name))}", fg="red")
        for conflict in here:
            if conflict.key is not None:
                yield "\t" + " " * 17 + f"{render.printable(conflict.key)}"
    yield ""


def unmerged_marks(sequence: UnderWay) -> dict[str, str]:
    """Path → git's two letters, of each file with a conflict that stands."""
    return {conflict.path: _side(conflict)[1] for conflict in sequence.conflicts}


def _side(conflict: ConflictView) -> tuple[str, str]:
    """git's words and letters for a conflict of a file."""
    if conflict.problem != "presence" and (conflict.problem != "lines" or conflict.ours is None):
        return _SIDES["yyy"]
    sides = conflict.base, conflict.theirs, conflict.ours
    return _SIDES.get("".join("n" if side is None else "y" for side in sides), _SIDES["yyy"])
