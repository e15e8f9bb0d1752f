"""What callers hand in, as the rest of the library takes it: numbers of other libraries as Python's, one glob
as a list of one. What cannot be taken is refused by the name of its parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from persona.errors import InvalidInput

Number = str | float | None
Value = TypeVar("Value")


def number(value: Any) -> Any:
    """numpy's and torch's numbers as Python's; anything else as it is, to be judged where it is checked."""
    if type(value) in (str, int, float, bool, type(None)) or not hasattr(value, "__float__"):
        return value
    if str(getattr(value, "dtype", "")) in ("bool", "torch.bool"):
        return value
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return value


def globs(value: Any, parameter: str) -> tuple[str, ...] | None:
    """A filter of tensor names: None as it is, one glob as a list of one, an empty text as no glob.

    Raises `InvalidInput` for anything but globs.
    """
    if value is None or isinstance(value, str):
        return None if value is None else ((value,) if value else ())
    patterns = tuple(value) if isinstance(value, Iterable) and not isinstance(value, bytes) else (value,)
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern:
            raise InvalidInput(
                f"a tensor filter is a glob such as 'model.layers.1?.mlp.*', not {pattern!r:.60}",
                parameter=parameter,
            )
    return patterns


def checked(parameter: str, check: Callable[[Any, str], Value], value: Any) -> Value:
    """The result of `check`, whose `InvalidInput` gets the name of the parameter."""
    try:
        return check(number(value), "")
    except InvalidInput as error:
        raise InvalidInput(error.message.removeprefix(": "), parameter=parameter) from None
