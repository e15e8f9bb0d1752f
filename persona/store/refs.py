"""**ref** — a name (`refs/heads/main`) that holds an id. **HEAD** — names a branch, or holds an id itself
(detached).

A ref is a file of two lines: its value, then the first 16 hex digits of BLAKE3 over its name and value, so
that a changed byte or a file brought from elsewhere shows. It moves by compare-and-swap under the refs lock:
the reflog's line first, synced, then the new file, synced, then the rename, then the directory. It holds its
old or its new value at every moment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

from blake3 import blake3

from persona.errors import BusyError, IntegrityError, InvalidInput, PersonaError, UsageError
from persona.limits import MAX_REF_BYTES
from persona.objects.ids import is_id
from persona.objects.names import check_ref_name
from persona.store import files, lock, reflog
from persona.store.reflog import Entry

HEAD: Final = "HEAD"
_PREFIX: Final = "ref: "
_CHECK_CHARS: Final = 16


class _Any:
    """The type of `ANY`."""


ANY: Final = _Any()
"""As `expect`: whatever the ref holds."""

Head = tuple[Literal["ref", "id"], str]
"""("ref", full name of a branch) or ("id", a commit's id)."""
When = tuple[int, int]
"""Seconds since 1970 UTC, and the offset from UTC in minutes."""


class Refs:
    """The refs below a `.persona` directory. Reading takes no lock: a ref's file is replaced whole."""

    def __init__(self, root: Path, *, require_writable: Callable[[], None] = lambda: None) -> None:
        self.root = root
        self._require_writable = require_writable

    # -- reading

    def read(self, name: str) -> str | None:
        """The id that a ref holds, or None where there is no such ref. `IntegrityError` when its file is
        damaged.
        """
        text = self._read(_full(name))
        if text is None:
            return None
        if not is_id(text):
            raise self._damaged(name)
        return text

    def list(self, prefix: str = "refs/") -> dict[str, str]:
        """Every ref whose full name begins with `prefix` (`refs/heads/`), and its id, in order of names."""
        return {name: id for name in self._names(prefix) if (id := self.read(name)) is not None}

    def head(self) -> Head:
        """What HEAD holds. `IntegrityError` when it is missing or damaged."""
        text = self._read(HEAD)
        if text is None:
            raise IntegrityError(f"{self._path(HEAD)} is missing", kind="ref", file=str(self._path(HEAD)))
        if is_id(text):
            return "id", text
        name = text.removeprefix(_PREFIX)
        try:
            if name != text:
                return "ref", _full(name)
        except PersonaError:
            pass
        raise self._damaged(HEAD)

    def head_id(self) -> str | None:
        """The commit that HEAD leads to; None in a repository without a commit.

        `IntegrityError` when HEAD names a branch that does not exist although there is history.
        """
        kind, value = self.head()
        if kind == "id":
            return value
        id = self.read(value)
        if id is None and self._has_history():
            raise IntegrityError(
                f"HEAD names {value}, which does not exist; attach it with: persona switch BRANCH",
                kind="ref",
                file=str(self._path(HEAD)),
            )
        return id

    def log(self, name: str) -> tuple[Entry, ...]:
        """The moves of a ref, or of HEAD, newest first; empty where none is recorded."""
        name = _full(name)
        value = self.head_id() if name == HEAD else self.read(name)
        return tuple(reversed(reflog.load(self.root, name, value)))

    # -- moving

    def update(
        self, name: str, new: str | None, *, expect: str | _Any | None, who: str, when: When, why: str
    ) -> None:
        """Moves a ref to `new` (None removes it) if it holds `expect` (None: if it does not exist).

        The move is in HEAD's reflog too when HEAD is attached to it.

        Durable on return. `BusyError` when it holds something else; `InvalidInput` for a name that cannot be,
        that differs from an existing one by case alone, or that is a directory of another.
        """
        name = _full(name)
        if name == HEAD:
            raise UsageError("HEAD is moved with advance or set_head")
        self._require_writable()
        with lock.refs_lock(self.root):
            old = self.read(name)
            _compare(name, old, expect)
            if old is None and new is not None:
                self._check_new(name)
            if self._attached_to(name):
                self._log(HEAD, old, new, who, when, why)
            self._log(name, old, new, who, when, why)
            self._write(name, new)

    def advance(self, new: str, *, expect: str | _Any | None, who: str, when: When, why: str) -> Head:
        """Moves what HEAD leads to, its branch or HEAD itself, from `expect` to `new`; returns what HEAD
        holds then.
        """
        self._require_writable()
        with lock.refs_lock(self.root):
            kind, value = self.head()
            old = self.head_id()
            _compare(value if kind == "ref" else HEAD, old, expect)
            self._log(HEAD, old, new, who, when, why)
            if kind == "ref":
                if old is None:
                    self._check_new(value)
                self._log(value, old, new, who, when, why)
                self._write(value, new)
                return kind, value
            self._write(HEAD, new)
            return kind, new

    def set_head(self, target: Head, *, expect: Head | _Any = ANY, who: str, when: When, why: str) -> None:
        """Attaches HEAD to a branch, or detaches it at an id, if it holds `expect`. The branch need exist
        only in a repository with history.
        """
        kind, value = target
        if kind == "ref":
            if not _full(value).startswith("refs/heads/"):
                raise InvalidInput(f"{value} is no branch; HEAD can only be attached to one")
        elif not is_id(value):
            raise UsageError(f"not an id: {value!r:.80}")
        self._require_writable()
        with lock.refs_lock(self.root):
            exists = os.path.lexists(self._path(HEAD))
            if not isinstance(expect, _Any) and (not exists or self.head() != expect):
                raise BusyError("HEAD moved meanwhile; run the command again")
            try:
                old = self.head_id() if exists else None
            except IntegrityError:
                old = None
            new = self.read(value) if kind == "ref" else value
            if old is not None or new is not None:
                self._log(HEAD, old, new, who, when, why)
            self._write(HEAD, _PREFIX + value if kind == "ref" else value)

    def move(self, old_name: str, new_name: str, *, who: str, when: When, why: str) -> None:
        """Renames a ref that exists to a name that does not; HEAD follows when it is attached to it."""
        old_name, new_name = _full(old_name), _full(new_name)
        id = self.read(old_name)
        if id is None:
            raise BusyError(f"{old_name} went away meanwhile")
        self.update(new_name, id, expect=None, who=who, when=when, why=why)
        if self.head() == ("ref", old_name):
            self.set_head(("ref", new_name), who=who, when=when, why=why)
        self.update(old_name, None, expect=id, who=who, when=when, why=why)

    def problems(self) -> Iterator[tuple[str, str, str]]:
        """(kind, file, what is wrong) of every damaged ref and reflog, HEAD included."""
        names: tuple[str, ...] = ()
        try:
            names = tuple(self._names("refs/"))
        except PersonaError as error:
            yield "ref", str(self.root / "refs"), error.message
        for name in [HEAD, *names]:
            try:
                value = self.head_id() if name == HEAD else self.read(name)
            except PersonaError as error:
                yield "ref", str(self._path(name)), error.message
                continue
            try:
                reflog.load(self.root, name, value)
            except PersonaError as error:
                yield "reflog", str(reflog.path_of(self.root, name)), error.message

    # -- files

    def _has_history(self) -> bool:
        """Whether a branch exists, or HEAD ever led to a commit; a first move that never happened is none."""
        try:
            return any(True for _ in self._names("refs/heads/")) or bool(reflog.load(self.root, HEAD, None))
        except IntegrityError:
            return True

    def _attached_to(self, name: str) -> bool:
        try:
            return self.head() == ("ref", name)
        except IntegrityError:
            return False

    def _path(self, name: str) -> Path:
        return self.root / name

    def _damaged(self, name: str) -> IntegrityError:
        path = self._path(name)
        return IntegrityError(f"{path} is damaged: it holds no checked value", kind="ref", file=str(path))

    def _read(self, name: str) -> str | None:
        path = self._path(name)
        files.check_directories(self.root, *name.split("/")[:-1])
        try:
            data = files.read_file(path, limit=MAX_REF_BYTES)
        except IntegrityError:
            if path.is_dir() and not path.is_symlink():
                return None
            raise
        if data is None:
            return None
        try:
            value, check, rest = data.decode("utf-8").split("\n")
        except ValueError:
            raise self._damaged(name) from None
        if rest or check != _check(name, value):
            raise self._damaged(name)
        return value

    def _write(self, name: str, value: str | None) -> None:
        path = self._path(name)
        if value is None:
            files.remove(path)
            files.sync_directory(path.parent)
            parts = name.split("/")
            files.remove_empty_directories(path.parent, below=self.root.joinpath(*parts[:2]))
            return
        files.mkdirs(path.parent, below=self.root)
        text = f"{value}\n{_check(name, value)}\n"
        files.write_file(path, text.encode(), tmp_dir=reflog.tmp_dir(self.root))

    def _log(self, name: str, old: str | None, new: str | None, who: str, when: When, why: str) -> None:
        time, offset = when
        reflog.append(self.root, name, old, Entry(old, new, who, time, offset, why))

    def _names(self, prefix: str) -> Iterator[str]:
        """Full names of the ref files below `prefix`, in order. A link or anything else that is no file is
        damage.
        """
        start = prefix[: prefix.rfind("/") + 1].rstrip("/") or "refs"
        pending = [start]
        while pending:
            folder = pending.pop()
            directory = files.check_directories(self.root, *folder.split("/"))
            below = []
            for item in files.names_in(directory):
                name = f"{folder}/{item.name}"
                if item.is_dir(follow_symlinks=False):
                    below.append(name)
                elif not item.is_file(follow_symlinks=False):
                    raise files.not_plain(item.path)
                elif name.startswith(prefix) and not item.name.startswith("."):
                    yield name
            pending.extend(reversed(below))

    def _check_new(self, name: str) -> None:
        """Refuses a new name that is another one but for case, or that is a directory of another or lies in
        one.
        """
        parts = name.split("/")
        for other in self._names("refs/"):
            others = other.split("/")
            same = 0
            while same < min(len(parts), len(others)) and parts[same] == others[same]:
                same += 1
            if same == min(len(parts), len(others)):
                raise InvalidInput(
                    f"{name} cannot exist beside {other}: one would be a directory of the other"
                )
            if parts[same].casefold() == others[same].casefold():
                raise InvalidInput(f"{name} and {other} differ by case alone; choose another name")
        self._clear_logs(name)

    def _clear_logs(self, name: str) -> None:
        """Removes reflogs of removed refs that stand where the reflog of a new ref needs a directory, or the
        other way round.
        """
        parts = name.split("/")
        for count in range(3, len(parts)):
            path = reflog.path_of(self.root, "/".join(parts[:count]))
            if path.is_file() and not path.is_symlink():
                files.remove(path)
                files.sync_directory(path.parent)
        path = reflog.path_of(self.root, name)
        for item in _files_below(path):
            files.remove(item)
        for directory in sorted({item.parent for item in _files_below(path)} | {path}, reverse=True):
            if directory.is_dir() and not directory.is_symlink():
                files.remove_empty_directories(directory, below=path.parent)
        ref = self._path(name)
        if ref.is_dir() and not ref.is_symlink():
            for folder, _, _ in os.walk(ref, topdown=False):
                files.remove_empty_directories(Path(folder), below=ref.parent)


def _files_below(path: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(path):
        for name in names:
            yield Path(folder) / name


def _full(name: str) -> str:
    """A full ref name, checked: HEAD, or one that begins with refs/."""
    if name == HEAD:
        return name
    check_ref_name(name)
    if not name.startswith("refs/") or name.count("/") < 1:
        raise InvalidInput(f"{name!r:.100} is not a full ref name")
    return name


def _compare(name: str, held: str | None, expect: str | _Any | None) -> None:
    if not isinstance(expect, _Any) and held != expect:
        raise BusyError(
            f"{name} moved meanwhile: it is at {held[:12] if held else 'nothing'}, "
            f"not at {expect[:12] if expect else 'nothing'}; run the command again"
        )


def _check(name: str, value: str) -> str:
    return blake3(b"ref\x00%s\x00%s" % (name.encode(), value.encode())).hexdigest()[:_CHECK_CHARS]
