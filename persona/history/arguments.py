"""Checks of the arguments of public methods, made from their annotations.

The annotations of a public method are its declaration: `checks_arguments` holds each call of a class against
them, so that no other module meets a number of threads that is a text, or a path that is None. A method that
takes `**options: Unpack[RunOptions]` is held against the declaration of that name in its module, else in
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
from numbers import Real
from types import FunctionType
from typing import Any, Final, TypeVar

from persona.errors import Blank, Call, Keyword, UsageError
from persona.history.options import ImportOptions, defaults
from persona.objects.commit import Person
from persona.store import files

AnyPath = str | os.PathLike[str]
Value = TypeVar("Value")

_BYTES: Final = frozenset({"memory", "device_memory", "max_shard_size", "cache"})
_NOTHING_THERE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""Errors of a path that leads to nothing, which the method judges. Any other error is raised."""
_LEAST: Final[Mapping[str, float]] = {
    "cache": 0,
    "skip": 0,
    "abbrev": 0,
    "seed": 0,
    "n": -math.inf,
    "mainline": -math.inf,
}
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
            checking = checked_call(function, skip=int(function is attribute))
            setattr(cls, name, staticmethod(checking) if function is not attribute else checking)
    return cls


def checked_call(
    function: Callable[..., Any], *, name: str = "", spell: bool = False, skip: int = 0
) -> Callable[..., Any]:
    """A function that refuses arguments which its annotations do not allow.

    It also refuses unknown, missing and surplus ones. It raises `UsageError`, which calls the function
    `name`. `spell`: its signature has every keyword of a declaration. `skip`: the number of first parameters
    that the caller does not give, such as `self`.
    """
    kinds: dict[str, _Kind | None] = {}
    plain = _unwrapped(function)
    called = name or plain.__name__
    code = plain.__code__
    names = code.co_varnames[: code.co_argcount]
    keywords = code.co_varnames[skip : code.co_argcount + code.co_kwonlyargcount]
    optional = {*names[len(names) - len(plain.__defaults__ or ()) :], *(plain.__kwdefaults__ or ())}
    rest = code.co_varnames[code.co_argcount + code.co_kwonlyargcount] if code.co_flags & 4 else ""
    declaration = _declaration(plain)
    takes_all = declaration is None and bool(code.co_flags & 8)
    own = (*names, *keywords, rest)

    def annotation_of(name: str) -> Any:
        if declaration is None or name in own:
            return plain.__annotations__.get(name)
        return _annotations(plain, declaration).get(name)

    def check_known(name: str) -> None:
        if takes_all or name in keywords:
            return
        known = list(keywords)
        if declaration is not None:
            known += _annotations(plain, declaration)
        if name not in known:
            raise _unknown(called, name, known)

    def check_count(given: int, named: Mapping[str, Any]) -> None:
        if given > len(names) and not rest:
            most = len(names) - skip
            raise UsageError(
                f"{called} takes {most or 'no'} {'argument' if most == 1 else 'arguments'} without a keyword,"
                f" not {given - skip}"
            )
        first = names[skip:given]
        if twice := [name for name in first if name in named]:
            raise UsageError(f"{called} is given {twice[0]} twice")
        for name in keywords:
            if name not in optional and name not in first and name not in named:
                raise UsageError(f"{called} needs {name}")

    def take(name: str, value: Any) -> Any:
        if name not in kinds:
            annotation = annotation_of(name)
            kinds[name] = None if annotation is None else _Kind(name, str(annotation))
        kind = kinds[name]
        return kind.take(value) if kind else value

    @wraps(function)
    def checking(*values: Any, **named: Any) -> Any:
        for name in named:
            check_known(name)
        taken = [take(name, value) for name, value in zip(names, values, strict=False)]
        taken += [take(rest, value) for value in values[len(names) :]]
        chosen = {name: take(name, value) for name, value in named.items()}
        check_count(len(values), named)
        return function(*taken, **chosen)

    if declaration is not None:
        _declared.append((checking, declaration))
        if spell:
            spell_out()
    return checking


