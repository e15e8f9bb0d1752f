"""Disks that a test can bend, and commands that are cut short on them: the one harness for faults.

Each disk stands for `persona.store.files.Calls`, put in its place by `replaced_calls`, and none waits for the
real disk. `Quick` does nothing else; `Watched` sees every call, and `Counting` counts those that change the
disk. On it stand `Failing` and `Refusing` (calls that fail), `Dying` (the command ends) and `Deadly` (the
process is killed). `Recording` gives states that a power cut may leave: data that was not synced is missing,
zero or torn, and names in directories that were not synced are absent or there.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from persona.store.files import Buffer, Calls, replaced_calls

Start = TypeVar("Start")


class Quick(Calls):
    """Syncs nothing: for tests that look at bytes alone."""

    def fsync(self, fd: int) -> None:
        pass

    def start_write_back(self, fd: int) -> None:
        pass


class Watched(Quick):
    """Passes every call through `step` before it is made; a close, after it."""

    def __init__(self) -> None:
        super().__init__()
        self._written: set[int] = set()

    def step(self, name: str, changes: bool, *paths: Path) -> None:
        """One call: whether it changes the disk (the close of a written file does), and its paths."""

    def open(self, path: Path, flags: int, mode: int = 0o666) -> int:
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR))
        self.step("open", writes or bool(flags & os.O_CREAT), path)
        fd = super().open(path, flags, mode)
        if writes:
            self._written.add(fd)
        return fd

    def close(self, fd: int) -> None:
        super().close(fd)
        writes = fd in self._written
        self._written.discard(fd)
        self.step("close", writes)

    def pread(self, fd: int, count: int, offset: int) -> bytes:
        self.step("pread", False)
        return super().pread(fd, count, offset)

    def append(self, fd: int, data: Buffer) -> int:
        self.step("append", True)
        return super().append(fd, data)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        self.step("pwritev", True)
        return super().pwritev(fd, buffers, offset)

    def truncate(self, fd: int, length: int) -> None:
        self.step("truncate", True)
        super().truncate(fd, length)

    def fsync(self, fd: int) -> None:
        self.step("fsync", True)
        super().fsync(fd)

    def set_mode(self, fd: int, mode: int) -> None:
        self.step("set_mode", True)
        super().set_mode(fd, mode)

    def rename(self, source: Path, target: Path) -> None:
        self.step("rename", True, source, target)
        super().rename(source, target)

    def exchange(self, one: Path, other: Path) -> None:
        self.step("exchange", True, one, other)
        super().exchange(one, other)

    def link(self, source: Path, target: Path) -> None:
        self.step("link", True, source, target)
        super().link(source, target)

    def unlink(self, path: Path) -> None:
        self.step("unlink", True, path)
        super().unlink(path)

    def mkdir(self, path: Path) -> None:
        self.step("mkdir", True, path)
        super().mkdir(path)

    def rmdir(self, path: Path) -> None:
        self.step("rmdir", True, path)
        super().rmdir(path)


class Counting(Watched):
    """Counts the calls that change the disk."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def step(self, name: str, changes: bool, *paths: Path) -> None:
        if changes:
            self.count += 1
            self.reached(name)

    def reached(self, name: str) -> None:
        """Called with each call that is counted."""


class Failing(Counting):
    """The call number `at` fails with `error`; with `full`, all later ones that need room fail too."""

    def __init__(self, at: int, error: int, *, full: bool = False) -> None:
        super().__init__()
        self.at = at
        self.error = error
        self.full = full
        self.failed: list[str] = []

    def reached(self, name: str) -> None:
        needs_room = name not in ("unlink", "rmdir", "close")
        if self.count == self.at or (self.full and self.count > self.at and needs_room):
            self.failed.append(name)
            raise OSError(self.error, os.strerror(self.error))


class Refusing(Watched):
    """Raises `error` from each call `name` on a path that `where` is true of. A call on an open file has no
    path, and always fails.
    """

    def __init__(
        self, name: str, error: BaseException, where: Callable[[Path], bool] = lambda path: True
    ) -> None:
        super().__init__()
        self.name = name
        self.error = error
        self.where = where
        self.tries = 0

    def step(self, name: str, changes: bool, *paths: Path) -> None:
        if name == self.name and (not paths or self.where(paths[-1])):
            self.tries += 1
            raise self.error


