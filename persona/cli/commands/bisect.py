"""`persona bisect`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from persona.cli import bisecting
from persona.cli.command import Command, CommandGroup, declare
from persona.cli.completions import files, revisions, starting_directory
from persona.cli.rendering import Shown
from persona.errors import UsageError
from persona.history.results import as_json

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.repository import Repository

_SAME = {"old": "good", "new": "bad", "view": "status", "visualize": "status"}
"""Other words for commands."""
_HELP = {"-h", "--help"}


class Bisect(CommandGroup):
    """`bisect`, which alone shows the status. The terms of the bisect under way are commands too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it, with `status` if no command is named."""
        if all(word.startswith("-") for word in args) and not _HELP & set(args):
            args = [*args, "status"]
        return super().parse_args(ctx, args)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """A command by its name, by another word for it, or by a term."""
        found = super().get_command(ctx, _SAME.get(name, name))
        if found is None and name in bisecting.terms_in(starting_directory(ctx)):
            found = super().get_command(ctx, "good")
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As the others do it, but terms are commands too."""
        if args and (
            args[0] in _SAME
            or (args[0] not in self.commands and args[0] in bisecting.terms_in(starting_directory(ctx)))
        ):
            return args[0], self.get_command(ctx, args[0]), args[1:]
        return super().resolve_command(ctx, args)


@click.group(
    "bisect",
    cls=Bisect,
    example="$ persona bisect start HEAD v1                           # HEAD is bad, v1 was good\n"
    "$ persona bisect run persona verify --probe listening\n"
    "$ persona bisect reset",
)
def command() -> None:
    """Find the commit that brought a change of behaviour.

    Name one commit that is bad and one that was good. bisect goes to a commit between them, and you say
    whether it is good or bad. Each answer halves the commits that are left. run lets a command answer.
    Without a command, bisect shows what is left.
    """


@declare("start", group=command, example="$ persona bisect start HEAD v1\n$ persona bisect start")
@click.argument("bad", required=False, shell_complete=revisions)
@click.argument("good", nargs=-1, shell_complete=revisions)
@click.option("--term-old", "--term-good", "term_old", metavar="TERM", help="Say TERM instead of good.")
@click.option("--term-new", "--term-bad", "term_new", metavar="TERM", help="Say TERM instead of bad.")
@click.option("--first-parent", is_flag=True, help="Follow only the first parents of merges.")
@click.option("--checkout", is_flag=True, help="Compute the weights at each step.")
def start(
    call: Invocation, repo: Repository, bad: str | None, good: tuple[str, ...], **options: Any
) -> Shown:
    """Begin a bisect.

    BAD is a commit that has the fault, GOOD one or more commits that do not. bisect moves HEAD and the text
    files, and computes no weights without --checkout. persona bisect reset goes back.
    """
    return bisecting.shown(repo.bisect.start(bad, good, **options), call, repo)


def _mark(call: Invocation, repo: Repository, revs: tuple[str, ...]) -> Shown:
    """Marks commits with the term that the command was called by."""
    term = click.get_current_context().info_name or ""
    return bisecting.shown(repo.bisect.mark(term, revs or None), call, repo)


@declare("good", group=command, example="$ persona bisect good\n$ persona bisect good v1")
@click.argument("revs", nargs=-1, metavar="[REV]…", shell_complete=revisions)
def good(call: Invocation, repo: Repository, revs: tuple[str, ...]) -> Shown:
    """Say that a commit does not have the fault.

    Marks HEAD or REV, and goes to the next commit to test. old means the same, if you search for a change and
    not for a fault.
    """
    return _mark(call, repo, revs)


@declare("bad", group=command, example="$ persona bisect bad\n$ persona bisect bad HEAD~3")
@click.argument("revs", nargs=-1, metavar="[REV]…", shell_complete=revisions)
def bad(call: Invocation, repo: Repository, revs: tuple[str, ...]) -> Shown:
    """Say that a commit has the fault.

    Marks HEAD or REV, and goes to the next commit to test. new means the same, if you search for a change and
    not for a fault.
    """
    return _mark(call, repo, revs)


