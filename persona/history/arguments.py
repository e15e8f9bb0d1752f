"""Checks of the arguments of public methods, made from their annotations.

The annotations of a public method are its declaration: `checks_arguments` holds each call of a class against
them, so that no other module meets a number of threads that is a text, or a path that is None. A method that
takes `**options: Unpack[RunOptions]` is held against the declaration of that name in
`persona.history.options`.
"""

from __future__ import annotations

import errno
import math
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from types import FunctionType
from typing import Any, Final, TypeVar

from persona.errors import UsageError
from persona.objects.commit import Person
from persona.store import files

Value = TypeVar("Value")

_BYTES: Final = frozenset({"memory", "device_memory", "max_shard_size", "cache"})
_NOTHING_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""Errors of a path that leads to nothing, which the method judges. Any other error is raised."""
_LEAST: Final[Mapping[str, float]] = {"cache": 0, "n": -math.inf, "mainline": -math.inf}
"""The least value of a whole number, if it is not 1; None if the method itself checks it."""
_UNPACKED: Final = re.compile(r"Unpack\[(?:\w+\.)*(\w+)\]")
_declared: Final[list[tuple[Callable[..., Any], str]]] = []
"""Methods that take a declaration, and its name."""


# -- calls ---------------------------------------------------------------------------------------------------


def checks_arguments(cls: type[Value]) -> type[Value]:
    """A class decorator: public methods refuse arguments that do not fit their annotations.

    They raise `UsageError` with the name of the parameter.
    """
    for name, attribute in list(vars(cls).items()):
        function = attribute.__func__ if isinstance(attribute, staticmethod) else attribute
        if not name.startswith("_") and isinstance(function, FunctionType):
            checking = _checking(function)
            setattr(cls, name, staticmethod(checking) if function is not attribute else checking)
    return cls


def _checking(function: FunctionType) -> Callable[..., Any]:
    kinds: dict[str, _Kind | None] = {}
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    rest = code.co_varnames[code.co_argcount + code.co_kwonlyargcount] if code.co_flags & 4 else ""
    declaration = _declaration(function)
    own = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + bool(rest)]

    def annotation_of(name: str) -> Any:
        if declaration is None or name in own:
            return function.__annotations__.get(name)
        from persona.history import options

        found = options.annotations(declaration).get(name)
        if found is None:
            raise TypeError(f"{function.__qualname__}() got an unexpected keyword argument {name!r}")
        return found

    def take(name: str, value: Any) -> Any:
        if name not in kinds:
            annotation = annotation_of(name)
            kinds[name] = None if annotation is None else _Kind(name, str(annotation))
        kind = kinds[name]
        return kind.take(value) if kind else value

    @wraps(function)
    def checking(*values: Any, **named: Any) -> Any:
        taken = [take(name, value) for name, value in zip(names, values, strict=False)]
        taken += [take(rest, value) for value in values[len(names) :]]
        return function(*taken, **{name: take(name, value) for name, value in named.items()})

    if declaration is not None:
        _declared.append((checking, declaration))
    return checking


def _declaration(function: FunctionType) -> str | None:
    """The declaration that a function takes as `**options: Unpack[…]`, by name."""
    code = function.__code__
    if not code.co_flags & 8:
        return None
    name = code.co_varnames[code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4)]
    found = _UNPACKED.fullmatch(str(function.__annotations__.get(name)))
    return found[1] if found else None


def spell_out() -> None:
    """Methods that take a declaration get a signature with every keyword of it, for `help` and notebooks."""
    import inspect

    from persona.history import options

    while _declared:
        method, name = _declared.pop()
        signature = inspect.signature(method)
        plain = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        usual = options.defaults(getattr(options, name))
        plain += [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=usual[key], annotation=annotation)
            for key, annotation in options.annotations(name).items()
        ]
        method.__signature__ = signature.replace(parameters=plain)  # type: ignore[attr-defined]


class _Kind:
    """The values that the annotation of a parameter allows."""

    def __init__(self, name: str, annotation: str) -> None:
        self.name = name
        self.parts = frozenset(re.split(r" \| (?![^\[]*\])", annotation))
        self.words = tuple(re.findall(r'"(\w+)"', annotation)) if "Literal[" in annotation else ()

    def take(self, value: Any) -> Any:
        """The value as the library takes it; anything that has a check of its own, as it is."""
        if value is None and "None" in self.parts:
            return None
        if self.words:
            return self._one_of(value)
        if self.parts <= {"AnyPath", "None"}:
            return self._path(value)
        if self.parts <= {"int", "None"}:
            return self._whole(value)
        if self.parts <= {"str", "None"}:
            return self._require(value, isinstance(value, str), "text")
        if self.parts <= {"str", "Sequence[str]", "None"} and self.name not in ("only", "except_"):
            return self._texts(value)
        if "Person" in self.parts:
            return self._require(value, isinstance(value, Person), "a persona.Person")
        if "Progress" in self.parts or any(part.startswith("Callable[") for part in self.parts):
            return self._require(value, callable(value), "a function")
        if any(part.startswith("Mapping[") for part in self.parts):
            return self._require(value, isinstance(value, Mapping), "a mapping")
        return value

    def _one_of(self, value: Any) -> Any:
        listed = " or ".join(map(repr, self.words))
        return self._require(value, isinstance(value, str) and value in self.words, listed)

    def _path(self, value: Any) -> Any:
        is_path = isinstance(value, (str, os.PathLike)) and isinstance(os.fspath(value), str)
        self._require(value, is_path and os.fspath(value) != "", "a path")
        self._require(value, "\0" not in os.fspath(value), "a path, which holds no NUL")
        if self.name != "user_config":  # an unreadable one is reported when it is read
            try:
                os.stat(value)
            except OSError as error:
                if error.errno not in _NOTHING_THERE:
                    raise files.system_fault("look at", value, error) from error
        return value

    def _whole(self, value: Any) -> Any:
        least = _LEAST.get(self.name, 1)
        what = "a number of bytes" if self.name in _BYTES else "a whole number"
        what += " above 0" if least == 1 else ""
        try:
            whole = operator.index(value)
        except TypeError:
            whole = None
        self._require(value, whole is not None and not isinstance(value, bool) and whole >= least, what)
        return whole

    def _texts(self, value: Any) -> Any:
        several = isinstance(value, Iterable) and not isinstance(value, (str, bytes, os.PathLike))
        texts = list(value) if several else [value]
        if self.name == "paths":
            texts = [os.fspath(text) if isinstance(text, os.PathLike) else text for text in texts]
        self._require(value, all(isinstance(text, str) for text in texts), "text, or a list of texts")
        return texts if several else texts[0]

    def _require(self, value: Any, admitted: bool, what: str) -> Any:
        if not admitted:
            raise UsageError(f"{self.name} is {what}, not {value!r:.60}")
        return value
