"""The only module that writes, renames or unlinks on disk.

All system calls go through `calls`, so that a test can record them or make them fail. A new file is filled
beside its target under a name of its own, and published whole by a rename. The process that makes it holds a
kernel lock on it.
**leftover** — an unfinished file that nobody holds a lock on, because its command died.

Invariants: a file appears whole or not at all; its content is on the disk before its name is; a failed fsync
is never retried and publishes nothing; any failure removes the unfinished file and raises `SystemFault`.
Nothing here follows a symbolic link in the last part of a path, opens a FIFO or device as a file, or writes
through a hard link.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn

from persona.errors import IntegrityError, PersonaError, SystemFault

Buffer = bytes | bytearray | memoryview

WRITE_BACK_BYTES: Final = 32 << 20
"""Bytes after which an output asks the kernel to start writing, so that the fsync at the end is short."""
_IOV_MAX: Final = 512
_OURS: Final = re.compile(r"[a-z]+-\d+-[0-9a-f]{16}")
_BESIDE: Final = re.compile(r"\.(?:persona-weights|.{1,64}\.tmp)-\d+-[0-9a-f]{16}", re.DOTALL)
"""Names of outputs in a directory that is ours, and beside the user's files."""
_ASIDE: Final = re.compile(r"\..{1,64}\.old-\d+-[0-9a-f]{16}", re.DOTALL)
"""Names of files that were moved aside, which may be the user's own."""
_NO_SYNC: Final = (errno.EINVAL, errno.ENOTSUP, errno.ENOTTY)
"""Errors of file systems that have no F_FULLFSYNC, or cannot sync a directory (exFAT, SMB, 9p)."""
_NO_SUCH_CALL: Final = frozenset(
    {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK}
)
"""Errors of file systems that have no hard links, or cannot exchange two names."""

Known = Callable[[Path], bool]
"""Whether a file is the one that the caller has seen.

It is asked about the file that was replaced, which has another name by then.
"""


class Calls:
    """The system calls that touch the disk, one method each.

    Tests put a subclass in their place with `replaced_calls`.
    """

    def __init__(self) -> None:
        self._sync_file_range: Callable[[int, int, int, int], object] | None = None
        self._renameat2: Callable[[int, bytes, int, bytes, int], int] | None = None

    def open(self, path: Path | str, flags: int, mode: int = 0o666) -> int:
        """Opens a file; `flags` as of open(2)."""
        return os.open(path, flags, mode)

    def close(self, fd: int) -> None:
        """Closes a descriptor."""
        os.close(fd)

    def pread(self, fd: int, count: int, offset: int) -> bytes:
        """Reads up to `count` bytes at `offset`."""
        return os.pread(fd, count, offset)

    def append(self, fd: int, data: Buffer) -> int:
        """Writes to a descriptor that appends."""
        return os.write(fd, data)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        """Writes buffers one after another at `offset`."""
        return os.pwritev(fd, buffers, offset)

    def truncate(self, fd: int, length: int) -> None:
        """Sets the length of a file."""
        os.ftruncate(fd, length)

    def fsync(self, fd: int) -> None:
        """Makes a file or directory durable, also past the drive's own cache if the system can."""
        if sys.platform == "darwin":
            try:
                fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
                return
            except OSError as error:
                if error.errno not in _NO_SYNC:
                    raise
        os.fsync(fd)

    def set_mode(self, fd: int, mode: int) -> None:
        """Sets the permissions of an open file."""
        os.fchmod(fd, mode)

    def rename(self, source: Path, target: Path) -> None:
        """Replaces `target` by `source`."""
        os.replace(source, target)

    def exchange(self, one: Path, other: Path) -> None:
        """Swaps two names in one step. Raises `OSError` with ENOSYS if the system cannot."""
        if self._renameat2 is None:
            self._renameat2 = _find_renameat2()
        if self._renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2):  # AT_FDCWD, RENAME_EXCHANGE
            import ctypes

            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(one), None, str(other))

    def link(self, source: Path, target: Path) -> None:
        """Gives a file a second name; raises `FileExistsError` if that name is taken."""
        os.link(source, target, follow_symlinks=False)

    def unlink(self, path: Path) -> None:
        """Removes a name."""
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        """Makes a directory."""
        os.mkdir(path)

    def rmdir(self, path: Path) -> None:
        """Removes an empty directory."""
        os.rmdir(path)

    def free(self, directory: Path) -> int | None:
        """Bytes that may still be written on a directory's file system; None if it does not report them."""
        found = os.statvfs(directory)
        return found.f_bavail * found.f_frsize if found.f_blocks else None

    def start_write_back(self, fd: int) -> None:
        """A hint, on Linux only: begin writing dirty pages. Errors show again at the fsync."""
        if sys.platform != "linux":
            return
        if self._sync_file_range is None:
            import ctypes

            try:
                function = ctypes.CDLL(None).sync_file_range
            except AttributeError:
                self._sync_file_range = _no_write_back
            else:
                function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
                self._sync_file_range = function
        self._sync_file_range(fd, 0, 0, 2)  # SYNC_FILE_RANGE_WRITE, to the end of the file