def _unwrapped(function: Any) -> FunctionType:
    """The function below its decorators."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    assert isinstance(function, FunctionType)
    return function


def _unknown(function: str, name: str, known: Iterable[str]) -> UsageError:
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), 1)
    hint = f"did you mean {near[0]}?" if near else "help() of it lists its parameters"
    return UsageError(f"{function} takes no {name}; {hint}")


def _declaration(function: FunctionType) -> str | None:
    """The declaration that a function takes as `**options: Unpack[…]`, by name."""
    code = function.__code__
    if not code.co_flags & 8:
        return None
    name = code.co_varnames[code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4)]
    found = _UNPACKED.fullmatch(str(function.__annotations__.get(name)))
    return found[1] if found else None


def _declaration_named(function: FunctionType, name: str) -> type:
    """The declaration of that name: that of the function's module, else of `persona.history.options`."""
    from persona.history import options

    found: type = function.__globals__.get(name) or getattr(options, name)
    return found


def _annotations(function: FunctionType, declaration: str) -> dict[str, str]:
    """The types of a declaration's keywords, as a signature writes them."""
    from persona.history import options

    return options.annotations(_declaration_named(function, declaration))


def spell_out() -> None:
    """Methods that take a declaration get a signature with every keyword of it, for `help` and notebooks."""
    import inspect

    from persona.history import options

    while _declared:
        method, name = _declared.pop()
        signature = inspect.signature(method)
        plain = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        declaration = _declaration_named(_unwrapped(method), name)
        usual = options.defaults(declaration)
        plain += [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=usual[key], annotation=annotation)
            for key, annotation in options.annotations(declaration).items()
        ]
        method.__signature__ = signature.replace(parameters=plain)  # type: ignore[attr-defined]


class _Kind:
    """The values that the annotation of a parameter allows."""

    def __init__(self, name: str, annotation: str) -> None:
        self.name = name
        self.parts = frozenset(re.split(r" \| (?![^\[]*\])", annotation))
        self.words = tuple(re.findall(r"['\"](\w+)['\"]", annotation)) if "Literal[" in annotation else ()

    def take(self, value: Any) -> Any:
        """The value as the library takes it; anything that has a check of its own, as it is."""
        if value is None and "None" in self.parts:
            return None
        if self.words:
            return self._one_of(value)
        if self.parts <= {"AnyPath", "None"} or "PathLike[str]" in self.parts:
            return self._path(value)
        if self.parts <= {"bool", "None"}:
            is_bool = type(value).__name__ in ("bool", "bool_")  # numpy's as well
            return bool(self._require(value, is_bool, "True or False"))
        if self.parts <= {"int", "None"}:
            return self._whole(value)
        if self.parts == {"float"}:
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            return self._require(value, is_number, "a number")
        if self.parts <= {"str", "None"}:
            return self._require(value, isinstance(value, str), "text")
        if self.parts <= {"str", "Sequence[str]", "None"} and self.name not in ("only", "except_"):
            return self._texts(value)
        if "Signer" in self.parts or "Person" in self.parts:
            return self._require(
                value,
                value is None or isinstance(value, Person) or callable(value),
                "a persona.Person, or a function that gives one",
            )
        if "CommitEntry" in self.parts:
            return self._require(
                value, isinstance(value, str) or hasattr(value, "commit"), "text, or a Revision"
            )
        if "NoteList" in self.parts:
            return self._require(value, hasattr(value, "append"), "a list")
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
        self._require(value, "\0" not in os.fspath(value), "a path without NUL")
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
            hint = "its id is text" if hasattr(value, "commit") and "text" in what else None
            raise UsageError(f"{self.name} must be {what}, not {value!r:.60}", hint=hint)
        return value


def refuse_without_path(options: ImportOptions) -> None:
    """`UsageError` for import options without a path."""
    usual = {**defaults(ImportOptions), "threads": options["threads"], "progress": options["progress"]}
    given = [key for key, value in options.items() if value != usual[key]]
    if given:
        raise UsageError(
            "no fine-tune to import",
            hint=(
                "give the path of one, or leave out ",
                Keyword(*given),
                "; ",
                Call("recipe.set", Blank("NAME"), alpha=Blank("A")),
                " edits a vector of recipe.toml",
            ),
        )
