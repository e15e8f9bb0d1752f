"""The standard streams: which characters may go to a terminal, and what happens when a stream is closed."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from contextlib import suppress

import click

_UNSEEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters; U+009B begins a command as ESC [ does
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2060-\u206f\u3164\ufeff\uffa0"
    "\u2028-\u202e\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e007f"
    "\ud800-\udfff"  # bytes of a file name that are not UTF-8
)
"""Characters that control a terminal, reverse the direction of text, or cannot be seen.

Of white space only the tab, the line feed and visible spaces are left.
"""
_HOSTILE = re.compile(f"[{_UNSEEN}]")
_JOINERS = "\u200c\u200d"
_STYLE = "(?:[0-3]|[39][0-7])"
_COLOUR = rf"\x1b\[{_STYLE}(?:;{_STYLE})*m"
_CARRIAGE_RETURN = rf"\r(?=(?:{_COLOUR})*(?:\n|\Z))"  # at the end of a line, where it overwrites nothing
_HOSTILE_OR_OURS = re.compile(rf"({_COLOUR}|{_CARRIAGE_RETURN})|[{_UNSEEN}]")


def printable(text: str) -> str:
    """Text of others, each character that a terminal must not see replaced by `?`."""
    return _HOSTILE.sub("?", text)


def json_line(text: str) -> str:
    """A line of JSON for a terminal: the characters that `printable` replaces become JSON's own escapes."""
    return _HOSTILE.sub(lambda found: json.dumps(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """A name for a terminal: `printable`, and no line feed or tab, which would look like another line."""
    return printable(text).replace("\n", "?").replace("\t", "?")


def echo(text: str, *, nl: bool = True) -> None:
    """Writes to stdout. Only persona's own colours, bold type and ends of lines get through to a terminal."""
    click.echo(_HOSTILE_OR_OURS.sub(lambda found: found[1] or "?", text), nl=nl)


def speak(piece: str) -> None:
    """Writes a piece of a model's text to stdout at once: on a terminal without what `printable` replaces,
    except joiners, which emoji and many scripts need; elsewhere as it is.
    """
    if sys.stdout.isatty():
        piece = _HOSTILE.sub(lambda found: found[0] if found[0] in _JOINERS else "?", piece)
    sys.stdout.write(piece)
    sys.stdout.flush()


def say(sentence: str) -> None:
    """Writes a sentence to stderr. A closed stderr stops no command."""
    with suppress(OSError, ValueError):
        click.echo(printable(sentence), err=True)


def open_streams() -> None:
    """Opens the null device for each standard stream that the caller closed, as git does.

    Otherwise the next file that is opened, a pack or a lock, becomes the standard output.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    sys.stdin = sys.stdin or io.TextIOWrapper(io.FileIO(0, "r", closefd=False))
    sys.stdout = sys.stdout or io.TextIOWrapper(io.FileIO(1, "w", closefd=False))
    sys.stderr = sys.stderr or io.TextIOWrapper(io.FileIO(2, "w", closefd=False), line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def silence_stdout() -> None:
    """Discards output that is still to be flushed: the reader of the pipe has left."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
