"""The program in a process of its own: with pipes, or on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
from pathlib import Path
from time import monotonic

PROGRAM = [sys.executable, "-c", "from persona.cli.main import main; main()"]
ROOT = Path(__file__).parents[2]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def persona_process(directory: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *words],
        cwd=directory,
        env=environment(**more),
        capture_output=True,
        text=True,
        check=False,
    )


def on_a_terminal(directory: Path, *words: str, **more: str) -> tuple[int, str]:
    """Runs a command on a pseudo-terminal; returns its exit code and all that it wrote there."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *words],
        cwd=directory,
        env=environment(TERM="xterm", **more),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    written = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        if not piece:
            break
        written += piece
    os.close(master)
    return process.wait(), written.decode().replace("\r\n", "\n")


def write_editor(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


class Terminal:
    """A command on a pseudo-terminal, to type to and to read from. `seen`: all that it wrote so far."""

    def __init__(self, directory: Path, *words: str, **more: str) -> None:
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [*PROGRAM, *words],
            cwd=directory,
            env=environment(**{"TERM": "dumb", "COLUMNS": "80", **more}),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)
        self.seen = ""
        self._read = 0

    def type(self, text: str) -> None:
        """Types a text; "\\x03" is Ctrl-C, "\\x04" is Ctrl-D."""
        os.write(self._ours, text.encode())

    def interrupt(self, text: str, every: float = 5, seconds: float = 120) -> str:
        """Types Ctrl-C until this text appears, as a person would; returns all before it, and it.

        Once is not always enough at a prompt: a signal that comes after readline has written the prompt,
        and before it waits for a key, is seen only with the next key or signal.
        """
        deadline = monotonic() + seconds
        self.type("\x03")
        while self.seen.find(text, self._read) < 0 and monotonic() < deadline:
            if select.select([self._ours], [], [], every)[0]:
                self._more(deadline, text)
            else:
                self.type("\x03")
        return self.until(text, seconds=0)

    def until(self, *texts: str, seconds: float = 120) -> str:
        """Reads until one of these texts appears that was not read before; returns all before it, and it."""
        deadline = monotonic() + seconds
        while not (found := [(at, text) for text in texts if (at := self.seen.find(text, self._read)) >= 0]):
            self._more(deadline, " or ".join(texts))
        start, self._read = self._read, min(at + len(text) for at, text in found)
        return self.seen[start : self._read]

    def ends(self, seconds: float = 120) -> int:
        """Reads until the command ends; returns its exit code."""
        deadline = monotonic() + seconds
        while self._more(deadline, "the end"):
            pass
        os.close(self._ours)
        return self._process.wait(seconds)

    def _more(self, deadline: float, wanted: str) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - monotonic()))
        if not ready:
            self._process.kill()
            raise AssertionError(f"no {wanted!r} in time; the terminal has: {self.seen!r}")
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # Linux: the other end is closed
            data = b""
        if not data and wanted != "the end":
            raise AssertionError(f"no {wanted!r}; the terminal has: {self.seen!r}")
        self.seen += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)


def _take_terminal() -> None:
    """Makes the standard input the controlling terminal, so that Ctrl-C interrupts the command."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
