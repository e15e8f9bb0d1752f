"""The message of a commit or a tag: typed, read from a file, or written in the user's editor."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from persona.cli.invocation import Invocation
from persona.errors import InvalidInput, Refused, UsageError
from persona.frozen import dataclass
from persona.store import files
from persona.store.store import DIRECTORY

if TYPE_CHECKING:
    from persona.repository import Repository

MAX_BYTES: Final = 16 << 20
"""Bytes of a message that is read."""
_COMMENT: Final = "#"
_NO_TERMINAL: Final = "there is no terminal to open an editor on; EDITOR names one that needs none"
_NOT_FOUND: Final = 127
"""The exit code of a shell that does not find a program."""


@dataclass(frozen=True)
class Draft:
    """A message that an editor opens with.

    `hints` stand below it as comments. `file`: its name in `.persona`, which editors know. `instead`: another
    way to give a message, if there is one. `undone`: the words for a command that got no message.
    `may_be_empty`: an empty text is an answer too.
    """

    text: str
    hints: Sequence[str]
    file: str = "COMMIT_EDITMSG"
    instead: str | None = "-m MSG or -F FILE"
    undone: str = "nothing was committed"
    may_be_empty: bool = False


def read_message(call: Invocation, paragraphs: tuple[str, ...], file: str | None) -> str | None:
    """The message of `-m` (each one a paragraph) or `-F`; None if neither was given."""
    if paragraphs and file is not None:
        raise UsageError("-m and -F both give a message; use one of them")
    if paragraphs:
        return _decoded(call, os.fsencode("\n\n".join(paragraphs)))
    if file is None:
        return None
    if file == "-":
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        with call.path(file).open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"the message in {file} is longer than {MAX_BYTES} bytes; give a shorter one")
    return _decoded(call, data).rstrip("\n")


def edit_message(call: Invocation, repo: Repository, draft: Draft) -> str:
    """The message that the user writes in the editor, without comments.

    Raises `UsageError` without a terminal. The text stays in its file, so that it is not lost if the command
    fails afterwards.
    """
    if not can_edit(call):
        raise UsageError(f"no message, and no terminal to open an editor on; give one with {draft.instead}")
    return _edited(call, repo, draft)


def edit_list(call: Invocation, repo: Repository, text: str) -> str:
    """The list of an interactive rebase as the user leaves it in the editor, with its comments."""
    draft = Draft(text, (), file="REBASE_TODO", instead=None, undone="nothing was rebased")
    editor = _list_editor(call)
    if editor is None:
        raise UsageError(_NO_TERMINAL)
    place = repo.root / DIRECTORY / draft.file
    files.write_file(place, text.encode("utf-8", "replace"), durable=False)
    _run(editor, place, draft)
    return _decoded(call, files.read_file(place, limit=MAX_BYTES) or b"")


def edit_commit(call: Invocation, repo: Repository, text: str, undone: str = "nothing was rebased") -> str:
    """The message of a commit that another command makes, as the user leaves it in the editor."""
    if not can_edit(call):
        raise UsageError(_NO_TERMINAL)
    return _edited(call, repo, Draft(text.rstrip("\n"), EDITOR_HINT, instead=None, undone=undone))


def can_edit(call: Invocation) -> bool:
    """Whether there is an editor: one that the user has named, or, on a terminal, vi."""
    return _editor(call) is not None


def _edited(call: Invocation, repo: Repository, draft: Draft) -> str:
    place = repo.root / DIRECTORY / draft.file
    comments = "".join(f"{_COMMENT} {line}".rstrip() + "\n" for line in draft.hints)
    files.write_file(place, f"{draft.text}\n{comments}".encode("utf-8", "replace"), durable=False)
    editor = _editor(call)
    assert editor is not None
    _run(editor, place, draft)
    text = _decoded(call, files.read_file(place, limit=MAX_BYTES) or b"")
    lines = [line.rstrip() for line in text.splitlines() if not line.startswith(_COMMENT)]
    message = "\n".join(lines).strip("\n")
    if not message and not draft.may_be_empty:
        raise Refused(f"the message is empty; {draft.undone}")
    files.write_file(place, f"{message}\n".encode(), durable=False)
    again = f"; give it with {draft.instead}" if draft.instead is not None else ""
    call.drafted = f"the message that you wrote is kept in {place.absolute()}{again}"
    return message


def _decoded(call: Invocation, data: bytes) -> str:
    """Text as UTF-8, else, as git takes it, as Latin-1."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        call.remark("the message is not UTF-8; it was read as Latin-1")
        return data.decode("latin-1")


def _list_editor(call: Invocation) -> str | None:
    """The editor of the list of a rebase, in git's order."""
    from persona.cli import identity

    named = os.environ.get("GIT_SEQUENCE_EDITOR") or identity.git_settings(os.sep).get("sequence.editor")
    return named or _editor(call)


def _editor(call: Invocation) -> str | None:
    """The command that the user has chosen, in git's order; vi on a terminal, and None without one.

    As in git, VISUAL is for terminals that can move the cursor. persona's own variable and setting come
    first. A repository may come from a stranger, so neither its config nor that of a git repository around it
    names a program to run.
    """
    from persona.cli import identity

    return (
        os.environ.get("PERSONA_EDITOR")
        or os.environ.get("GIT_EDITOR")
        or (call.user_settings().get("core.editor") if call.user_config else None)
        or identity.git_settings(os.sep).get("core.editor")
        or (os.environ.get("VISUAL") if os.environ.get("TERM", "dumb") != "dumb" else None)
        or os.environ.get("EDITOR")
        or ("vi" if call.interactive else None)
    )


def _run(editor: str, place: Path, draft: Draft) -> None:
    """Lets the editor, a command of the shell, change the file. Raises `Refused` if it fails."""
    import subprocess

    try:
        with _interrupts_left_to_the_editor():
            code = subprocess.run(
                ["sh", "-c", f'{editor} "$@"', editor, str(place)],
                check=False,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            ).returncode
    except (OSError, ValueError) as error:
        raise Refused(f"the editor `{editor}` cannot be run: {error}; {draft.undone}") from None
    if code in (-signal.SIGINT, 128 + signal.SIGINT):
        raise KeyboardInterrupt
    if code:
        why = "was not found" if code == _NOT_FOUND else f"failed with exit code {code}"
        other = f", or give the message with {draft.instead}" if draft.instead is not None else ""
        raise Refused(
            f"the editor `{editor}` {why}; {draft.undone}. Choose another with "
            f"`persona config --global core.editor NAME`{other}"
        )


@contextmanager
def _interrupts_left_to_the_editor() -> Iterator[None]:
    """Ctrl-C in an editor is the editor's. It reaches every process of the terminal."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


EDITOR_HINT = [
    "Say what this commit changes. Lines that start with '#' are left out,",
    "and an empty message gives the commit up.",
    "",
]
