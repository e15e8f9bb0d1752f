"""The one progress bar: on stderr, only on a terminal, only once a command has taken more than a second."""

from __future__ import annotations

import sys
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

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


def progress_bar(quiet: bool) -> ProgressBar | None:
    """A bar for this process, or None where nobody watches stderr."""
    return ProgressBar() if not quiet and sys.stderr.isatty() else None


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