def _no_write_back(fd: int, offset: int, length: int, flags: int) -> None:
    pass


def _find_renameat2() -> Callable[[int, bytes, int, bytes, int], int]:
    if sys.platform == "linux":
        import ctypes

        with suppress(AttributeError):
            function: Callable[[int, bytes, int, bytes, int], int]
            function = ctypes.CDLL(None, use_errno=True).renameat2
            return function
    return _no_exchange


def _no_exchange(*_: object) -> int:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


calls: Calls = Calls()


@contextmanager
def replaced_calls(other: Calls) -> Iterator[Calls]:
    """Puts `other` in the place of `calls` meanwhile, for every thread. For tests."""
    global calls
    before, calls = calls, other
    try:
        yield other
    finally:
        calls = before


def system_fault(doing: str, path: Path | str, error: OSError) -> SystemFault:
    """The error for `error`: the action, the path, and the system's reason."""
    why = error.strerror or str(error)
    advice = {
        errno.ENOSPC: "; make room and run the command again",
        errno.EDQUOT: "; make room and run the command again",
        errno.EACCES: "; check the permissions",
        errno.EROFS: "; the file system is mounted read-only",
    }.get(error.errno or 0, "")
    return SystemFault(f"cannot {doing} {path}: {why}{advice}")


def require_room(directory: Path, nbytes: int) -> None:
    """`SystemFault` if a directory's file system has no room for `nbytes`.

    Files of a set length are sparse at first, so a full disk would show only after the work.
    """
    try:
        free = calls.free(directory)
    except OSError as error:
        raise system_fault("look at", directory, error) from error
    if free is not None and free < nbytes:
        raise SystemFault(
            f"cannot write {nbytes:,} bytes in {directory}: {free:,} are free; make room and run the command"
            " again"
        )


def not_plain(path: Path | str, what: str = "a regular file") -> IntegrityError:
    """The error for a symbolic link, FIFO, device or directory in the place of a file of the store."""
    return IntegrityError(f"{path} is not {what}; nothing was read or written through it", file=str(path))


def _raise_open(path: Path, error: OSError, doing: str) -> NoReturn:
    if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EMLINK):
        raise not_plain(path) from error
    raise system_fault(doing, path, error) from error


def plain_view(buffer: Buffer) -> memoryview:
    """The bytes of a contiguous buffer of any element type."""
    view = memoryview(buffer)
    if not view.nbytes:
        return memoryview(b"")
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


# -- reading


def open_regular(path: Path) -> tuple[int, int] | None:
    """A descriptor of a regular file and its size, or None if there is none.

    The caller closes it with `close`.
    """
    try:
        fd = calls.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            return None
        _raise_open(path, error, "read")
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        close(fd)
        raise not_plain(path)
    return fd, status.st_size


def close(fd: int) -> None:
    """Closes a descriptor that was only read."""
    with suppress(OSError):
        calls.close(fd)


