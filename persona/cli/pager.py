"""**pager** — a program such as `less` through which a user reads a long answer on a terminal.

It starts with the first line of an answer, so a command that fails says so directly. As in git, persona pages
only on a terminal, and never with `--json`.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from persona.cli.terminal import say, silence_stdout

if TYPE_CHECKING:
    from subprocess import Popen

DEFAULT = "less"
LESS = "FRX"
"""How `less` runs if LESS is not set: it ends at once if all fits, shows colours, and leaves the text."""

_running: list[Popen[bytes]] = []


def on_terminal() -> bool:
    """Whether a person reads stdout: on a terminal, or on one behind the pager."""
    return bool(_running) or sys.stdout.isatty()


def chosen(setting: Callable[[str], str | None]) -> str | None:
    """The command of the user's pager, None for none.

    `setting` reads the user's own settings: a repository may come from a stranger, so it names no program to
    run.
    """
    for command in (
        os.environ.get("PERSONA_PAGER"),
        setting("core.pager"),
        os.environ.get("PAGER"),
        DEFAULT,
    ):
        if command is not None:
            return None if command.strip() in ("", "cat") else command
    return None


def needless(command: str, text: str) -> bool:
    """Whether `less`, as it runs by default, would only print the text: it fits on the screen."""
    if command != DEFAULT or "LESS" in os.environ:
        return False
    import shutil

    columns, rows = shutil.get_terminal_size()
    lines = click.unstyle(text).split("\n")
    return sum(max(1, -(-len(line) // columns)) for line in lines) < rows


def start(command: str) -> None:
    """Sends stdout through the pager from now on, if the pager is installed."""
    import subprocess

    if (problem := _problem(command)) is not None:
        if command != DEFAULT:
            say(f"the pager `{command}` {problem}")
        return
    environment = {"LESS": LESS, "LV": "-c", **os.environ}
    sys.stdout.flush()
    pager = subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE, env=environment)
    assert pager.stdin is not None
    os.dup2(pager.stdin.fileno(), sys.stdout.fileno())
    pager.stdin.close()
    _running.append(pager)


def _problem(command: str) -> str | None:
    """Why a shell command cannot be a pager, as far as that can be known before it runs; else None."""
    import shlex
    import shutil
    import subprocess

    try:
        first = shlex.split(command)[0]
    except ValueError:
        return "is not a shell command"
    if shutil.which(first) is None and re.fullmatch(r"[\w@%+:,./-]+", first):
        # A word without the shell's own characters: a program, or a word of the shell, such as `exec`.
        known = subprocess.run(["sh", "-c", 'command -v "$1"', "sh", first], stdout=subprocess.DEVNULL)
        return None if known.returncode == 0 else "was not found"
    return None


def finish() -> None:
    """Ends the answer and waits until the user has read it. Ctrl-C is the pager's meanwhile."""
    if not _running:
        return
    pager = _running.pop()
    with suppress(OSError, ValueError):  # the user has left the pager
        sys.stdout.flush()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        silence_stdout()  # the last end of the pipe: now the pager knows that the answer is complete
        pager.wait()
    finally:
        signal.signal(signal.SIGINT, before)
