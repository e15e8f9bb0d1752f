"""The checked values beside the objects of a store. Each has a check of its content and its name.

**state** — a JSON value in `state/` that must not be lost: damage is an error.
**cache** — bytes in `cache/` that can be computed again: a damaged entry counts as absent.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from blake3 import blake3

from persona.errors import IntegrityError, Keyword, PersonaError, UsageError
from persona.limits import MAX_STATE_BYTES
from persona.store import files

Decoded = TypeVar("Decoded")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,3}")
_CHECK: Final = 32
_PLACE: Final = "place"
"""cache/place: the place of the store that the caches were computed in."""


class StateFile:
    """One JSON value in `state/`."""

    def __init__(self, root: Path, name: str, require_writable: Callable[[], None]) -> None:
        self._root = root
        self._name = checked_name(name)
        self._require_writable = require_writable
        self.path = root / "state" / f"{name}.json"

    def read(self) -> Any:
        """The value, or None if none was written. Raises `IntegrityError` if the file is damaged."""
        files.check_directories(self._root, "state", *self._name.split("/")[:-1])
        data = files.read_file(self.path, limit=MAX_STATE_BYTES)
        if data is None:
            return None
        check, _, text = data.partition(b"\n")
        if check != self._check(text):
            raise self.damaged()
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise self.damaged() from None

    def decoded(self, decode: Callable[[Any], Decoded], *cost: str | Keyword) -> Decoded | None:
        """The value after `decode`; see `read`.

        If `decode` raises `AttributeError`, `KeyError`, `TypeError` or `ValueError`, the value has another
        form, which is damage too. `cost`: what is lost if the file is deleted.
        """
        value = self.read()
        try:
            return None if value is None else decode(value)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise self.damaged(*cost) from None

    def damaged(self, *cost: str | Keyword) -> IntegrityError:
        """The error for a value that persona cannot have written.

        `cost`: what is lost if the file is deleted.
        """
        hint = ("delete it: ", *(cost or ("its content is then lost",)))
        return IntegrityError(f"{self.path} is damaged", kind="state", file=str(self.path), hint=hint)

    def write(self, value: Any) -> None:
        """Replaces the value, durably."""
        self._require_writable()
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1).encode() + b"\n"
        files.mkdirs(self.path.parent, below=self._root)
        files.mkdirs(self._root / "tmp", below=self._root)
        files.write_file(self.path, [self._check(text) + b"\n", text], tmp_dir=self._root / "tmp")

    def remove(self) -> None:
        """Removes the value, durably, if there is one."""
        self._require_writable()
        files.check_directories(self._root, "state", *self._name.split("/")[:-1])
        if os.path.lexists(self.path):
            files.remove(self.path)
            files.sync_directory(self.path.parent)

    def _check(self, text: bytes) -> bytes:
        return b"blake3:" + blake3(b"state\x00%s\x00" % self._name.encode() + text).hexdigest().encode()


class Caches:
    """The files in `cache/`. `place`: the store's own place."""

    def __init__(self, root: Path, place: Callable[[], str], require_writable: Callable[[], None]) -> None:
        self.root = root
        self.require_writable = require_writable
        self._place = place
        self._owned = False

    def file(self, name: str) -> CacheFile:
        """A file in `cache/`, by name."""
        return CacheFile(self, name)

    def are_owned(self) -> bool:
        """Whether the content of `cache/` was computed here, and did not come with a copy."""
        if not self._owned:
            self._owned = self.file(_PLACE).read_any() == self._place().encode()
        return self._owned

    def own(self) -> None:
        """Empties `cache/` unless it was filled here, and says then that it is."""
        if not self.are_owned():
            files.check_directories(self.root, "cache")
            files.remove_tree(self.root / "cache")
            self.file(_PLACE).write_any(self._place().encode())


class CacheFile:
    """Bytes in `cache/` that can be computed again."""

    def __init__(self, caches: Caches, name: str) -> None:
        self._caches = caches
        self._root = caches.root
        self._name = checked_name(name)
        self.path = caches.root / "cache" / name

    def read(self) -> bytes | None:
        """The bytes, or None when they are absent, damaged, of a copy of this store, or cannot be read."""
        if not self._caches.are_owned():
            return None
        return self.read_any()

    def read_any(self) -> bytes | None:
        """Like `read`, of a copy of this store too."""
        try:
            files.check_directories(self._root, "cache", *self._name.split("/")[:-1])
            data = files.read_file(self.path, limit=MAX_STATE_BYTES)
        except PersonaError:
            return None
        if data is None or len(data) < _CHECK or data[:_CHECK] != self._check(data[_CHECK:]):
            return None
        return data[_CHECK:]

    def write(self, data: files.Buffer) -> None:
        """Replaces the bytes. Not synced, because they can be computed again.

        Nothing happens if they cannot be written, in a read-only store or on a full disk.
        """
        with suppress(PersonaError):
            self._caches.require_writable()
            self._caches.own()
            self.write_any(data)

    def write_any(self, data: files.Buffer) -> None:
        """Like `write`, even if `cache/` came with a copy; raises the errors of writing."""
        files.mkdirs(self.path.parent, below=self._root)
        files.mkdirs(self._root / "tmp", below=self._root)
        files.write_file(self.path, [self._check(data), data], tmp_dir=self._root / "tmp", durable=False)

    def remove(self) -> None:
        """Removes the bytes, if there are any."""
        files.check_directories(self._root, "cache", *self._name.split("/")[:-1])
        files.remove(self.path)

    def _check(self, data: files.Buffer) -> bytes:
        hasher = blake3(b"cache\x00%s\x00" % self._name.encode())
        hasher.update(data)
        return hasher.digest()


def checked_name(name: str) -> str:
    """`UsageError` for a name that no file of `state/` or `cache/` has."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise UsageError(f"not a name for a file of the store: {name!r:.100}")
    return name
