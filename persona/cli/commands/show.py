"""`persona show`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from persona.cli import diffs, render
from persona.cli.blobs import file_at, in_a_commit
from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.options import COMMIT_FORMS, changes_options, format_options
from persona.cli.pager import on_terminal
from persona.cli.rendering import Shown
from persona.history.results import as_json

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.face.revision import Revision
    from persona.history.results import Diff
    from persona.repository import Repository


@declare(
    "show",
    example="$ persona show HEAD~1\n$ persona show v1 --stat\n$ persona show HEAD~2:recipe.toml",
    takes_files=True,
    pages=True,
)
@click.argument("words", nargs=-1, metavar="[REV | REV:PATH]… [FILE]…", shell_complete=revisions)
@changes_options
@click.option("--oneline", is_flag=True, help="Print the commit's id and subject on one line.")
@format_options
def command(
    call: Invocation,
    repo: Repository,
    files: tuple[str, ...] | None,
    words: tuple[str, ...],
    changes: str | None,
    oneline: bool,
    form: str | None,
    date: str,
) -> Shown | None:
    """Show one commit, or a file as a commit holds it.

    Prints the commit's author, date and message, the note on it, what `verify` measured of it, then what it
    changed against its first parent. Before the commit of an annotated tag, show prints the tag. If files are
    named, show prints only what changed in them.

    REV:PATH prints the file PATH as it is in REV. PATH is relative to the top of the work tree, or to the
    current directory if it begins with ./. If PATH is a directory, or empty, show lists the files in it.
    """
    revs, paths = call.revisions_and_files(repo, words, files)
    values: list[Any] = []
    lines: list[str] = []
    for rev in revs or ["HEAD"]:
        if (place := in_a_commit(rev)) is not None:
            value, text = file_at(call, repo, *place)
            if len(revs) == 1 and isinstance(text, bytes) and not call.json and not sys.stdout.isatty():
                click.echo(text, nl=False)  # the bytes as they are, for a program
                return None
            said = text if isinstance(text, list) else _decoded(text)
        else:
            said = [*_tags(repo, rev, date)]
            value, more = _commit(repo, rev, paths, changes or "patch", "oneline" if oneline else form, date)
            said += more
        lines += ([""] if lines else []) + said
        values.append(value)
    return Shown(values[0] if len(values) == 1 else values, lines)


def _commit(
    repo: Repository, rev: str, paths: list[str] | None, changes: str, form: str | None, date: str
) -> tuple[dict[str, Any], list[str]]:
    entry, diff = repo.show(rev, paths=paths)
    tag = repo.tags.annotation(rev)
    value = as_json(entry) | ({} if tag is None else {"tag": as_json(tag)}) | {"diff": as_json(diff)}
    refs = on_terminal()
    if form == "oneline":
        return value, [render.oneline(entry, refs), *diffs.changes(diff, changes)]
    if form is None and date == "default":
        return value, [*_with_facts(entry, render.entry_lines(entry, refs)), *_apart(diff, changes)]
    from persona.cli import formats

    head = formats.form(form or "medium", formats.date_form(date), refs)(entry)
    whole = (form or "medium") in COMMIT_FORMS and form != "reference"
    return value, [*(_with_facts(entry, head) if whole else head), *_apart(diff, changes)]


def _with_facts(entry: Revision, head: list[str]) -> list[str]:
    """A commit with the note on it and what was measured of it."""
    lines = [*head, *render.note_lines(entry)]
    if entry.scores is not None:
        from persona.cli.verification import scores_lines

        lines += ["", *scores_lines(entry.scores)]
    return lines


def _apart(diff: Diff, changes: str) -> list[str]:
    below = list(diffs.changes(diff, changes))
    return ["", *below] if below else []


def _tags(repo: Repository, rev: str, date: str) -> Iterator[str]:
    tag = repo.tags.annotation(rev)
    if tag is not None:
        from persona.cli import formats

        yield from formats.tag_lines(tag, formats.date_form(date))


# -- files ---------------------------------------------------------------------------------------------------


def _decoded(data: bytes) -> list[str]:
    return data.decode("utf-8", "replace").removesuffix("\n").split("\n")
