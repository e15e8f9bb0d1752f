"""The creation time of an inode, which no program can set.

`chmod`, `chown`, hard links and backup tools change the inode's other times, but not this one. It is read on
Linux only: macOS lets programs set it, and Python's `os.stat` does not report it there.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path
from typing import Final

_AT_FDCWD: Final = -100
_AT_SYMLINK_NOFOLLOW: Final = 0x100
_STATX_BTIME: Final = 0x800
_STATX_BYTES: Final = 256
_BTIME_OFFSET: Final = 80  # of struct statx: int64 seconds, uint32 nanoseconds


def birth_time(path: Path) -> int | None:
    """Nanoseconds since 1970; None if the system, its C library or the file system does not report it."""
    if sys.platform != "linux":
        return None
    try:
        statx = ctypes.CDLL(None).statx
    except (AttributeError, OSError):
        return None
    found = ctypes.create_string_buffer(_STATX_BYTES)
    if statx(_AT_FDCWD, os.fsencode(path), _AT_SYMLINK_NOFOLLOW, _STATX_BTIME, found) != 0:
        return None
    (mask,) = struct.unpack_from("=I", found, 0)
    seconds, nanoseconds = struct.unpack_from("=qI", found, _BTIME_OFFSET)
    return seconds * 10**9 + nanoseconds if mask & _STATX_BTIME else None
