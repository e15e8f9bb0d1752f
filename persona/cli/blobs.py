"""Files as commits hold them, named as `REV:PATH`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from persona.cli import render
from persona.errors import UnknownName, UsageError, quoted
from persona.history.results import Diff, FileChange

if TYPE_CHECKING:
    from persona.cli.invocation import Invocation
    from persona.face.revision import Revision
    from persona.repository import Repository


def in_a_commit(word: str) -> tuple[str, str] | None:
    """The revision and the path of `REV:PATH`; None if the word is a revision."""
    depth = 0
    for place, char in enumerate(word):
        depth += (char == "{") - (char == "}")
        if char == ":" and depth == 0 and (place or not word.startswith(":/")):
            return word[:place], word[place + 1 :]
    return None


def file_at(
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


def difference(call: Invocation, repo: Repository, words: Sequence[str]) -> Diff:
    """The difference of two files named as `REV:PATH`. An arrow joins two different paths, as in git."""
    places = [in_a_commit(word) for word in words]
    if len(places) != 2 or None in places:
        raise UsageError("name two files to compare, each as REV:FILE; or two revisions, and files after --")
    found: list[tuple[dict[str, Any], bytes]] = []
    for rev, path in (place for place in places if place is not None):
        value, data = file_at(call, repo, rev, path)
        if isinstance(data, list):
            raise UsageError(f"{rev}:{path} is no file: `persona diff REV REV -- {path or '.'}` compares it")
        found.append((value, data))
    (before, old), (after, new) = found
    name = after["path"] if before["path"] == after["path"] else f"{before['path']} => {after['path']}"
    change = FileChange(name, "changed", lambda: old, lambda: new)
    changes = () if old == new else (change,)
    files = tuple(one.path for one in changes)
    return Diff(before["id"], after["id"], {}, (), files, changes)
