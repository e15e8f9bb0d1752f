"""The one progress bar: on stderr, only on a terminal, only once a command has taken more than a second."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from persona.cli.terminal import say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

COMPILING = "compiling kernels"
"""How the label begins under which the library says that kernels are being compiled."""
PATIENCE = 1.0
"""Seconds before the bar appears."""


class ProgressBar:
    """Called as the library's `progress(label, bytes done, bytes in all)`. `close` wipes the bar away."""

    def __init__(self) -> None:
        self._began = monotonic()
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, label: str, done: int, total: int) -> None:
        """Shows how far the work called `label` has come."""
        if self._bar is None:
            if monotonic() - self._began < PATIENCE:
                return
            self._bar = _bar()
            self._bar.start()
        task = self._tasks.get(label)
        if task is None:
            for other in self._tasks.values():
                self._bar.update(other, visible=False)
            task = self._tasks[label] = self._bar.add_task(label, completed=done, total=total or None)
        self._bar.update(task, completed=done, total=total or None)

    def close(self) -> None:
        """Takes the bar off the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._tasks.clear()


class CompilingLine:
    """Where nobody watches: says on stderr, once, that kernels are being compiled, and nothing else."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, label: str, done: int, total: int) -> None:
        """Looks for the label of compiling."""
        if label.startswith(COMPILING) and not self._said:
            self._said = True
            say(f"persona: {label}")

    def close(self) -> None:
        """Nothing to take away."""


def progress_bar(quiet: bool) -> ProgressBar | CompilingLine | None:
    """A bar for this process, a line at most where stderr is no terminal, nothing where that is asked for."""
    if quiet:
        return None
    return ProgressBar() if sys.stderr.isatty() else CompilingLine()


@contextmanager
def silence() -> Iterator[None]:
    """The library's log says nothing meanwhile, where `-q` asks for that."""
    import logging

    log = logging.getLogger("persona")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
