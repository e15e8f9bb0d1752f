"""Disks that a test can bend: one that syncs nothing, one whose Nth call fails, one that records.

The recording disk gives states that a power cut may leave: data that was not synced is missing, zero or torn,
names in directories that were not synced are absent or there.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from persona.store.files import Buffer, Calls


class Quick(Calls):
    """Syncs nothing: for tests that look at bytes alone."""

    def fsync(self, fd: int) -> None:
        pass

    def start_write_back(self, fd: int) -> None:
        pass


class Counting(Quick):
    """Passes every call that changes the disk, and every close of a written file, through `step`."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.written: set[int] = set()

    def step(self, name: str) -> None:
        self.count += 1

    def open(self, path: Path, flags: int, mode: int = 0o666) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self.step("open")
        fd = super().open(path, flags, mode)
        if flags & (os.O_WRONLY | os.O_RDWR):
            self.written.add(fd)
        return fd

    def close(self, fd: int) -> None:
        super().close(fd)
        if fd in self.written:
            self.written.discard(fd)
            self.step("close")

    def append(self, fd: int, data: Buffer) -> int:
        self.step("append")
        return super().append(fd, data)

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        self.step("pwritev")
        return super().pwritev(fd, buffers, offset)

    def truncate(self, fd: int, length: int) -> None:
        self.step("truncate")
        super().truncate(fd, length)

    def fsync(self, fd: int) -> None:
        self.step("fsync")

    def set_mode(self, fd: int, mode: int) -> None:
        self.step("set_mode")
        super().set_mode(fd, mode)

    def rename(self, source: Path, target: Path) -> None:
        self.step("rename")
        super().rename(source, target)

    def exchange(self, one: Path, other: Path) -> None:
        self.step("exchange")
        super().exchange(one, other)

    def link(self, source: Path, target: Path) -> None:
        self.step("link")
        super().link(source, target)

    def unlink(self, path: Path) -> None:
        self.step("unlink")
        super().unlink(path)

    def mkdir(self, path: Path) -> None:
        self.step("mkdir")
        super().mkdir(path)

    def rmdir(self, path: Path) -> None:
        self.step("rmdir")
        super().rmdir(path)


class Failing(Counting):
    """The call number `at` fails with `error`; with `full`, all later ones that need room fail too."""

    def __init__(self, at: int, error: int, *, full: bool = False) -> None:
        super().__init__()
        self.at = at
        self.error = error
        self.full = full
        self.failed: list[str] = []

    def step(self, name: str) -> None:
        super().step(name)
        needs_room = name not in ("unlink", "rmdir", "close")
        if self.count == self.at or (self.full and self.count > self.at and needs_room):
            self.failed.append(name)
            raise OSError(self.error, os.strerror(self.error))


class Cut(BaseException):
    """Stands for the death of the process."""


class Dying(Counting):
    """Lets `left` calls that change the disk pass, and none after that."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def step(self, name: str) -> None:
        super().step(name)
        if self.count > self.left:
            raise Cut


class Short(Quick):
    """Writes and reads at most seven bytes a call."""

    def pread(self, fd: int, count: int, offset: int) -> bytes:
        return super().pread(fd, min(count, 7), offset)

    def append(self, fd: int, data: Buffer) -> int:
        return super().append(fd, memoryview(data)[:7])

    def pwritev(self, fd: int, buffers: Sequence[Buffer], offset: int) -> int:
        return super().pwritev(fd, [memoryview(buffers[0])[:7]], offset)


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
