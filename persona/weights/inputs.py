"""Input files: regular files of the user, opened for reading and never changed.

An input may be a symbolic link that ends at a regular file; the hub's cache is made of them. A FIFO or a
device is refused at once. An open file stays the file that was checked, even if another file is renamed over
its path.

**fingerprint** — size, times and inode of a file, which show a later write.

The clock that stamps files ticks a hundred times a second or more often. If a file was written in the tick in
which it is opened, it could be written again without a trace. So a reader that watches a file waits until
that tick is over.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from persona.errors import InvalidInput, SystemFault

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO})
_READ_BYTES = 1 << 30  # Linux reads at most 2 GiB - 4 KiB a call
_TICK_NS: Final = 20_000_000


class Fingerprint(NamedTuple):
    """Size in bytes, modification time in nanoseconds and inode of a file.

    Also the time of the inode's last change, which no program sets back.
    """

    size: int
    modified: int
    inode: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Fingerprint:
        """From the system's answer."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)

    def same_content(self, other: Fingerprint | None) -> bool:
        """Whether nothing was written between the two; a rename or another link is no matter."""
        return other is not None and self[:3] == other[:3]


def fingerprint(path: Path) -> Fingerprint | None:
    """The fingerprint of the target of `path`; None if there is none. Raises SystemFault."""
    try:
        return Fingerprint.of(os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SystemFault(f"{path}: cannot be looked at: {error.strerror}") from error


class InputFile:
    """An open regular file: path, size in bytes, and fingerprint when it was opened.

    Any thread may read at any offset.
    """

    __slots__ = ("_fd", "path", "seen", "size")

    def __init__(self, path: Path, *, watched: bool = False) -> None:
        """Opens `path`, through symbolic links. `watched`: so that `check_unchanged` misses no write.

        Raises InvalidInput if there is no regular file, SystemFault if the system does not let us read it.
        """
        self.path = path
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            status = os.fstat(self._fd)
        except OSError as error:
            self.close()
            raise _fault(path, error) from error
        except ValueError as error:  # a NUL in the path
            raise InvalidInput(f"{str(path)!r} is not a path; give the path of a checkpoint") from error
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise InvalidInput(f"{path}: not a regular file; give a checkpoint's directory or file")
        self.seen = Fingerprint.of(self._settled(status) if watched else status)
        self.size = self.seen.size

    def _settled(self, status: os.stat_result) -> os.stat_result:
        age = time.time_ns() - status.st_mtime_ns
        if 0 <= age < _TICK_NS:
            time.sleep((_TICK_NS - age) / 1e9)
            return os.fstat(self._fd)
        return status

    def check_unchanged(self) -> None:
        """Raises InvalidInput if the file was written since it was opened, or its path leads elsewhere."""
        now = Fingerprint.of(os.fstat(self._fd))
        if now != self.seen or fingerprint(self.path) != self.seen:
            raise changed(self.path)

    def read_into(self, offset: int, out: WriteableBuffer) -> None:
        """Fills all of `out` (writable, contiguous) with the bytes from `offset` on.

        Many threads may call it at once. Raises InvalidInput if the file ends before that (it was changed
        meanwhile), SystemFault on an I/O error.
        """
        view = memoryview(out)
        if view.nbytes == 0:
            return
        view = view.cast("B")
        done = 0
        while done < view.nbytes:
            try:
                count = os.preadv(self._fd, [view[done : done + _READ_BYTES]], offset + done)
            except OSError as error:
                raise _fault(self.path, error) from error
            if count == 0:
                raise InvalidInput(
                    f"{self.path}: was changed while it was read: it ends at byte {offset + done},"
                    f" {view.nbytes - done} bytes too early; run this again with a complete file"
                )
            done += count

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer at the end of the file."""
        data = bytearray(max(0, min(length, self.size - offset)))
        self.read_into(offset, data)
        return bytes(data)

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> InputFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def changed(path: Path) -> InvalidInput:
    """The error for an input that somebody writes while it is read."""
    return InvalidInput(f"{path}: was changed while it was read; run this again when nothing writes there")


def read_input(path: Path, *, limit: int) -> bytes:
    """All bytes of the regular file `path`.

    Raises InvalidInput if there are more than `limit`, or if they change meanwhile.
    """
    return read_watched(path, limit=limit)[0]


def read_watched(path: Path, *, limit: int) -> tuple[bytes, Fingerprint]:
    """Like `read_input`, with the file's fingerprint when it was opened."""
    with InputFile(path) as file:
        if file.size > limit:
            raise InvalidInput(
                f"{path}: {file.size} bytes, over the limit of {limit}; make it smaller or leave it out"
            )
        data = file.read(0, limit)
        file.check_unchanged()
        return data, file.seen


def stays_inside(directory: Path, path: Path) -> bool:
    """Whether the target of `path` lies in `directory`, or in the hub cache's `blobs` for it.

    A downloaded directory may hold links to anything on this machine.
    """
    top, place = Path(os.path.realpath(directory)), Path(os.path.realpath(path))
    if place.is_relative_to(top):
        return True
    for parent in (top, *top.parents):
        blobs = parent.parent / "blobs"
        if parent.name == "snapshots" and place.parent == blobs:
            return True
    return False


def list_directory(path: Path) -> list[str]:
    """The names in the directory `path`, sorted. Raises InvalidInput if there is none."""
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        raise _fault(path, error) from error


def json_object(path: Path, data: bytes, what: str) -> dict[str, Any]:
    """The JSON object that `data`, the bytes of a file of a `what`, holds. Raises InvalidInput if none."""
    again = f"repair the file or save the {what} again"
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: not valid JSON ({error}); {again}") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{path}: not a JSON object; {again}")
    return value


def _fault(path: Path, error: OSError) -> InvalidInput | SystemFault:
    if error.errno in _NOT_THERE:
        return InvalidInput(f"{path}: {os.strerror(error.errno or 0).lower()}; check the path")
    return SystemFault(f"{path}: cannot be read: {error.strerror}")