def read_at(fd: int, count: int, offset: int, path: Path) -> bytes:
    """Up to `count` bytes at `offset`, fewer only at the end of the file. Raises `SystemFault`."""
    try:
        data = calls.pread(fd, count, offset)
        if len(data) == count:
            return data
        parts = [data]
        while data and count > (have := sum(map(len, parts))):
            data = calls.pread(fd, count - have, offset + have)
            parts.append(data)
        return b"".join(parts)
    except OSError as error:
        raise system_fault("read", path, error) from error


def read_file(path: Path, *, limit: int) -> bytes | None:
    """All bytes of a regular file, or None if there is none.

    Raises `IntegrityError` for a file of more than `limit` bytes and for anything that is not a regular file,
    `SystemFault` if it cannot be read.
    """
    opened = open_regular(path)
    if opened is None:
        return None
    fd, size = opened
    try:
        if size > limit:
            raise IntegrityError(
                f"{path} has {size} bytes, more than the {limit} that it may have", file=str(path)
            )
        return read_at(fd, size, 0, path)
    finally:
        close(fd)


def read_small(path: str, limit: int) -> bytes | None:
    """All bytes of a file of fewer than `limit` bytes, with the fewest calls; None if that fails.

    `read_file` says what is wrong then.
    """
    try:
        fd = calls.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = calls.pread(fd, limit, 0)
        finally:
            calls.close(fd)
    except OSError:
        return None
    return data if len(data) < limit else None


def resolved(path: Path) -> Path:
    """The absolute path without links and "..".

    In a loop of links the path stays as it is from there on. `Path.resolve` raises `RuntimeError` there
    before Python 3.13.
    """
    return Path(os.path.realpath(path))


def check_directories(root: Path, *parts: str) -> Path:
    """`root/parts…`, none of whose parts (`root` included) is a symbolic link, pipe or device.

    A part that is missing is no harm, nor one that is a file: there is nothing below it.
    """
    path = root
    for part in ("", *parts):
        path = path / part if part else path
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno == errno.ENOTDIR:
                continue
            raise system_fault("look at", path, error) from error
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            raise not_plain(path, "a directory")
    return path


