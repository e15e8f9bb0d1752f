"""The settings of an open repository."""

from __future__ import annotations

from typing import ClassVar

from persona.errors import UnknownName
from persona.face.collection import Collection
from persona.history.arguments import checks_arguments


@checks_arguments
class Settings(Collection[str]):
    """Keys ("user.name") and the values in force as text: the repository's, else the user's."""

    kind: ClassVar[str] = "setting"

    def set(self, key: str, value: str, *, user: bool = False) -> None:
        """Sets a key in the repository's file, or in the user's.

        Raises `InvalidInput` for a value that a known key cannot have.
        """
        self._history.require_open()
        self._history.config.set(key, value, user=user)

    def unset(self, key: str, *, user: bool = False) -> None:
        """Removes a key. Raises `UnknownName` when it is not set there."""
        self._history.require_open()
        self._history.config.unset(key, user=user)

    def __getitem__(self, key: str) -> str:
        """The value in force.

        Raises `UnknownName` for a key that is not set, `UsageError` for a text that cannot be one.
        """
        self._history.require_open()
        if not isinstance(key, str):
            raise self._unknown(key)
        found = self._history.config.get(key)
        if found is None:
            raise UnknownName(f"{key} is not set")
        return found

    def _read(self) -> dict[str, str]:
        self._history.require_open()
        return self._history.config.values()

    def _shown(self) -> list[str]:
        return [f"{key}={value}" for key, value in self.items()]
