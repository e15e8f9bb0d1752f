"""`persona show`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from persona.cli import diffs, render
from persona.cli.command import declare
from persona.cli.completions import revisions
from persona.cli.options import COMMIT_FORMS, changes_options, format_options
from persona.cli.pager import on_terminal
from persona.cli.rendering import Shown
from persona.errors import UnknownName, quoted
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
        if (place := _in_a_commit(rev)) is not None:
            value, text = _file(call, repo, *place)
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


def _in_a_commit(word: str) -> tuple[str, str] | None:
    """The revision and the path of `REV:PATH`; None if the word is a revision."""
    depth = 0
    for place, char in enumerate(word):
        depth += (char == "{") - (char == "}")
        if char == ":" and depth == 0 and (place or not word.startswith(":/")):
            return word[:place], word[place + 1 :]
    return None


def _file(
    call: Invocation, repo: Repository, rev: str, path: str
) -> tuple[dict[str, Any], bytes | list[str]]:
    """What a commit holds at a path: the bytes of a file, or the lines of a list of files."""
    if not rev:
        raise UnknownName(
            "a file needs a revision before the colon: there is no staging area to show it from;"
            f" try `persona show HEAD:{path}`"
        )
    commit = repo[rev]
    if path.startswith(("./", "../")) or path == ".":
        path = call.tracked(repo, [path])[0]
    name = PurePosixPath(path).as_posix() if path else "."
    if name in commit.files:
        data = commit.read(name)
        value = {"id": commit.id, "path": name, "size": len(data), "text": data.decode("utf-8", "replace")}
        return value, data
    inside = [file for file in commit.files if name == "." or file.startswith(f"{name}/")]
    if not inside:
        raise UnknownName(_missing(call, repo, commit, rev, name))
    start = 0 if name == "." else len(name) + 1
    shown = dict.fromkeys(file[start:].partition("/")[0] + "/" * ("/" in file[start:]) for file in inside)
    value = {"id": commit.id, "path": name, "files": inside}
    return value, [f"tree {rev}:{'' if name == '.' else name}", "", *map(render.shown_path, shown)]


def _missing(call: Invocation, repo: Repository, commit: Revision, rev: str, name: str) -> str:
    """The sentence for a path that a commit does not hold, with the one that was meant."""
    said = f"{commit.short_id} has no file {quoted(name)}"
    here = call.tracked(repo, ["."])[0]
    if here != "." and f"{here}/{name}" in commit.files:
        return f"{said}; did you mean `persona show {rev}:./{name}`?"
    return f"{said}; `persona show {rev}:` lists its files"


def _decoded(data: bytes) -> list[str]:
    return data.decode("utf-8", "replace").removesuffix("\n").split("\n")