def names_in(directory: Path) -> list[os.DirEntry[str]]:
    """The entries of a directory in order of names; none if it does not exist. Links are not followed."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise system_fault("list", directory, error) from error


# -- writing


class Output:
    """A file that is filled under a temporary name in `directory` and published by a rename.

    `write` appends (one thread at a time); `pwrite` may be called from many threads. As a context manager it
    discards a file that was not published.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._claim = -1
        self._end = 0
        self._dirty = 0
        self._writing = 0
        self._to_close = -1
        self._lock = threading.Lock()
        self.published = False
        self.status: os.stat_result | None = None
        """The file's status when it was finished."""

    @classmethod
    def create(cls, directory: Path, *, prefix: str, size: int | None = None) -> Output:
        """A new file `<prefix>-<random>` in `directory`; `size` sets its length in bytes from the start."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            path = directory / f"{prefix}-{os.getpid()}-{os.urandom(8).hex()}"
            try:
                fd = calls.open(path, flags)
            except OSError as error:
                raise system_fault("create a file in", directory, error) from error
            if _claimed(fd):
                break
            close(fd)  # another command took it for a leftover before it was claimed
            with suppress(OSError):
                calls.unlink(path)
        output = cls(path, fd)
        if size:
            try:
                calls.truncate(fd, size)
            except OSError as error:
                output.discard()
                raise system_fault("write", path, error) from error
        return output

    def fileno(self) -> int:
        """The open descriptor."""
        return self._fd

    def write(self, data: Buffer | Sequence[Buffer]) -> int:
        """Appends; returns the offset that the data begins at."""
        start = self._end
        self._end += self.pwrite(data, start)
        return start

    def pwrite(self, data: Buffer | Sequence[Buffer], offset: int) -> int:
        """Writes all of `data` (one buffer, or several in order) at `offset`; returns its length in bytes."""
        buffers = [data] if isinstance(data, (bytes, bytearray, memoryview)) else data
        pieces = [plain_view(buffer) for buffer in buffers]
        pieces = [piece for piece in pieces if piece.nbytes]
        total = sum(view.nbytes for view in pieces)
        with self._open() as fd:
            self._pwrite(fd, pieces, offset, total)
        return total

    @contextmanager
    def _open(self) -> Iterator[int]:
        """The descriptor, which stays open meanwhile: a number that was closed may be another file's."""
        with self._lock:
            if self._fd < 0:
                raise SystemFault(f"cannot write {self.path}: it was closed meanwhile")
            self._writing += 1
            fd = self._fd
        try:
            yield fd
        finally:
            with self._lock:
                self._writing -= 1
                last, late = not self._writing, self._to_close
                if last:
                    self._to_close = -1
            if last and late >= 0:
                close(late)

    def _pwrite(self, fd: int, pieces: list[memoryview], offset: int, total: int) -> None:
        try:
            while pieces:
                count = calls.pwritev(fd, pieces[:_IOV_MAX], offset)
                offset += count
                while pieces and count >= pieces[0].nbytes:
                    count -= pieces.pop(0).nbytes
                if count:
                    pieces[0] = pieces[0][count:]
            with self._lock:
                self._dirty += total
                begin = self._dirty >= WRITE_BACK_BYTES
                if begin:
                    self._dirty = 0
            if begin:
                calls.start_write_back(fd)
        except OSError as error:
            raise system_fault("write", self.path, error) from error

    def take_mode_of(self, path: Path) -> None:
        """Gives the output the permissions of the regular file at `path`, if there is one."""
        try:
            status = os.lstat(path)
            mode = stat.S_IMODE(status.st_mode) & 0o777
            if stat.S_ISREG(status.st_mode) and stat.S_IMODE(os.fstat(self._fd).st_mode) != mode:
                calls.set_mode(self._fd, mode)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise system_fault("write", self.path, error) from error

    def backdate(self) -> None:
        """Sets the file's time one second back, once all is written.

        The clock that stamps files ticks. A later write to this file, even in the same tick, then has another
        time.
        """
        then = time.time_ns() - 1_000_000_000
        try:
            os.utime(self._fd, ns=(then, then))
        except OSError as error:
            raise system_fault("write", self.path, error) from error

    def sync(self) -> None:
        """Every byte written so far is on the disk when this returns."""
        try:
            calls.fsync(self._fd)
        except OSError as error:
            raise system_fault("write", self.path, error) from error

    def finish(self, *, durable: bool = True) -> None:
        """Syncs and closes; only `rename_to` may follow."""
        if durable:
            self.sync()
        fd, self._fd = self._fd, -1
        try:
            self.status = os.fstat(fd)
            self._claim = os.dup(fd)  # holds the lock until it has its name
            calls.close(fd)
        except OSError as error:
            raise system_fault("write", self.path, error) from error

    def rename_to(self, target: Path) -> None:
        """Gives a finished output its name. The caller syncs the directory."""
        rename(self.path, target)
        self.published = True
        self._let_go()

    def link_to(self, target: Path) -> bool:
        """Gives a synced output a name that nothing has; returns False, and does nothing, if it is taken.

        Call `withdraw` afterwards. The caller syncs the directory.
        """
        try:
            calls.link(self.path, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_SUCH_CALL:
                raise system_fault("write", target, error) from error
            if os.path.lexists(target):
                return False
            self.rename_to(target)
        return True

    def withdraw(self) -> None:
        """Closes an output that has another name by now, and takes its first one away."""
        self.finish(durable=False)
        if not self.published:
            remove(self.path)
            self.published = True
        self._let_go()

    def replace_known(self, target: Path, known: Known | None) -> bool:
        """Gives a finished output its name, unless somebody changed the file there meanwhile.

        Returns whether it did. `known` None: there must be no file. The caller syncs the directory.
        """
        try:
            if known is None:
                self.published = _name_new(self.path, target)
            else:
                self._exchange(target, known)
        except OSError as error:
            raise system_fault("write", target, error) from error
        if self.published:
            self._let_go()
        return self.published

    def _exchange(self, target: Path, known: Known) -> None:
        """Puts this file in the place of `target` and removes the other file, if that is the known one.

        Otherwise both stay as they were. While `published` is set, our name is that of the other file.
        """
        ours = os.lstat(self.path).st_ino
        aside = _aside(self.path.parent, self.path.name.partition(".tmp-")[0])
        calls.rename(self.path, aside)
        self.path = aside
        try:
            calls.exchange(self.path, target)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in _NO_SUCH_CALL:
                raise
            if known(target):  # two calls, so a save between them is lost
                calls.rename(self.path, target)
                self.published = True
            return
        self.published, done = True, False
        try:
            done = known(self.path)
        finally:
            if not done:
                calls.exchange(self.path, target)
                if os.lstat(self.path).st_ino != ours:  # saved once more meanwhile: the later one stays
                    calls.exchange(self.path, target)
                self.published = False
        calls.unlink(self.path)

    def publish(self, target: Path, *, sync_directory: bool = True) -> None:
        """Syncs, closes and renames to `target`, and syncs the directory.

        A caller that publishes many files may sync the directory itself.
        """
        self.finish()
        self.rename_to(target)
        if sync_directory:
            sync_directories([target.parent])

    def discard(self) -> None:
        """Removes the file unless it was published. Never raises. A thread that is writing closes it."""
        with self._lock:
            fd, self._fd = self._fd, -1
            if self._writing:
                fd, self._to_close = -1, fd
        if fd >= 0:
            with suppress(OSError):
                calls.close(fd)
        try:
            if not self.published:
                self.published = True
                with suppress(OSError):
                    calls.unlink(self.path)
        finally:  # with a lock that stays, the file would look like an unfinished one
            self._let_go()

    def _let_go(self) -> None:
        fd, self._claim = self._claim, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


def write_file(
    path: Path, data: Buffer | Sequence[Buffer], *, tmp_dir: Path | None = None, durable: bool = True
) -> None:
    """Makes `path` hold `data`, whole or not at all.

    It writes a temporary file in `tmp_dir` or beside the target, fsyncs it, renames it, and fsyncs the
    directory. Not `durable`: no fsync, for data that is checked when read and safe to lose. The directory
    must exist. A file that is replaced passes its permissions on, so a private file stays private.
    """
    with Output.create(tmp_dir or path.parent, prefix=_temporary_prefix(path, tmp_dir)) as output:
        output.take_mode_of(path)
        output.write(data)
        output.finish(durable=durable)
        output.rename_to(path)
    if durable:
        sync_directories([path.parent])


def is_unfinished(name: str) -> bool:
    """Whether a file of this name beside others is an output, or was left by a command that was cut short."""
    return _BESIDE.fullmatch(name) is not None


def replace_file(path: Path, data: Buffer, known: Known | None) -> bool:
    """Like `write_file`, but only if `path` is still the file that the caller has seen.

    `known` None: there must still be no file. Returns whether it was replaced.
    """
    with Output.create(path.parent, prefix=_temporary_prefix(path, None)) as output:
        output.take_mode_of(path)
        output.write(data)
        output.finish()
        if not output.replace_known(path, known):
            return False
    sync_directories([path.parent])
    return True


def replace_seen(path: Path, data: Buffer, known: Known | None, *, there: bool) -> bool:
    """Like `replace_file`, for a caller that looked earlier.

    `there`: whether there was a file then. `known` judges the file that is there now (None: there must be
    none).
    """
    lies = os.path.lexists(path)  # a link that leads nowhere is replaced, too
    if (there and not lies) or (lies and known is None):
        return False
    return replace_file(path, data, known if lies else None)


def remove_seen(path: Path, known: Known, *, below: Path) -> bool:
    """As `remove_known`, durably, with the directories under `below` that it leaves empty."""
    if not remove_known(path, known):
        return False
    sync_directories([path.parent] if path.parent.is_dir() else [])
    remove_empty_directories(path.parent, below=below)
    return True


def remove_known(path: Path, known: Known) -> bool:
    """Removes a file that is still the one that the caller has seen; returns whether it was.

    It is no error if the file is gone. The caller syncs the directory.
    """
    aside = _aside(path.parent, _temporary_prefix(path, None).removesuffix(".tmp"))
    try:
        calls.rename(path, aside)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        raise system_fault("remove", path, error) from error
    done = False
    try:
        done = known(aside)
    finally:
        # A name that is taken was saved once more meanwhile: the later one stays.
        if done or not _put_back(aside, path):
            remove(aside)
    return done


def _aside(directory: Path, prefix: str) -> Path:
    """A name for a file that may be the user's: `clear_leftovers` keeps files with this kind of name."""
    return directory / f"{prefix}.old-{os.getpid()}-{os.urandom(8).hex()}"


def _put_back(aside: Path, path: Path) -> bool:
    try:
        return _name_new(aside, path)
    except OSError as error:
        raise system_fault("write", path, error) from error


def _name_new(source: Path, target: Path) -> bool:
    """Renames `source` to a name that must not be taken; returns whether it was free."""
    try:
        calls.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise
        if os.path.lexists(target):
            return False
        calls.rename(source, target)
        return True
    calls.unlink(source)
    return True


def _temporary_prefix(path: Path, tmp_dir: Path | None) -> str:
    if tmp_dir:
        return "file"
    return f".{os.fsencode(path.name)[:64].decode('utf-8', 'ignore') or 'file'}.tmp"


def _claimed(fd: int) -> bool:
    """Takes the lock which shows that an output's maker lives; False if the file was taken for a leftover."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: nothing is ever taken for a leftover there
    return os.fstat(fd).st_nlink > 0


def leftovers(directory: Path, *, beside: bool = False) -> Iterator[tuple[Path, int]]:
    """Leftovers in a directory, and their sizes in bytes. Each stays locked while it is looked at.

    `beside`: those beside the user's files.
    """
    pattern = _BESIDE if beside else _OURS
    for item in _entries(directory):
        if not (pattern.fullmatch(item.name) or (beside and _ASIDE.fullmatch(item.name))):
            continue
        try:
            opened = open_regular(Path(item.path))
        except PersonaError:
            continue
        if opened is None:
            continue
        fd, size = opened
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Path(item.path), size
        except OSError:
            continue
        finally:
            close(fd)


def clear_leftovers(
    directory: Path, *, beside: bool = False, is_kept: Callable[[Path], bool] = lambda _: False
) -> None:
    """Removes the leftovers in a directory. Never raises.

    A file that a dead command had moved aside may be the user's. It is removed only if `is_kept` says that
    its content is stored elsewhere.
    """
    for path, _ in leftovers(directory, beside=beside):
        if not _ASIDE.fullmatch(path.name) or is_kept(path):
            with suppress(OSError):
                calls.unlink(path)


def append_line(path: Path, line: bytes, *, tmp_dir: Path | None = None) -> None:
    """Appends `line` to a regular file, creating it, and fsyncs it.

    The caller holds the lock that orders appends. A file with more than one hard link is copied first, so
    that its other names do not change.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = calls.open(path, flags)
    except FileNotFoundError:
        write_file(path, line, tmp_dir=tmp_dir)
        return
    except OSError as error:
        _raise_open(path, error, "write")
    status = os.fstat(fd)
    try:
        if not stat.S_ISREG(status.st_mode):
            raise not_plain(path)
        if status.st_nlink > 1:
            write_file(path, [read_file(path, limit=status.st_size) or b"", line], tmp_dir=tmp_dir)
            return
        view = memoryview(line)
        while view:
            view = view[calls.append(fd, view) :]
        calls.fsync(fd)
        closing, fd = fd, -1
        calls.close(closing)
    except OSError as error:
        raise system_fault("write", path, error) from error
    finally:
        if fd >= 0:
            close(fd)


def rename(source: Path, target: Path) -> None:
    """Renames over `target`. The caller syncs the directory."""
    try:
        calls.rename(source, target)
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ENOTEMPTY):
            raise not_plain(target) from error
        raise system_fault("write", target, error) from error


