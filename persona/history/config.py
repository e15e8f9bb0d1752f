"""**config** — TOML that a user writes: the repository's file and the user's own, the repository's first.

A key is dotted (`user.name`, `commit.checkout`). The text is the user's: an edit keeps its comments, and a
file that cannot be read is `InvalidInput` with its line. The user's own file may be a symbolic link, as
managers of dotfiles make them: it is read and written where it leads. The repository's may not.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final

from persona.errors import IntegrityError, InvalidInput, UnknownName, UsageError
from persona.limits import MAX_RECIPE_BYTES
from persona.store import files

_KEY: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+")
_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([kmgt]?)(i?)b?", re.IGNORECASE | re.ASCII)
_UNITS: Final = " kmgt"


class Config:
    """The two files of config; read when first asked."""

    def __init__(self, path: Path, user_path: Path | None = None) -> None:
        self.path = path
        self.user_path = None if user_path is None else Path(os.path.realpath(user_path))
        self._values: dict[str, str] | None = None

    def get(self, key: str) -> str | None:
        """The value in force as text; None when neither file has it."""
        return self.values().get(_checked(key))

    def flag(self, key: str, default: bool = False) -> bool:
        """A value that is true or false. Raises `InvalidInput` for another."""
        text = self.get(key)
        if text is None:
            return default
        if text.lower() not in ("true", "false"):
            raise InvalidInput(f"config {key}: {text!r:.60} is neither true nor false")
        return text.lower() == "true"

    def size(self, key: str) -> int | None:
        """A value in bytes, as `parse_size` reads it. Raises `InvalidInput` for another."""
        text = self.get(key)
        try:
            return None if text is None else parse_size(text)
        except ValueError as error:
            raise InvalidInput(f"config {key}: {error}") from None

    def values(self) -> dict[str, str]:
        """Every key and the value in force, in order of keys."""
        if self._values is None:
            values: dict[str, str] = {}
            for path in (self.user_path, self.path):
                if path is not None:
                    values.update(_flat(_load(path, self._read(path)), ""))
            self._values = dict(sorted(values.items()))
        return self._values

    def set(self, key: str, value: str, *, user: bool = False) -> None:
        """Sets a key in one of the files; "true", "false" and numbers are written as such."""
        import tomlkit

        path, document = self._open(user)
        table: Any = document
        *parts, last = _checked(key).split(".")
        for part in parts:
            if part not in table:
                table[part] = tomlkit.table()
            table = table[part]
            if not isinstance(table, dict):
                raise InvalidInput(f"{path}: {part} is a value, so {key} cannot be set below it")
        table[last] = _typed(value)
        self._store(path, tomlkit.dumps(document))

    def unset(self, key: str, *, user: bool = False) -> None:
        """Takes a key away; `UnknownName` when the file does not have it."""
        import tomlkit

        path, document = self._open(user)
        table: Any = document
        *parts, last = _checked(key).split(".")
        for part in parts:
            table = table.get(part, {}) if isinstance(table, dict) else {}
        if not isinstance(table, dict) or last not in table:
            raise UnknownName(f"{path} does not set {key}")
        del table[last]
        self._store(path, tomlkit.dumps(document))

    def _open(self, user: bool) -> tuple[Path, Any]:
        import tomlkit

        path = self.user_path if user else self.path
        if path is None:
            raise UsageError("no place is known for the user's own config")
        data = self._read(path)
        _load(path, data)
        return path, tomlkit.parse(data.decode())

    def _read(self, path: Path) -> bytes:
        """The bytes of one of the files, none where it is not there."""
        try:
            return files.read_file(path, limit=MAX_RECIPE_BYTES) or b""
        except IntegrityError as error:
            if path != self.user_path:
                raise
            raise InvalidInput(f"{error.message}; move it away, or write a config file there") from None

    def _store(self, path: Path, text: str) -> None:
        files.mkdirs(path.parent)
        files.write_file(path, text.encode())
        self._values = None


def parse_size(text: str) -> int:
    """Bytes, from 5GB, 500MB or 2GiB; `ValueError` for anything else."""
    found = _SIZE.fullmatch(text.strip())
    power = _UNITS.index(found[2].lower() or " ") if found else 0
    count = int(float(found[1]) * (1024 if found[3] else 1000) ** power) if found else 0
    if count < 1:
        raise ValueError(f"{text!r:.60} is no size; write 5GB, 500MB or 2GiB")
    return count


def _load(path: Path, data: bytes) -> dict[str, Any]:
    if not data:
        return {}
    from persona.history.recipe_text import decode, load

    return load(decode(data, str(path)), str(path))


def _flat(table: dict[str, Any], prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            found.update(_flat(value, f"{prefix}{key}."))
        elif isinstance(value, bool):
            found[prefix + key] = str(value).lower()
        else:
            found[prefix + key] = str(value)
    return found


def _typed(value: str) -> Any:
    if value in ("true", "false"):
        return value == "true"
    return int(value) if re.fullmatch(r"-?(0|[1-9]\d{0,17})", value) else value


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise UsageError(f"{key!r:.80} is not a config key; one looks like user.name")
    return key
