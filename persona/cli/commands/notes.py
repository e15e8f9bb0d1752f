"""`persona notes`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from persona.cli import render
from persona.cli.command import CommandGroup, declare
from persona.cli.completions import files, revisions
from persona.cli.messages import Draft, edit_message, read_message
from persona.cli.rendering import Shown
from persona.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Callable

    from persona.cli.invocation import Invocation
    from persona.history.verbs.notes import CommitNote
    from persona.repository import Repository


class Notes(CommandGroup):
    """`notes`, which alone lists them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it, with `list` if no command is named."""
        if all(word.startswith("-") for word in args) and not {"-h", "--help"} & set(args):
            args = [*args, "list"]
        return super().parse_args(ctx, args)


def _text_options(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option(
        "-F",
        "--file",
        metavar="FILE",
        shell_complete=files,
        help="Read the text from FILE, or from stdin with -.",
    )(function)
    text = "The text of the note. Each further -m adds a paragraph."
    return click.option("-m", "--message", metavar="MSG", multiple=True, help=text)(function)


@click.group(
    "notes",
    cls=Notes,
    example='$ persona notes add -m "too eager with children" HEAD~2\n$ persona notes show HEAD~2\n'
    "$ persona notes remove HEAD~2",
)
def command() -> None:
    """Write notes on commits.

    A note is a text about a commit that is written after the commit was made. It changes no id. `log` and
    `show` print it below the message. A commit has one note at most.
    """


@declare("list", group=command, pages=True, example="$ persona notes list")
@click.argument("rev", required=False, shell_complete=revisions)
def list_notes(repo: Repository, rev: str | None) -> Shown:
    """List the notes.

    Prints each commit that has a note, with the first line of the note. With REV, prints that of REV.
    """
    found = repo.notes.all() if rev is None else [repo.notes.of(rev)]
    return Shown(found, [_line(one) for one in found])


@declare("show", group=command, pages=True, example="$ persona notes show HEAD~1")
@click.argument("rev", default="HEAD", metavar="[REV]", shell_complete=revisions)
def show(repo: Repository, rev: str) -> Shown:
    """Print the note on a commit.

    Prints the whole text. By default, the commit is HEAD.
    """
    found = repo.notes.of(rev)
    return Shown(found, render.printable(found.text))


@declare("add", group=command, example='$ persona notes add -m "too eager with children" HEAD~2')
@click.argument("rev", default="HEAD", metavar="[REV]", shell_complete=revisions)
@_text_options
@click.option("-f", "--force", is_flag=True, help="Replace the note that the commit has.")
def add(
    call: Invocation, repo: Repository, rev: str, message: tuple[str, ...], file: str | None, force: bool
) -> Shown:
    """Write a note on a commit.

    Without -m and -F, opens your editor, with the note that the commit has.
    """
    text = read_message(call, message, file)
    return _edited(call, repo, rev) if text is None else _written(repo.notes.add(rev, text, force=force))


@declare("append", group=command, example='$ persona notes append -m "better since v2" HEAD~2')
@click.argument("rev", default="HEAD", metavar="[REV]", shell_complete=revisions)
@_text_options
def append(call: Invocation, repo: Repository, rev: str, message: tuple[str, ...], file: str | None) -> Shown:
    """Add a paragraph to the note on a commit.

    Writes the note if the commit has none. Without -m and -F, opens your editor.
    """
    text = read_message(call, message, file)
    if text is None:
        text = edit_message(call, repo, _draft("", repo[rev].short_id))
    return _written(repo.notes.append(rev, text))


@declare("edit", group=command, example="$ persona notes edit HEAD~2")
@click.argument("rev", default="HEAD", metavar="[REV]", shell_complete=revisions)
def edit(call: Invocation, repo: Repository, rev: str) -> Shown:
    """Edit the note on a commit.

    Opens your editor with the text of the note. If you leave an empty text, the note is removed.
    """
    return _edited(call, repo, rev)


@declare("remove", group=command, example="$ persona notes remove HEAD~2")
@click.argument("revs", nargs=-1, metavar="[REV]…", shell_complete=revisions)
def remove(repo: Repository, revs: tuple[str, ...]) -> Shown:
    """Remove the notes on commits.

    By default that on HEAD. If one of several commits has no note, no note is removed.
    """
    gone = repo.notes.remove(*revs)
    lines = [f"Removed the note on {render.short(one.id)}" for one in gone]
    return Shown({"removed": [one.id for one in gone]}, lines, act=True)


def _edited(call: Invocation, repo: Repository, rev: str) -> Shown:
    try:
        before = repo.notes.of(rev).text
    except UnknownName:
        before = ""
    commit = repo[rev]
    text = edit_message(call, repo, _draft(before, commit.short_id, may_be_empty=bool(before)))
    if text:
        return _written(repo.notes.add(commit.id, text, force=True))
    repo.notes.remove(commit.id)
    return Shown({"removed": [commit.id]}, f"Removed the note on {commit.short_id}", act=True)


def _draft(text: str, short_id: str, *, may_be_empty: bool = False) -> Draft:
    hints = [f"Write the note on {short_id}. Lines that start with '#' are left out."]
    return Draft(text, hints, "NOTES_EDITMSG", undone="no note was written", may_be_empty=may_be_empty)


def _written(note: CommitNote) -> Shown:
    return Shown(note, (), act=True)


def _line(note: CommitNote) -> str:
    return f"{render.coloured_id(note.id)} {render.printable(note.text.partition(chr(10))[0])}"