def remove(path: Path, *, missing_ok: bool = True) -> None:
    """Removes a file or link, never the target of a link. The caller syncs the directory."""
    try:
        calls.unlink(path)
    except OSError as error:
        if missing_ok and error.errno in (errno.ENOENT, errno.ENOTDIR):
            return
        raise system_fault("remove", path, error) from error


def remove_empty_directories(path: Path, *, below: Path) -> None:
    """Removes `path` and its parents as far as they are empty, never `below` itself."""
    while path != below and below in path.parents:
        try:
            calls.rmdir(path)
        except OSError:
            return
        path = path.parent


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """An empty directory outside the repository, for small files that a library reads by path; then removed.

    Raises `SystemFault` if none can be made.
    """
    import tempfile

    try:
        made = tempfile.mkdtemp(prefix="persona-")
    except OSError as error:
        raise system_fault("make", "a temporary directory", error) from error
    try:
        yield Path(made)
    finally:
        remove_tree(Path(made))


def remove_tree(path: Path) -> None:
    """Removes a directory of unfinished work and all below it, without following links. Never raises."""
    for item in [] if path.is_symlink() else _entries(path):
        if item.is_dir(follow_symlinks=False):
            remove_tree(Path(item.path))
        else:
            with suppress(OSError):
                calls.unlink(Path(item.path))
    with suppress(OSError):
        calls.rmdir(path)


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        return names_in(path)
    except SystemFault:
        return []


