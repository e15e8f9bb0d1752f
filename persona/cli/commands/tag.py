"""`persona tag`."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import click

from persona.cli import render
from persona.cli.command import Command, declare
from persona.cli.completions import files, tag_or_revision
from persona.cli.messages import Draft, edit_message, read_message
from persona.cli.reaching import reach_options, reaches
from persona.cli.rendering import Shown
from persona.errors import UsageError

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.history.query_results import RefInfo
    from persona.repository import Repository


class _Tag(Command):
    """`-n` alone is `-n1`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As any command."""
        return super().parse_args(ctx, ["-n1" if word == "-n" else word for word in args])


@declare(
    "tag",
    cls=_Tag,
    pages=True,
    example='$ persona tag -a v1 -m "the first that people liked"\n$ persona tag -l "v*"',
)
@click.argument("names", nargs=-1, metavar="[NAME [REV] | PATTERN]", shell_complete=tag_or_revision)
@click.option("-a", "--annotate", is_flag=True, help="Make a tag that has a message, an author and a date.")
@click.option("-m", "--message", metavar="MSG", multiple=True, help="Message of the tag; implies -a.")
@click.option(
    "-F",
    "--file",
    metavar="FILE",
    shell_complete=files,
    help="Read the message from FILE, or from stdin with -.",
)
@click.option(
    "-n",
    "lines",
    metavar="N",
    type=click.IntRange(min=0),
    help="List the tags with lines of their messages: -n with one, -n5 with five at most.",
)
@click.option("-l", "--list", "listing", is_flag=True, help="List the tags that match PATTERN.")
@reach_options
@click.option("-d", "--delete", is_flag=True, help="Delete tags.")
@click.option("-f", "--force", is_flag=True, help="Move NAME if it exists already.")
def command(
    call: Invocation,
    repo: Repository,
    names: tuple[str, ...],
    annotate: bool,
    message: tuple[str, ...],
    file: str | None,
    lines: int | None,
    listing: bool,
    delete: bool,
    force: bool,
    **reach: str | None,
) -> Shown:
    """List, make and delete tags.

    Without NAME, tag lists the tags. With NAME, it makes a tag of HEAD or of REV.
    """
    if delete:
        return _deleted(repo, names)
    filtered = any(rev is not None for rev in reach.values())
    if listing or filtered or not names or lines is not None:
        tags = [tag for tag in repo.tags.values() if not names or _matches(tag.name, names)]
        if filtered:
            wanted = reaches(repo, **reach)
            tags = [tag for tag in tags if wanted(tag.id)]
        return Shown(tags, [line for tag in tags for line in _listed(repo, tag, lines or 0)])
    if len(names) > 2:
        raise UsageError("give the name of one tag, and the commit that it marks: `persona tag NAME [REV]`")
    text = read_message(call, message, file)
    if annotate and text is None:
        hints = [f"Say what tag {names[0]} stands for."]
        draft = Draft("", hints, file="TAG_EDITMSG", undone="no tag was made")
        text = edit_message(call, repo, draft)
    call.signs = text is not None
    return Shown(repo.tags.create(*names, message=text, force=force))


def _listed(repo: Repository, tag: RefInfo, count: int) -> Iterator[str]:
    """A tag with the first lines of its message, or of its commit's."""
    if not count:
        yield tag.name
        return
    note = repo.tags.annotation(f"refs/tags/{tag.name}")
    message = repo[tag.id].message if note is None else note.message
    first, *more = render.printable(message).rstrip("\n").split("\n")[:count]
    yield f"{tag.name:<15} {first}".rstrip()
    yield from (f"    {line}".rstrip() for line in more)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _deleted(repo: Repository, names: tuple[str, ...]) -> Shown:
    if not names:
        raise UsageError("give the names of the tags to delete")
    gone = repo.tags.delete(*names)
    return Shown(gone, [f"Deleted tag '{name}' (was {render.short(id)})" for name, id in gone.items()])
