"""**store** — one `.persona` directory: its format, objects, refs, and the small files beside them.

**place** — an identity of this directory that no copy of it has. A cache from another place is not trusted:
its check needs no key, so anyone who hands a repository on could have written it.

Opening reads one short file and looks at a few directories; nothing is scanned. If this persona does not know
the format or a required feature, it reads the store and refuses every write.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from persona.errors import Blank, Call, IntegrityError, NotARepository, PersonaError, Refused
from persona.limits import MAX_REF_BYTES
from persona.store import files, lock
from persona.store.objects import ObjectStore
from persona.store.ref_steps import JOURNAL
from persona.store.refs import Reason, Refs
from persona.store.values import CacheFile, Caches, StateFile

if TYPE_CHECKING:
    from persona.store.check import Damage, PayloadOf
    from persona.store.transaction import Transaction

DIRECTORY: Final = ".persona"
FORMAT_VERSION: Final = 1
FEATURES: Final[frozenset[str]] = frozenset()
"""Required features that this persona knows."""

_FORMAT: Final = re.compile(r"persona (\d{1,6})\n((?:[a-z0-9-]{1,64}\n)*)")
_DIRECTORIES: Final = (
    "refs",
    "refs/heads",
    "refs/tags",
    "refs/remotes",
    "refs/bases",
    "refs/vectors",
    "refs/notes",
    "logs",
    "packs",
    "objects",
    "state",
    "cache",
    "tmp",
)
_MAKING: Final = f"{DIRECTORY}.making-"


class Store:
    """An open store.

    `worktree` is the directory that holds `.persona`. `root` is the `.persona` directory itself, or the
    target of a link of that name when the store was opened.
    """

    def __init__(self, worktree: Path, root: Path, version: int, features: tuple[str, ...]) -> None:
        self.worktree = worktree
        self.root = root
        self.version = version
        self.features = features

    @classmethod
    def create(cls, worktree: Path, *, branch: str = "main") -> Store:
        """Makes `.persona` in `worktree` (created if missing), with HEAD on the unborn `branch`.

        Everything is made under another name and renamed last, so there is a whole store or none. Raises
        `Refused` if there is one already.
        """
        files.mkdirs(worktree)
        with lock.making(worktree):
            return cls._make(worktree, branch)

    @classmethod
    def _make(cls, worktree: Path, branch: str) -> Store:
        root = worktree / DIRECTORY
        if os.path.lexists(root):
            raise Refused(f"{root} exists already")
        clear_half_made(worktree)
        making = worktree / f"{_MAKING}{os.getpid()}-{os.urandom(4).hex()}"
        try:
            files.sync_directories(sorted(files.make_directories(making / name for name in _DIRECTORIES)))
            files.write_file(making / ".gitignore", b"*\n")
            files.write_file(making / "config", b"")
            files.write_file(making / "lock", b"")
            Refs(making).set_head(("ref", f"refs/heads/{branch}"), Reason("", (0, 0), ""))
            files.write_file(making / "format", b"persona %d\n" % FORMAT_VERSION)
            files.rename(making, root)
            files.sync_directory(worktree)
        except BaseException:
            files.remove_tree(making)
            raise
        return cls(worktree, root, FORMAT_VERSION, ())

    @classmethod
    def open(cls, worktree: Path) -> Store:
        """The store of a work tree.

        Raises `NotARepository` if there is none, `IntegrityError` if it is not a store.
        """
        root = worktree / DIRECTORY
        if not os.path.lexists(root):
            raise NotARepository(
                f"{worktree} is not a persona repository",
                hint=("make one with ", Call("init", base=Blank("MODEL"))),
            )
        if root.is_symlink():
            root = _led_to(root)
        for name in _DIRECTORIES:
            files.check_directories(root, *name.split("/")[:1])
        path = root / "format"
        data = files.read_file(path, limit=MAX_REF_BYTES)
        match = _FORMAT.fullmatch((data or b"").decode("utf-8", "replace"))
        if match is None or match[1] == "0":
            raise IntegrityError(
                f"{path} is missing or damaged; write this line into it: persona {FORMAT_VERSION}",
                file=str(path),
            )
        return cls(worktree, root, int(match[1]), tuple(match[2].split()))

    def require_writable(self) -> None:
        """`Refused` when the store's format is newer than this persona."""
        unknown = [feature for feature in self.features if feature not in FEATURES]
        if self.version > FORMAT_VERSION:
            raise Refused(
                f"{self.root} has format {self.version}; this persona writes format {FORMAT_VERSION}. "
                f"Install a persona that knows format {self.version}"
            )
        if unknown:
            raise Refused(
                f"{self.root} needs {', '.join(unknown)}, which this persona does not know. "
                f"Install a newer persona"
            )

    @cached_property
    def objects(self) -> ObjectStore:
        """The objects."""
        return ObjectStore(self.root, require_writable=self.require_writable)

    def transaction(self, payload_of: PayloadOf | None = None) -> Transaction:
        """A context manager that makes all appended and put objects durable on a clean exit.

        On any other exit it discards them. `payload_of` decodes the kinds of `BULK_KINDS`, to tell a wrong
        copy from a right one.
        """
        from persona.store.transaction import Transaction

        self.require_writable()
        return Transaction(self.objects, payload_of)

    def problems(
        self, full: bool = False, payload_of: PayloadOf | None = None, *, threads: int | None = None
    ) -> Iterator[Damage]:
        """The problems of the stored objects; see `persona.store.check.problems`."""
        from persona.store.check import problems

        return problems(self.objects, full, payload_of, threads=threads)

    @cached_property
    def _caches(self) -> Caches:
        return Caches(self.root, lambda: self.place, self.require_writable)

    @cached_property
    def refs(self) -> Refs:
        """The refs and HEAD."""
        return Refs(self.root, require_writable=self.require_writable, journal=self.state(JOURNAL))

    @cached_property
    def place(self) -> str:
        """An identity of this directory that its copies do not have.

        It is the creation time of the inode of `lock`, in nanoseconds, and its number. No program sets that
        time, and moving the directory changes neither. If the system does not report the creation time, it is
        the time of the inode's last change, which `chmod` changes too.
        """
        from persona.store.birth import birth_time

        path = self.root / "lock"
        try:
            status = os.lstat(path)
        except OSError:
            return f"nowhere {os.urandom(16).hex()}"  # and never the same again
        return f"{birth_time(path) or status.st_ctime_ns} {status.st_ino}"

    def leftovers(self) -> list[tuple[Path, int]]:
        """Leftovers in the store, and idx files without a pack, with their sizes in bytes."""
        found = list(files.leftovers(self.root / "tmp"))
        return found + self.objects.lone_indexes()

    def clear_leftovers(self) -> None:
        """Removes leftovers in the store's `tmp/` and beside `.persona`."""
        files.clear_leftovers(self.root / "tmp")
        if any(item.name.startswith(_MAKING) for item in files.names_in(self.worktree)):
            with suppress(PersonaError), lock.making(self.worktree, wait=0):
                clear_half_made(self.worktree)

    @property
    def config_path(self) -> Path:
        """The user's own TOML."""
        return self.root / "config"

    def shared(self) -> AbstractContextManager[None]:
        """Holds the store shared, as every command that reads or writes does while it runs."""
        return lock.shared(self.root)

    def exclusive(self) -> AbstractContextManager[None]:
        """Holds the store exclusively, to delete objects."""
        return lock.exclusive(self.root)

    def worktree_lock(self) -> AbstractContextManager[None]:
        """Holds the work tree's lock."""
        return lock.worktree_lock(self.root)

    def state(self, name: str) -> StateFile:
        """A checked JSON value in `state/`, by name (letters, digits, . _ - and /)."""
        return StateFile(self.root, name, self.require_writable)

    def states(self) -> list[str]:
        """The names of the values in `state/`."""
        return [name.removesuffix(".json") for name in self._names("state") if name.endswith(".json")]

    def misplaced(self) -> Iterator[IntegrityError]:
        """An error for each entry of the store's directory that is of the wrong type, such as a link."""
        for name in dict.fromkeys(name.split("/")[0] for name in _DIRECTORIES):
            path = self.root / name
            if os.path.lexists(path) and not path.is_dir():
                yield files.not_plain(path, "a directory")
        for item in files.names_in(self.root / "state"):
            is_folder = item.is_dir(follow_symlinks=False) and "." not in item.name
            if not is_folder and not item.is_file(follow_symlinks=False):
                yield files.not_plain(item.path)

    def cache(self, name: str) -> CacheFile:
        """Checked bytes in `cache/`, by name (letters, digits, . _ - and /)."""
        return self._caches.file(name)

    def _names(self, folder: str) -> Iterator[str]:
        top = files.check_directories(self.root, folder)
        pending = [top]
        while pending:
            for item in files.names_in(pending.pop()):
                if item.is_dir(follow_symlinks=False):
                    pending.append(Path(item.path))
                else:
                    yield str(Path(item.path).relative_to(top))


def clear_half_made(worktree: Path) -> None:
    """Removes stores whose making was cut short. The caller holds the lock of makers."""
    for item in files.names_in(worktree):
        if item.name.startswith(_MAKING) and item.is_dir(follow_symlinks=False):
            files.remove_tree(Path(item.path))


def _led_to(link: Path) -> Path:
    """The directory that a link named `.persona` leads to."""
    place = Path(os.path.realpath(link))
    if not place.is_dir():
        raise NotARepository(
            f"{link} is a link to {place}, where there is no directory; restore that directory or mend"
            " the link"
        )
    return place