Call = tuple[str, tuple[Path, ...]]
"""The name of a call, and the paths that it is given."""


class Intruding(Watched):
    """Somebody else does `act` before the call number `at`, once. If `only` is given, calls with a path below
    it count, and no others.
    """

    def __init__(
        self, at: int = -1, act: Callable[[], None] = lambda: None, *, only: Path | None = None
    ) -> None:
        super().__init__()
        self.at = at
        self.act = act
        self.only = only
        self.seen: list[Call] = []

    def step(self, name: str, changes: bool, *paths: Path) -> None:
        if self.only is None or any(self.only in Path(path).parents for path in paths):
            self.seen.append((name, paths))
            if len(self.seen) == self.at:
                self.act()


class Syncing(Quick):
    """Notes the directories that are synced."""

    def __init__(self) -> None:
        super().__init__()
        self.synced: set[Path] = set()
        self._open: dict[int, Path] = {}

    def open(self, path: Path, flags: int, mode: int = 0o666) -> int:
        fd = super().open(path, flags, mode)
        self._open[fd] = path
        return fd

    def fsync(self, fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            self.synced.add(self._open[fd])


class Short(Quick):
    """Writes and reads at most seven bytes a call."""

    def pread(self, fd: int, count: int, offset: int) -> bytes:
        return super().pread(fd, min(count, 7), offset)

    def append(self, fd: int, data: Buffer) -> int:
        return super().append(fd, memoryview(data)[:7])

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        return super().pwritev(fd, [memoryview(buffers[0])[:7]], offset)


# -- commands cut short


class Cut(BaseException):
    """Stands for the death of the process."""


class Dying(Counting):
    """Lets `left` calls that change the disk pass, and none after that."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def reached(self, name: str) -> None:
        if self.count > self.left:
            raise Cut


def cut_at_each_call(
    start: Callable[[], Start], act: Callable[[Start], object]
) -> Iterator[tuple[Start, bool]]:
    """Does `act` to what `start` gives, cut after 0, 1, 2, … calls that change the disk, until it is done.

    Yields what `start` gave, and whether `act` was done.
    """
    for left in itertools.count():
        given = start()
        done = False
        try:
            with replaced_calls(Dying(left)):
                act(given)
                done = True
        except Cut:
            pass
        yield given, done
        if done:
            return


class Deadly(Counting):
    """The process is killed at the call number `at`."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def reached(self, name: str) -> None:
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_at(at: int, act: Callable[[], object]) -> None:
    """Does `act` in a child process, which is killed at the call number `at` that changes the disk."""
    child = os.fork()
    if not child:
        try:
            with replaced_calls(Deadly(at)):
                act()
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def count_calls(act: Callable[[], object]) -> int:
    """Does `act`, and returns how many of its calls change the disk."""
    counting = Counting()
    with replaced_calls(counting):
        act()
    return counting.count


# -- power cuts


@dataclass
class Inode:
    """A file or directory: what a power cut leaves for certain, and what happened since."""

    directory: bool
    synced: dict[str, Inode] | bytes
    pending: list[tuple[str, Inode | None]] = field(default_factory=list)
    data: bytes = b""


class Recording(Quick):
    """Keeps, beside the real disk, a model of what is durable below `root`; what is there now is."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.top = _inode_of(root)
        self._open: dict[int, Inode] = {}
        self._ends: dict[int, int] = {}

    def changed(self) -> None:
        """Called after each call that changed the disk or its durability."""

    def _at(self, path: Path) -> Inode:
        inode = self.top
        for part in path.relative_to(self.root).parts:
            inode = live(inode)[part]
        return inode

    def _name(self, path: Path, inode: Inode | None) -> None:
        self._at(path.parent).pending.append((path.name, inode))

    def open(self, path: Path, flags: int, mode: int = 0o666) -> int:
        new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
        fd = super().open(path, flags, mode)
        if new:
            self._name(path, Inode(False, b""))
        self._open[fd] = self._at(path)
        if new:
            self.changed()
        return fd

    def append(self, fd: int, data: Buffer) -> int:
        inode = self._open[fd]
        inode.data += bytes(data)
        count = super().append(fd, data)
        self.changed()
        return count

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        inode, new = self._open[fd], b"".join(buffers)
        grown = inode.data.ljust(offset, b"\x00")
        inode.data = grown[:offset] + new + grown[offset + len(new) :]
        count = super().pwritev(fd, buffers, offset)
        self.changed()
        return count

    def fsync(self, fd: int) -> None:
        inode = self._open[fd]
        if inode.directory:
            inode.synced = live(inode)
            inode.pending.clear()
        else:
            inode.synced = inode.data
        self.changed()

    def rename(self, source: Path, target: Path) -> None:
        inode = self._at(source)
        super().rename(source, target)
        self._name(target, inode)
        self._name(source, None)
        self.changed()

    def link(self, source: Path, target: Path) -> None:
        inode = self._at(source)
        super().link(source, target)
        self._name(target, inode)
        self.changed()

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._name(path, None)
        self.changed()

    def mkdir(self, path: Path) -> None:
        super().mkdir(path)
        self._name(path, Inode(True, {}))
        self.changed()

    def rmdir(self, path: Path) -> None:
        super().rmdir(path)
        self._name(path, None)
        self.changed()

    def states(self, chance: random.Random) -> Iterator[dict[str, bytes | None]]:
        """Disks that a cut at this moment may leave: path → bytes, None for a directory."""
        yield _state(self.top, "", lambda: False, lambda old, new: old)
        yield _state(self.top, "", lambda: True, lambda old, new: new)
        yield _state(self.top, "", lambda: True, lambda old, new: old)
        yield _state(self.top, "", lambda: True, _zeros)
        yield _state(self.top, "", lambda: True, lambda old, new: new[: (len(old) + len(new)) // 2])
        yield _state(
            self.top,
            "",
            lambda: chance.random() < 0.5,
            lambda old, new: chance.choice(
                [old, new, _zeros(old, new), new[: chance.randint(min(len(old), len(new)), len(new))]]
            ),
        )


class Unsyncable(Recording):
    """The directory sync number `at` fails."""

    def __init__(self, root: Path, at: int) -> None:
        super().__init__(root)
        self.at = at
        self.count = 0

    def fsync(self, fd: int) -> None:
        if self._open[fd].directory:
            self.count += 1
            if self.count == self.at:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fsync(fd)


def _zeros(old: bytes, new: bytes) -> bytes:
    return old + bytes(max(0, len(new) - len(old)))


def live(directory: Inode) -> dict[str, Inode]:
    """The names in a directory as a running process sees them."""
    assert isinstance(directory.synced, dict)
    names = dict(directory.synced)
    for name, inode in directory.pending:
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode
    return names


def _state(directory: Inode, prefix: str, keeps, tear) -> dict[str, bytes | None]:  # type: ignore[no-untyped-def]
    assert isinstance(directory.synced, dict)
    names = dict(directory.synced)
    for name, inode in directory.pending:
        if keeps():
            if inode is None:
                names.pop(name, None)
            else:
                names[name] = inode
    found: dict[str, bytes | None] = {}
    for name, inode in names.items():
        path = f"{prefix}{name}"
        if inode.directory:
            found[path] = None
            found |= _state(inode, f"{path}/", keeps, tear)
        else:
            assert isinstance(inode.synced, bytes)
            found[path] = inode.data if inode.data == inode.synced else tear(inode.synced, inode.data)
    return found


def _inode_of(path: Path) -> Inode:
    if path.is_dir():
        return Inode(True, {item.name: _inode_of(item) for item in path.iterdir()})
    data = path.read_bytes()
    return Inode(False, data, data=data)


def lay_out(state: dict[str, bytes | None], target: Path) -> None:
    """Puts a state on the real disk."""
    target.mkdir()
    for path, data in state.items():
        if data is None:
            (target / path).mkdir()
        else:
            (target / path).write_bytes(data)