def mkdirs(path: Path, *, below: Path | None = None) -> None:
    """Makes `path` and its missing parents, durably. Below `below` nothing may be a link."""
    sync_directories(sorted(make_directories([path], below=below)))


def relied_on_directories(path: Path, *, below: Path) -> None:
    """Like `mkdirs`, and syncs the names of directories that exist already.

    The command that made them may have been cut short before it synced them.
    """
    make_directories([path], below=below)
    sync_directories([place for place in reversed(path.parents) if place.is_relative_to(below)])


def make_directories(paths: Iterable[Path], *, below: Path | None = None) -> set[Path]:
    """Like `mkdirs`, of several; returns the directories with new names, which the caller has yet to sync."""
    grown: set[Path] = set()
    for path in paths:
        if below is not None:
            check_directories(below, *path.relative_to(below).parts)
        missing: list[Path] = []
        while not os.path.isdir(path):
            missing.append(path)
            if path == path.parent:
                break
            path = path.parent
        for directory in reversed(missing):
            try:
                with suppress(FileExistsError):
                    calls.mkdir(directory)
            except OSError as error:
                raise system_fault("create", directory, error) from error
            if not os.path.isdir(directory):
                raise not_plain(directory, "a directory")
            grown.add(directory.parent)
    return grown


def sync_directories(directories: Iterable[Path]) -> None:
    """The names in these directories are on the disk when this returns."""
    for directory in dict.fromkeys(directories):
        try:
            fd = calls.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise system_fault("write", directory, error) from error
        try:
            calls.fsync(fd)
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise system_fault("write", directory, error) from error
        finally:
            close(fd)


def sync_tree(path: Path) -> None:
    """The files that another library wrote below a directory, and their names, are on the disk."""
    for item in names_in(path):
        if item.is_dir(follow_symlinks=False):
            sync_tree(Path(item.path))
            continue
        opened = open_regular(Path(item.path))
        if opened is None:
            continue
        try:
            calls.fsync(opened[0])
        except OSError as error:
            raise system_fault("write", item.path, error) from error
        finally:
            close(opened[0])
    sync_directory(path)


def sync_directory(path: Path) -> None:
    """The names in one directory are on the disk when this returns."""
    sync_directories([path])


def lock_descriptor(path: Path) -> int:
    """A descriptor of a regular file or real directory for a kernel lock.

    A missing file is created empty.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        try:
            fd = calls.open(path, flags)
        except FileNotFoundError:
            fd = calls.open(path, flags | os.O_CREAT)
    except OSError as error:
        _raise_open(path, error, "lock")
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        close(fd)
        raise not_plain(path)
    return fd