@declare("skip", group=command, example="$ persona bisect skip\n$ persona bisect skip v1..v2")
@click.argument("revs", nargs=-1, metavar="[REV | A..B]…", shell_complete=revisions)
def skip(call: Invocation, repo: Repository, revs: tuple[str, ...]) -> Shown:
    """Say that a commit cannot be tested.

    Marks HEAD, REV, or all commits of a range, and goes to another commit. If only skipped commits are left,
    bisect lists them and exits with 8.
    """
    return bisecting.shown(repo.bisect.skip(revs or None), call, repo)


@declare("next", group=command, example="$ persona bisect next")
def next_(call: Invocation, repo: Repository) -> Shown:
    """Go to the commit to test.

    Use it if you have moved HEAD since, or if a command was interrupted. It marks no commit.
    """
    return bisecting.shown(repo.bisect.next(), call, repo)


class _Run(Command):
    """A command whose own options stand before the command that it runs."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        how = {"help_option_names": ["-h", "--help"], "allow_interspersed_args": False}
        super().__init__(*arguments, context_settings=how, **settings)


@declare(
    "run",
    group=command,
    cls=_Run,
    example="$ persona bisect run persona verify --probe listening\n$ persona bisect run ./test.sh",
)
@click.argument("words", nargs=-1, metavar="CMD…", type=click.UNPROCESSED, shell_complete=files)
def run(call: Invocation, repo: Repository, words: tuple[str, ...]) -> Shown:
    """Let a command test one commit after another.

    The command runs in the top directory of the work tree. Its exit code says whether the commit is good: 0
    good, 125 and 8 skip, other codes up to 127 bad. A code of 128 or more ends the run. Weights are computed
    only if CMD does it, or after start --checkout.
    """
    if not words:
        raise UsageError("give the command to run: `persona bisect run CMD…`")
    return bisecting.shown(repo.bisect.run(bisecting.Program(words, call, repo)), call, repo)


@declare("log", group=command, example="$ persona bisect log > marks.txt")
def log(repo: Repository) -> Shown:
    """Print the marks.

    The output is a list of commands. If a mark was wrong, delete its line, and give the rest to replay.
    """
    text = repo.bisect.log()
    return Shown({"log": text}, text.splitlines())


@declare("replay", group=command, example="$ persona bisect replay marks.txt")
@click.argument("file", metavar="LOG", shell_complete=files)
def replay(call: Invocation, repo: Repository, file: str) -> Shown:
    """Begin again with the marks of a log.

    LOG is the output of persona bisect log, or - for stdin. A bisect that is under way ends.
    """
    if file == "-":
        text = sys.stdin.read()
    else:
        text = call.path(file).read_text("utf-8", "replace")
    return bisecting.shown(repo.bisect.replay(text), call, repo)


@declare("reset", group=command, example="$ persona bisect reset\n$ persona bisect reset HEAD")
@click.argument("rev", required=False, shell_complete=revisions)
def reset(call: Invocation, repo: Repository, rev: str | None) -> Shown:
    """End the bisect and go back.

    Goes to the branch or commit where bisect began, or to REV. The marks are gone then.
    """
    before = repo.head()
    result = repo.bisect.reset(rev)
    subject = repo["HEAD"].subject if result.head is not None and result.head.branch is None else None
    value = as_json(result) | {"diff": None}
    return Shown(value, bisecting.reset_lines(result, before, subject, call, repo), act=True)


@declare("status", group=command, example="$ persona bisect status\n$ persona bisect")
def status(repo: Repository) -> Shown:
    """Show what is left.

    Shows the commit to test, and the commits of which one is the first bad one.
    """
    result = repo.bisect.status()
    return Shown(as_json(result) | {"diff": None}, bisecting.status_lines(result, repo))
