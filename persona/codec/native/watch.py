"""The listeners for kernels that are being compiled, and for code that cannot be kept."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

Tell = Callable[[str], None]

COMPILING: Final = "compiling kernels for this processor (about a minute, once)"

_LOG = logging.getLogger("persona")
_LOCK = threading.Lock()
_WATCHERS: list[Tell] = []
_LOGGED: set[str] = set()


@contextmanager
def watch_compilation(tell: Tell | None) -> Iterator[None]:
    """Calls `tell` with a sentence whenever a kernel has to be compiled meanwhile."""
    if tell is None:
        yield
        return
    _WATCHERS.append(tell)
    try:
        yield
    finally:
        _WATCHERS.remove(tell)


def tell_of_compilation(text: str = COMPILING) -> None:
    """Tells the watchers that a kernel is being compiled.

    If there are none, and none was told before, logs it, once a process.
    """
    watchers = list(_WATCHERS)
    for tell in watchers:
        tell(text)
    if watchers:
        _LOGGED.add(text)
    else:
        log_once(text)


def log_once(text: str) -> None:
    """Logs a warning of the logger `persona`, each text once a process; Python prints it to stderr unless a
    program configures logging.
    """
    with _LOCK:
        new = text not in _LOGGED
        _LOGGED.add(text)
    if new:
        _LOG.warning("persona: %s", text)
