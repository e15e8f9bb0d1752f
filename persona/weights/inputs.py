"""Input files: regular files of the user's world, opened for reading and never changed.

An input may be a symbolic link (the hub's cache is made of them) that ends at a regular file. A FIFO or a
device is refused without waiting on it. An open file stays the one that was checked: whoever renames another
over its path changes nothing for its reader.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from persona.errors import InvalidInput, SystemFault

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO})
_READ_BYTES = 1 << 30  # Linux reads at most 2 GiB - 4 KiB a call


class InputFile:
    """An open regular file: its path, its size in bytes, reads at offsets from any thread."""

    __slots__ = ("_fd", "path", "size")

    def __init__(self, path: Path) -> None:
        """Open `path`, through symbolic links.

        Raises InvalidInput where there is no regular file, SystemFault where the system does not let us read
        it.
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
            raise InvalidInput(f"{str(path)!r} is not a path; give that of a checkpoint") from error
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise InvalidInput(f"{path}: not a regular file; give a checkpoint's directory or file")
        self.size = status.st_size

    def read_into(self, offset: int, out: WriteableBuffer) -> None:
        """Fill all of `out` (writable, contiguous) with the bytes from `offset` on; safe from many threads at
        once.

        Raises InvalidInput if the file ends before that (it was changed meanwhile), SystemFault on an I/O
        error.
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
                    f"{self.path}: ends at byte {offset + done}, {view.nbytes - done} bytes too early; "
                    "it was changed while it was read, so try again with a complete file"
                )
            done += count

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer where the file ends."""
        data = bytearray(max(0, min(length, self.size - offset)))
        self.read_into(offset, data)
        return bytes(data)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> InputFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def read_input(path: Path, *, limit: int) -> bytes:
    """All bytes of the regular file `path`. Raises InvalidInput where there are more than `limit`."""
    with InputFile(path) as file:
        if file.size > limit:
            raise InvalidInput(
                f"{path}: {file.size} bytes, over the limit of {limit}; make it smaller or leave it out"
            )
        return file.read(0, limit)


def list_directory(path: Path) -> list[str]:
    """The names in the directory `path`, sorted. Raises InvalidInput where there is none."""
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        raise _fault(path, error) from error


def _fault(path: Path, error: OSError) -> InvalidInput | SystemFault:
    if error.errno in _NOT_THERE:
        return InvalidInput(f"{path}: {os.strerror(error.errno or 0).lower()}; give the path of a checkpoint")
    return SystemFault(f"{path}: cannot be read: {error.strerror}")
