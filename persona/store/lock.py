"""Kernel locks: held through an open file, released when their holder dies, never broken by age.

Every command that reads or writes holds `.persona/lock` shared. A command that deletes objects holds it
exclusive.
**work tree lock** — held by the one command that changes the files beside `.persona`.
**refs lock** — held by one move of refs, for milliseconds.

A process that makes a store holds a lock on the directory around it, as the writer of weights does.

The lock is `flock` on an open file description, so two threads of one process exclude each other as two
processes do. A child process that is forked meanwhile shares the description. So the process that took the
lock unlocks it explicitly: if it only closed the file, the lock would last until the child ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from persona.errors import BusyError, SystemFault
from persona.store import files

REFS_WAIT: Final = 30.0
"""Seconds that a move of a ref waits for another one to end."""
SHARED_WAIT: Final = 1.0
"""Seconds that a command waits for an exclusive holder to end."""


@contextmanager
def _held(path: Path, operation: int, wait: float, busy: str) -> Iterator[None]:
    fd = files.lock_descriptor(path)
    owner = os.getpid()
    try:
        deadline = time.monotonic() + wait
        pause = 0.0005
        while True:
            try:
                fcntl.flock(fd, operation | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise BusyError(busy) from None
            except OSError as error:
                raise files.system_fault("lock", path, error) from error
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)
        yield
    finally:
        if os.getpid() == owner:  # a forked child that leaves this block must not unlock its parent's lock
            with suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)
        files.close(fd)


@contextmanager
def shared(root: Path, *, wait: float = SHARED_WAIT) -> Iterator[None]:
    """Holds `root/lock` shared (`root` is `.persona`); `BusyError` when it is held exclusive."""
    busy = f"{root} is being cleaned up by another command; run this again when it is done"
    with _held(root / "lock", fcntl.LOCK_SH, wait, busy):
        yield


@contextmanager
def exclusive(root: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Holds `root/lock` exclusive; `BusyError` when any other command runs."""
    busy = f"{root} is in use by another command; run this again when it is done"
    with _held(root / "lock", fcntl.LOCK_EX, wait, busy):
        yield


@contextmanager
def worktree_lock(root: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Holds the work tree lock, `root/state/worktree.lock`; raises `BusyError` if another command does."""
    files.mkdirs(root / "state", below=root)
    busy = f"another command is changing the work tree {root.parent}; run this again when it is done"
    with _held(root / "state" / "worktree.lock", fcntl.LOCK_EX, wait, busy):
        yield


@contextmanager
def run_lock(directory: Path, name: str) -> Iterator[None]:
    """Holds the lock of a training run: on its directory. Raises `BusyError` if another command has it."""
    with _held(directory, fcntl.LOCK_EX, 0.0, f"another command trains {name}; wait until it ends"):
        yield


@contextmanager
def config_lock(directory: Path, *, wait: float = REFS_WAIT) -> Iterator[None]:
    """Holds the lock that orders edits of a config file: on the directory that it lies in."""
    with _held(directory, fcntl.LOCK_EX, wait, f"another command is changing the config in {directory}"):
        yield


@contextmanager
def refs_lock(root: Path, *, wait: float = REFS_WAIT) -> Iterator[None]:
    """Holds the lock that orders moves of refs: on the directory `root/refs` itself."""
    files.mkdirs(root / "refs", below=root)
    with _held(root / "refs", fcntl.LOCK_EX, wait, f"another command is moving the refs of {root}"):
        yield


@contextmanager
def refs_steady(root: Path, *, wait: float = REFS_WAIT) -> Iterator[None]:
    """Holds the refs lock shared, so that no ref moves meanwhile.

    A reader that cannot have it, as on a file system without locks, goes on without it.
    """
    with ExitStack() as held:
        if os.path.isdir(root / "refs"):
            with suppress(BusyError, SystemFault):
                held.enter_context(_held(root / "refs", fcntl.LOCK_SH, wait, ""))
        yield


@contextmanager
def making(worktree: Path, *, wait: float = REFS_WAIT) -> Iterator[None]:
    """Holds the lock of a process that makes a store in a directory: on the directory itself."""
    place = Path(os.path.realpath(worktree))
    with _held(place, fcntl.LOCK_EX, wait, f"another command is writing into {worktree}"):
        yield
