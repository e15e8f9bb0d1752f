"""**bound verb** — a function of a lower folder that is a method of `Repository` or one of its values.

The function is the only declaration: the method has its signature, its docstring and its types. The
function's module is imported on first use.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial, wraps
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from persona.history.arguments import checked_call
from persona.history.history import History

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
S = TypeVar("S")


class Opened(Protocol):
    """An object that a verb can be bound to."""

    @property
    def _history(self) -> History: ...


class Verb(Generic[P, R]):
    """A function `verb(history, …)` as the method `repo.verb(…)`.

    A call is refused when the repository is closed, and when an argument is none that the function's
    annotations admit.
    """

    def __init__(self, find: Callable[[], Callable[Concatenate[History, P], R]]) -> None:
        self._find = find
        self._name = ""
        self._call: Callable[..., Any] | None = None
        self._then: Callable[[History, Any], Any] | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def then(self: Verb[P, S], make: Callable[[History, S], R]) -> Verb[P, R]:
        """The verb, with `make` applied to the function's result."""
        made: Verb[P, Any] = Verb(self._find)
        made._then = make
        return made

    @overload
    def __get__(self, owner: None, kind: type) -> Callable[Concatenate[History, P], R]: ...
    @overload
    def __get__(self, owner: Opened, kind: type) -> Callable[P, R]: ...
    def __get__(self, owner: Opened | None, kind: type) -> Any:
        if self._call is None:
            self._call = self._calling(self._find())
        return self._call if owner is None else MethodType(self._call, owner._history)

    def _calling(self, function: Any) -> Callable[..., Any]:
        checked, then = checked_call(function, name=self._name, spell=True), self._then

        @wraps(checked)
        def call(history: History, *values: Any, **named: Any) -> Any:
            history.require_open()
            found = checked(history, *values, **named)
            return found if then is None else then(history, found)

        if then is not None:
            returns = then.__annotations__["return"]
            call.__signature__ = inspect.signature(checked).replace(return_annotation=returns)  # type: ignore[attr-defined]
        return call


class Placed(Opened, Protocol):
    """An object that a verb of one revision can be bound to."""

    @property
    def id(self) -> str:
        """The commit."""
        ...


class VerbAt(Generic[P, R]):
    """A function `verb(history, rev, …)` as the method `revision.verb(…)`."""

    def __init__(self, find: Callable[[], Callable[Concatenate[History, str | None, P], R]]) -> None:
        self._verb: Verb[Any, R] = Verb(find)

    @overload
    def __get__(self, owner: None, kind: type) -> Callable[Concatenate[History, str | None, P], R]: ...
    @overload
    def __get__(self, owner: Placed, kind: type) -> Callable[P, R]: ...
    def __get__(self, owner: Placed | None, kind: type) -> Any:
        call = self._verb.__get__(None, kind)
        return call if owner is None else partial(call, owner._history, owner.id)
