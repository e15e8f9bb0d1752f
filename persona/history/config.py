"""The settings of a user, in two TOML files: the repository's file wins over the user's own.

A key is dotted (`user.name`, `commit.checkout`). An edit keeps the comments of the file. A file that cannot
be read is `InvalidInput` with its line. The user's own file may be a symbolic link, because managers of
dotfiles make them. It is read and written at its target. The repository's file may not be a link.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from persona.errors import Blank, Call, IntegrityError, InvalidInput, UnknownName, UsageError
from persona.history.settings import SETTINGS
from persona.limits import MAX_RECIPE_BYTES
from persona.store import files
from persona.store.lock import config_lock

_BARE: Final = r"[\w/@+-]+"
_QUOTED: Final = r'"[^"\x00-\x1f\x7f]+"'
_PART: Final = re.compile(f"{_BARE}|{_QUOTED}")
_KEY: Final = re.compile(f"(?:{_BARE}|{_QUOTED})(?:\\.(?:{_BARE}|{_QUOTED}))+")


class Config:
    """The two files of config; read when first asked."""

    def __init__(self, path: Path, user_path: Path | None = None) -> None:
        self.path = path
        self.user_path = None if user_path is None else Path(os.path.realpath(user_path))
        self._values: tuple[object, dict[str, str]] | None = None

    def get(self, key: str) -> str | None:
        """The value in force as text; None when neither file has it."""
        return self.values().get(_named(_parts(key)))

    def read(self, key: str) -> Any:
        """The value of a key of `SETTINGS`, as its type; None if neither file has it.

        Raises `InvalidInput` for a text that the key cannot have; its hint names the file.
        """
        text = self.get(key)
        try:
            return None if text is None else SETTINGS[key].read(text)
        except InvalidInput as error:
            path = self._holder(key)
            mine = {"user": True} if path == self.user_path else {}
            hint = (f"{path} says so; ", Call("config.set", key, Blank("VALUE"), **mine), " changes it")
            raise InvalidInput(error.message, hint=hint) from None

    def values(self) -> dict[str, str]:
        """Every key and the value in force, in order of keys."""
        stamps = tuple(map(_stamp, self._paths()))
        if self._values is None or self._values[0] != stamps:
            values: dict[str, str] = {}
            for path in self._paths():
                values.update(_flat(_load(path, self._read(path)), ()))
            self._values = stamps, dict(sorted(values.items()))
        return self._values[1]

    def check(self) -> None:
        """Raises if the repository's own file cannot be read."""
        _load(self.path, self._read(self.path))

    def set(self, key: str, value: str, *, user: bool = False) -> None:
        """Sets a key in one of the files. "true", "false" and numbers are written without quotes.

        Raises `InvalidInput` for a value that a known key cannot have.
        """
        parts = _parts(key)
        if key in SETTINGS:
            SETTINGS[key].read(value)
            if SETTINGS[key].personal and not user and os.path.realpath(self.path) != str(self.user_path):
                raise UsageError(
                    f"{key} cannot be set in a repository: the repository may come from somebody else",
                    hint=(Call("config.set", key, value, user=True), " sets it for you alone"),
                )

        def edit(table: Any, path: Path) -> None:
            import tomlkit

            for part in parts[:-1]:
                if part not in table:
                    table[part] = tomlkit.table()
                table = table[part]
                if not isinstance(table, dict):
                    raise InvalidInput(f"{path}: {part} is a value, so {key} cannot be set below it")
            table[parts[-1]] = _typed(value)

        self._edit(user, edit)

    def unset(self, key: str, *, user: bool = False) -> None:
        """Takes a key away; `UnknownName` when the file does not have it."""
        parts = _parts(key)

        def edit(table: Any, path: Path) -> None:
            for part in parts[:-1]:
                table = table.get(part, {}) if isinstance(table, dict) else {}
            if not isinstance(table, dict) or parts[-1] not in table:
                raise UnknownName(f"{path} does not set {key}")
            del table[parts[-1]]

        self._edit(user, edit)

    def _holder(self, key: str) -> Path:
        """The file whose value of the key applies."""
        name = _named(_parts(key))
        paths = reversed(self._paths())
        return next(path for path in paths if name in _flat(_load(path, self._read(path)), ()))

    def _paths(self) -> list[Path]:
        """The files, the one that counts more last."""
        return [path for path in (self.user_path, self.path) if path is not None]

    def _edit(self, user: bool, edit: Callable[[Any, Path], None]) -> None:
        """Lets `edit` change the document of one of the files, which no other command changes meanwhile."""
        import tomlkit

        from persona.history.recipes.text import decode, encode, with_line_ends

        path = self.user_path if user else self.path
        if path is None:
            raise UsageError("no path is known for the user's own config file")
        files.mkdirs(path.parent)
        with config_lock(path.parent):
            data = self._read(path)
            _load(path, data)
            text = decode(data, str(path))
            document = tomlkit.parse(text.replace("\r\n", "\n"))
            edit(document, path)
            files.write_file(path, encode(with_line_ends(tomlkit.dumps(document), text), like=data))

    def _read(self, path: Path) -> bytes:
        """The bytes of one of the files, empty if it does not exist."""
        try:
            return files.read_file(path, limit=MAX_RECIPE_BYTES) or b""
        except IntegrityError as error:
            if path != self.user_path:
                raise
            raise InvalidInput(f"{error.message}; move it away, or write a config file there") from None


def _load(path: Path, data: bytes) -> dict[str, Any]:
    if not data:
        return {}
    from persona.history.recipes.text import decode, load

    return load(decode(data, str(path)), str(path))


def _stamp(path: Path) -> object:
    """A value that changes when a file does."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _flat(table: dict[str, Any], above: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in table.items():
        here = (*above, key)
        if isinstance(value, dict):
            found.update(_flat(value, here))
        else:
            found[_named(here)] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


def _typed(value: str) -> Any:
    if value in ("true", "false"):
        return value == "true"
    return int(value) if re.fullmatch(r"-?(0|[1-9]\d{0,17})", value) else value


def _parts(key: str) -> tuple[str, ...]:
    """The parts of a key: `branch.topic/one.remote`, or `branch."a.b".remote`."""
    if not _KEY.fullmatch(key):
        raise UsageError(f"{key!r:.80} is not a config key; one looks like user.name")
    return tuple(part[1:-1] if part.startswith('"') else part for part in _PART.findall(key))


def _named(parts: tuple[str, ...]) -> str:
    """The key of parts, as `_parts` reads it."""
    return ".".join(part if re.fullmatch(_BARE, part) else f'"{part}"' for part in parts)
