"""**bound verb** — a function of a lower folder that is a method of `Repository` or one of its values.

The function is the only declaration: the method has its signature, its docstring and its types. The
function's module is imported on first use.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from persona.history.arguments import checked_call
from persona.history.history import History

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Opened(Protocol):
    """An object that a verb can be bound to."""

    @property
    def _history(self) -> History: ...


class _Bound(Generic[P, R]):
    """A descriptor: a function that takes the history first, as a method.

    A call is refused when the repository is closed, and when an argument is none that the function's
    annotations admit.
    """

    def __init__(
        self, find: Callable[[], Callable[..., Any]], given: Callable[[Any], tuple[Any, ...]]
    ) -> None:
        self._find = find
        self._given = given
        """The first arguments of the function, from the object that it is a method of."""
        self._leading = 1
        self._name = self._path = ""
        self._call: Callable[..., Any] | None = None
        self._then: Callable[[History, Any], Any] | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        self._name, self._path = name, f"{owner.__qualname__}.{name}"

    def _bind(self, owner: Any) -> Any:
        if self._call is None:
            self._call = self._method(self._find())
        return self._call if owner is None else MethodType(self._call, owner)

    def _method(self, function: Any) -> Callable[..., Any]:
        """The function as a method, with the signature that its caller sees."""
        given, leading, then = self._given, self._leading, self._then
        checked = checked_call(function, name=self._name, spell=True, skip=leading)

        @wraps(checked)
        def method(self: Opened, *values: Any, **named: Any) -> Any:
            self._history.require_open()
            found = checked(*given(self), *values, **named)
            return found if then is None else then(self._history, found)

        seen = inspect.signature(checked)
        parameters = list(seen.parameters.values())
        own = parameters[0].replace(name="self", annotation=inspect.Parameter.empty)
        returns = seen.return_annotation if then is None else then.__annotations__["return"]
        method.__signature__ = seen.replace(  # type: ignore[attr-defined]
            parameters=[own, *parameters[leading:]], return_annotation=returns
        )
        method.__name__, method.__qualname__ = self._name, self._path
        return method


class Verb(_Bound[P, R]):
    """A function `verb(history, …)` as the method `repo.verb(…)`."""

    def __init__(self, find: Callable[[], Callable[Concatenate[History, P], R]]) -> None:
        super().__init__(find, lambda owner: (owner._history,))

    def then(self, make: Callable[[History, R], T]) -> Verb[P, T]:
        """The verb, with `make` applied to the function's result."""
        made: Verb[P, Any] = Verb(self._find)
        made._then = make
        return made

    @overload
    def __get__(self, owner: None, kind: type) -> Callable[Concatenate[Opened, P], R]: ...
    @overload
    def __get__(self, owner: Opened, kind: type) -> Callable[P, R]: ...
    def __get__(self, owner: Opened | None, kind: type) -> Any:
        return self._bind(owner)


class Placed(Opened, Protocol):
    """An object that a verb of one revision can be bound to."""

    @property
    def id(self) -> str:
        """The commit."""
        ...


class VerbAt(_Bound[P, R]):
    """A function `verb(history, rev, …)` as the method `revision.verb(…)`."""

    def __init__(self, find: Callable[[], Callable[Concatenate[History, str | None, P], R]]) -> None:
        super().__init__(find, lambda owner: (owner._history, owner.id))
        self._leading = 2

    @overload
    def __get__(self, owner: None, kind: type) -> Callable[Concatenate[Placed, P], R]: ...
    @overload
    def __get__(self, owner: Placed, kind: type) -> Callable[P, R]: ...
    def __get__(self, owner: Placed | None, kind: type) -> Any:
        return self._bind(owner)
