"""**collection** — a mapping from names to values of an open repository, read again at each use."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, ClassVar, TypeVar, overload

from persona.errors import PersonaError, UnknownName, quoted
from persona.history.history import History

V = TypeVar("V")
T = TypeVar("T")


class Collection(Mapping[str, V]):
    """A mapping from names to values of an open repository."""

    kind: ClassVar[str]
    """The word for one item."""

    def __init__(self, history: History) -> None:
        self._history = history

    @abstractmethod
    def _read(self) -> dict[str, V]:
        """All there are, in order."""

    def _names(self) -> list[str]:
        """Their names, in order."""
        return list(self._read())

    def __getitem__(self, name: str) -> V:
        """The value of a name. Raises `UnknownName`."""
        try:
            return self._read()[name]
        except (KeyError, TypeError) as error:  # a name that cannot be hashed is none
            if isinstance(error, PersonaError):
                raise
            raise self._unknown(name) from None

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    @overload
    def get(self, name: str, /) -> V | None: ...
    @overload
    def get(self, name: str, /, default: V | T) -> V | T: ...
    def get(self, name: str, /, default: Any = None) -> Any:
        """The value of a name, else `default`."""
        try:
            return self[name]
        except UnknownName:
            return default

    def keys(self) -> KeysView[str]:
        """The names, in order."""
        return dict.fromkeys(self._names()).keys()

    def values(self) -> ValuesView[V]:
        """The values, in order."""
        return self._read().values()

    def items(self) -> ItemsView[str, V]:
        """(name, value), in order."""
        return self._read().items()

    def _unknown(self, name: object) -> UnknownName:
        from difflib import get_close_matches

        names = self._names()
        near = get_close_matches(str(name), names, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names) or 'none'}"
        return UnknownName(f"no {self.kind} is named {quoted(str(name))}; {hint}")

    def __repr__(self) -> str:
        if self._history.closed:
            return f"<{type(self).__name__} of a closed repository>"
        try:
            shown = ", ".join(self._shown()) or "none"
        except PersonaError as error:  # a recipe.toml that cannot be read, say
            shown = error.message
        return f"<{type(self).__name__}: {shown}>"

    def _shown(self) -> list[str]:
        """Each in a few words, for `repr`."""
        return self._names()
