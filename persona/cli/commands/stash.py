"""`persona stash`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from persona.cli import diffs, render
from persona.cli.command import CommandGroup, declare
from persona.cli.completions import files as work_files
from persona.cli.completions import stashes
from persona.cli.rendering import Shown

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.verbs.stash import StashResult
    from persona.repository import Repository

_COMMON = {"--json", "-q", "--quiet", "-v", "--verbose"}
_HELP = {"-h", "--help"}


class Stash(CommandGroup):
    """`stash`, which alone is `stash push`, as in git."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it, with `push` if no command is named."""
        first = next((word for word in args if word not in _COMMON), "-")
        if first.startswith("-") and first not in _HELP and not ctx.resilient_parsing:
            args = ["push", *args]
        return super().parse_args(ctx, args)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """A command by its name; `save` is an old word of git's for `push`."""
        return super().get_command(ctx, "push" if name == "save" else name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As the others do it; the words of `save` are the message."""
        if args[:1] == ["save"]:
            message = " ".join(args[1:])
            args = ["push", *(["-m", message] if message else [])]
        return super().resolve_command(ctx, args)


@click.group(
    "stash",
    cls=Stash,
    example="$ persona stash push                 # put the edits aside\n"
    "$ persona stash list\n"
    "$ persona stash pop                  # bring them back",
)
def command() -> None:
    """Put edits of the work tree aside, and bring them back.

    A stash has recipe.toml and the tracked text files as they are. Without a command, stash is push. Stashes
    have numbers: stash@{0}, or 0, is the newest.
    """


@declare(
    "push",
    group=command,
    example="$ persona stash push -m 'half a thought'\n$ persona stash push -- graph/calm.md",
    takes_files=True,
)
@click.argument("words", nargs=-1, metavar="[FILE]…", shell_complete=work_files)
@click.option("-m", "--message", metavar="MSG", help="Say what the stash is. Default: HEAD and its subject.")
@click.option("-u", "--include-untracked", is_flag=True, help="Also put untracked files aside.")
def push(
    call: Invocation,
    repo: Repository,
    files: tuple[str, ...] | None,
    words: tuple[str, ...],
    message: str | None,
    include_untracked: bool,
) -> Shown:
    """Put edits aside.

    recipe.toml and the tracked files become as in HEAD; their edits are in the stash. FILE: only the edits of
    these files or directories. Weights stay as they are.
    """
    paths = [*words, *(files or ())]
    found = repo.stash.push(
        message=message,
        paths=call.tracked(repo, paths) if paths else None,
        include_untracked=include_untracked,
    )
    if found.stash is None:
        return Shown(found, ["No local changes to save"], act=True)
    said = render.printable(found.stash.message.split("\n")[0])
    return Shown(found, [f"Saved working directory state {said}"], act=True)


@declare("pop", group=command, example="$ persona stash pop\n$ persona stash pop stash@{1}")
@click.argument("stash", required=False, metavar="[STASH]", shell_complete=stashes)
def pop(call: Invocation, repo: Repository, stash: str | None) -> Shown:
    """Bring edits back, and drop the stash.

    HEAD may be another commit now. If HEAD and the stash set the same value differently, pop writes both
    values into recipe.toml as comments, exits with 1, and keeps the stash.
    """
    found = repo.stash.pop(stash)
    return Shown(found, _brought_back(found, call, repo), act=True)


@declare("apply", group=command, example="$ persona stash apply stash@{1}")
@click.argument("stash", required=False, metavar="[STASH]", shell_complete=stashes)
def apply(call: Invocation, repo: Repository, stash: str | None) -> Shown:
    """Bring edits back, and keep the stash.

    As pop, but the stash stays, so that you can apply it elsewhere too.
    """
    found = repo.stash.apply(stash)
    return Shown(found, _brought_back(found, call, repo), act=True)


@declare("branch", group=command, example="$ persona stash branch half-a-thought")
@click.argument("name", metavar="NAME")
@click.argument("stash", required=False, metavar="[STASH]", shell_complete=stashes)
def branch(call: Invocation, repo: Repository, name: str, stash: str | None) -> Shown:
    """Bring edits back on a branch of their own.

    Makes the branch NAME at the commit that the stash was made on, goes there, brings the edits back, and
    drops the stash. So there is no conflict, whatever came after the stash.
    """
    before = repo.head()
    found = repo.stash.branch(name, stash)
    lines = [*render.moved_lines(repo.head(), None, before=before, made=True)]
    return Shown(found, [*lines, *_brought_back(found, call, repo)], act=True)


@declare("list", group=command, example="$ persona stash list", pages=True)
@click.option("-n", "--max-count", metavar="N", type=click.IntRange(min=0), help="Show at most N stashes.")
def list_(repo: Repository, max_count: int | None) -> Shown:
    """List the stashes.

    The newest comes first. Each has the branch and the commit that it was made on, or its message.
    """
    found = repo.stash.list()[:max_count]
    lines = [f"{one.selector}: {render.printable(one.message.splitlines()[0])}" for one in found]
    return Shown(found, lines)


@declare("show", group=command, example="$ persona stash show -p", pages=True)
@click.argument("stash", required=False, metavar="[STASH]", shell_complete=stashes)
@click.option("-p", "--patch", is_flag=True, help="Show the edits, not a summary.")
@click.option("--stat", is_flag=True, help="Show a summary. This is the default.")
def show(repo: Repository, stash: str | None, patch: bool, stat: bool) -> Shown:
    """Show the edits of a stash.

    Compares the stash with the commit that it was made on.
    """
    diff = repo.stash.show(stash)
    return Shown(diff, diffs.diff_lines(diff) if patch and not stat else diffs.stat_lines(diff))


@declare("drop", group=command, example="$ persona stash drop stash@{1}")
@click.argument("stash", required=False, metavar="[STASH]", shell_complete=stashes)
def drop(repo: Repository, stash: str | None) -> Shown:
    """Forget a stash.

    Prints the id of its commit: persona show ID still shows it.
    """
    found = repo.stash.drop(stash)
    return Shown(found, [_dropped(found)], act=True)


@declare("clear", group=command, example="$ persona stash clear")
def clear(repo: Repository) -> Shown:
    """Forget all stashes.

    To forget only one, use persona stash drop.
    """
    return Shown({"cleared": repo.stash.clear()}, (), act=True)


def _brought_back(result: StashResult, call: Invocation, repo: Repository) -> Iterator[str]:
    path = call.seen_from_here(repo)
    yield from (f"M\t{render.shown_path(path(name))}" for name in result.files)
    if result.dropped:
        yield _dropped(result)


def _dropped(result: StashResult) -> str:
    assert result.stash is not None
    return f"Dropped {result.stash.selector} ({result.stash.id})"
