"""How far a command is: a bar on a terminal, lines of JSON with `--json`, else nothing but that kernels are
being compiled. All but the last wait: a short command shows nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

import click

from persona.cli.terminal import say
from persona.progress import Compiling, Phase

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE = 1.0
"""Seconds before anything appears."""
LONG = 5.0
"""Seconds before lines of JSON appear, so that the output of a short command is only its answer."""
PAUSE = 0.5
"""Seconds at least between two lines of JSON."""


class ProgressBar:
    """Called as the library's `progress(phase, done, total)`. `close` wipes the bar away."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._bars: dict[bool, Progress] = {}
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, phase: Phase, done: int, total: int) -> None:
        """Shows how far the phase has come."""
        if monotonic() - self._began < PATIENCE and not isinstance(phase, Compiling):
            return
        in_bytes = _unit(phase) == "bytes"
        if in_bytes not in self._bars:
            self._stop()
            self._bars = {in_bytes: _bar(in_bytes)}
            self._bars[in_bytes].start()
        bar = self._bars[in_bytes]
        task = self._tasks.get(phase)
        if task is None:
            for other in self._tasks.values():
                bar.update(other, visible=False)
            task = self._tasks[phase] = bar.add_task(phase, total=total or None, unit=_unit(phase))
        detail = _detail(phase)
        bar.update(task, completed=done, total=total or None, description=f"{phase}{detail and ', '}{detail}")

    def close(self) -> None:
        """Takes the bar off the terminal."""
        self._stop()

    def _stop(self) -> None:
        for bar in self._bars.values():
            bar.stop()
        self._bars.clear()
        self._tasks.clear()


class JsonLines:
    """Writes a line of JSON to stdout, at most twice a second, before the answer.

    If kernels are being compiled, it says so on stderr as well, at once.
    """

    def __init__(self, began: float, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._next = began + LONG
        self._compiling = CompilingLine()

    def __call__(self, phase: Phase, done: int, total: int) -> None:
        """One message; most of them are left out."""
        self._compiling(phase, done, total)
        now = self._clock()
        if now < self._next:
            return
        self._next = now + PAUSE
        value = {"label": str(phase), "done": done, "total": total or None, "unit": _unit(phase)}
        value |= {"detail": detail} if (detail := _detail(phase)) else {}
        click.echo(json.dumps({"progress": value}))

    def close(self) -> None:
        """Nothing to take away."""


class CompilingLine:
    """Says on stderr, once, that kernels are being compiled, and nothing else.

    For runs that nobody watches.
    """

    def __init__(self) -> None:
        self._said = False

    def __call__(self, phase: Phase, done: int, total: int) -> None:
        """Looks for compiling."""
        if isinstance(phase, Compiling) and not self._said:
            self._said = True
            say(f"persona: {phase}")

    def close(self) -> None:
        """Nothing to take away."""


class Silence:
    """Shows nothing, because of `-q`."""

    def __call__(self, phase: Phase, done: int, total: int) -> None:
        """Looks at nothing."""

    def close(self) -> None:
        """Nothing to take away."""


Shower = ProgressBar | JsonLines | CompilingLine | Silence


def shower(began: float, *, quiet: bool, as_json: bool) -> Shower:
    """The display of progress for a command that began at that time."""
    if quiet:
        return Silence()
    if as_json:
        return JsonLines(began)
    return ProgressBar(began) if sys.stderr.isatty() else CompilingLine()


@contextmanager
def silence() -> Iterator[None]:
    """Silences the library's log in this block if `-q` is given."""
    import logging

    log = logging.getLogger("persona")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _unit(phase: str) -> str:
    return phase.unit if isinstance(phase, Phase) else "bytes"


def _detail(phase: str) -> str:
    return phase.detail if isinstance(phase, Phase) else ""


def _bar(in_bytes: bool) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amounts = (
        (DownloadColumn(), TransferSpeedColumn())
        if in_bytes
        else (MofNCompleteColumn(), TextColumn("{task.fields[unit]}"))
    )
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *amounts,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
