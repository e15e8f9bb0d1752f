"""`persona reflog`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from persona.cli import render
from persona.cli.command import CommandGroup, declare
from persona.cli.completions import moved_refs, one_of
from persona.cli.options import DATE_FORMS
from persona.cli.rendering import Shown

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from persona.repository import Repository


class Reflog(CommandGroup):
    """`reflog`, which means `reflog show` if no command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it, with `show` before the name of a branch."""
        if not (args and (args[0] in self.commands or args[0] in ("-h", "--help"))):
            args = ["show", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """The commands, and what `show` takes."""
        return [*super().shell_complete(ctx, incomplete), *moved_refs(ctx, show.params[0], incomplete)]


@click.group(
    "reflog",
    cls=Reflog,
    example="$ persona reflog show main --date=relative\n$ persona reflog\n"
    "$ persona reset --hard 'HEAD@{2}'\n$ persona reflog expire --expire='30 days' --all",
)
def command() -> None:
    """Show where a branch or HEAD has been.

    Every commit, checkout, switch and reset adds a line. The newest line comes first. If a branch has lost a
    commit, you find it here. `reflog BRANCH` means `reflog show BRANCH`.
    """


@declare("show", group=command, pages=True, example="$ persona reflog show main -n 5")
@click.argument("ref", default="HEAD", metavar="[BRANCH]", shell_complete=moved_refs)
@click.option("-n", "--max-count", metavar="N", type=click.IntRange(min=0), help="Show at most N moves.")
@click.option(
    "--date",
    metavar="FORM",
    shell_complete=one_of(*DATE_FORMS),
    help="Show the time of each move in place of its number, as log --date does.",
)
def show(repo: Repository, ref: str, max_count: int | None, date: str | None) -> Shown:
    """Show where a branch or HEAD has been.

    The newest move comes first. Without BRANCH, it shows where HEAD has been.
    """
    entries = repo.reflog(ref)[:max_count]
    if date is None:
        return Shown(entries, render.reflog_lines(entries))
    from persona.cli import formats

    dates = formats.date_form(date)
    return Shown(entries, render.reflog_lines(entries, lambda text: dates(formats.at(text))))


@declare(
    "expire",
    group=command,
    example="$ persona reflog expire --all\n$ persona reflog expire --expire=now main",
)
@click.argument("refs", nargs=-1, metavar="[BRANCH]…", shell_complete=moved_refs)
@click.option("--expire", metavar="DATE", default="90 days", help="Drop moves before DATE. Default: 90 days.")
@click.option(
    "--expire-unreachable",
    metavar="DATE",
    default="30 days",
    help="Drop moves before DATE to commits that the branch does not have any more. Default: 30 days.",
)
@click.option("--all", is_flag=True, help="Of HEAD, all branches and all tags, also deleted ones.")
@click.option("-n", "--dry-run", is_flag=True, help="Only count what would go.")
def expire(
    repo: Repository, refs: tuple[str, ...], expire: str, expire_unreachable: str, all: bool, dry_run: bool
) -> Shown:
    """Drop old moves from reflogs.

    By default from that of HEAD. The newest move of a branch always stays. A DATE is written as for log;
    `never` keeps all moves. A commit that no reflog and no branch names is not found by `reflog` any more.
    """
    found = repo.expire_reflog(
        *refs, all=all, expire=expire, expire_unreachable=expire_unreachable, dry_run=dry_run
    )
    word = "would be removed" if dry_run else "removed"
    lines = [f"{one.ref}: {render.counted(one.removed, 'move')} {word}, {one.kept:,} kept" for one in found]
    return Shown(found, lines, act=not dry_run)
