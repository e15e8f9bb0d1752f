"""Machine code on disk: the code that was installed with persona, and the code that this machine compiled.

A file is the BLAKE3 of its name and its code, then the code. The digest shows damage, and files that were
renamed. A file is read only if nobody but this user, root, or the user who installed persona can have written
it (docs/threat-model.md).
"""

from __future__ import annotations

import fcntl
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from blake3 import blake3

from persona.codec.native import watch
from persona.codec.native.processor import Target
from persona.errors import PersonaError
from persona.limits import MIB
from persona.store import files

MAX_CODE_BYTES: Final = 16 * MIB
SHIPPED: Final = Path(__file__).parent / "shipped"
"""A folder for each level, filled when persona is built."""
_CHECK_BYTES: Final = 32


def cached_in() -> list[Path]:
    """The folders for code that this machine compiled: the user's cache, then beside the sources."""
    folders = [Path(__file__).parent / "__pycache__"]
    with suppress(KeyError):
        folders.insert(0, Path(pwd.getpwuid(os.getuid()).pw_dir) / ".cache" / "persona" / "kernels")
    return folders


def shipped_in(level: Target) -> list[Path]:
    """The folder of the installed code for a level."""
    return [SHIPPED / level.name]


def read(file: str, folders: list[Path]) -> bytes | None:
    """The code in the first of these folders that has it, undamaged."""
    for folder in folders:
        path = folder / file
        try:
            data = files.read_file(path, limit=MAX_CODE_BYTES) if _trusted(path) else None
        except PersonaError:
            continue
        if data and data[:_CHECK_BYTES] == _check(file, data[_CHECK_BYTES:]):
            return data[_CHECK_BYTES:]
    return None


def write(file: str, code: bytes, folders: list[Path]) -> Path | None:
    """Keeps code in the first of these folders that takes it, or nowhere. Returns the file."""
    for folder in folders:
        path = folder / file
        try:
            files.mkdirs(folder)
            files.remove(path)  # the new file is to have permissions of its own
            files.write_file(path, [_check(file, code), code], durable=False)
        except PersonaError:
            continue
        if _trusted(path):
            return path
    return None


def keep(file: str, code: bytes) -> None:
    """Keeps code that this machine compiled. Logs a warning if it cannot."""
    if write(file, code, cached_in()) is None:
        places = " and ".join(map(str, cached_in()))
        watch.log_once(f"compiled kernels cannot be kept in {places}, so every process compiles them again")


@contextmanager
def compiling() -> Iterator[None]:
    """One process at a time compiles. A process that has no place to keep code does not wait."""
    for folder in cached_in():
        try:
            files.mkdirs(folder)
            descriptor = files.lock_descriptor(folder)
        except PersonaError:
            continue
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked child may hold the descriptor
            files.close(descriptor)
        return
    yield


def _check(file: str, code: bytes) -> bytes:
    return blake3(file.encode() + b"\0" + code).digest()


def _trusted(path: Path) -> bool:
    """Whether nobody else can have written a file, whose code is going to run."""
    try:
        status, source = os.stat(path), os.stat(__file__)
    except OSError:
        return False
    return status.st_uid in (os.getuid(), 0, source.st_uid) and not status.st_mode & stat.S_IWOTH
