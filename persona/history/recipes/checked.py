"""Values of a recipe as callers give them: numbers of other libraries, or one glob instead of a list.

A value that cannot be taken is refused by the name of its parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, Final

from persona.errors import InvalidInput
from persona.history.arguments import Value
from persona.objects.recipe import check_alpha, check_own_density

Number = str | float | None
OverLayers = str | float | Sequence[str | float] | None
"""A number, or a list over layers."""
Globs = str | Sequence[str] | None
DEFAULT: Final = "default"
"""A density that takes the vector's own back."""


def number(value: Any) -> Any:
    """Numbers of numpy and torch as Python's; any other value unchanged, for a later check."""
    if type(value) in (str, int, float, bool, type(None)) or not hasattr(value, "__float__"):
        return value
    if str(getattr(value, "dtype", "")) in ("bool", "torch.bool"):
        return value
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return value


def over_layers(value: Any) -> Any:
    """A number, or a list over layers, as Python's own; any other value unchanged, for a later check."""
    if isinstance(value, (str, bytes, Mapping, Set)) or not isinstance(value, Iterable):
        return number(value)
    if getattr(value, "ndim", 1) == 0:
        return number(value)
    return [number(item) for item in value]


def globs(value: Any, parameter: str) -> tuple[str, ...] | None:
    """A filter of tensor names: None as it is, one glob as a list of one, an empty text as no glob.

    Raises `InvalidInput` for anything but globs.
    """
    if value is None or isinstance(value, str):
        return None if value is None else ((str(value),) if value else ())
    patterns = tuple(value) if isinstance(value, Iterable) and not isinstance(value, bytes) else (value,)
    for pattern in patterns:
        if not isinstance(pattern, str) or not pattern:
            raise InvalidInput(
                f"a tensor filter is a glob such as 'model.layers.1?.mlp.*', not {pattern!r:.60}",
                parameter=parameter,
            )
    return tuple(map(str, patterns))


def checked(parameter: str, check: Callable[[Any, str], Value], value: Any) -> Value:
    """The result of `check`, whose `InvalidInput` gets the name of the parameter."""
    try:
        return check(over_layers(value), "")
    except InvalidInput as error:
        raise InvalidInput(error.message.removeprefix(": "), parameter=parameter) from None


def checked_keys(alpha: OverLayers, density: OverLayers, only: Globs, except_: Globs) -> dict[str, Any]:
    """The keys of a term that these values set, numbers and lists over layers in canonical decimals.

    An empty filter and the density "default" remove the key. Raises `InvalidInput` with the name of the
    parameter.
    """
    from persona.history.recipes.edit import UNSET

    keys: dict[str, Any] = {}
    if alpha is not None:
        keys["alpha"] = checked("alpha", check_alpha, alpha)
    if density is not None:
        taken_back = isinstance(density, str) and density == DEFAULT
        keys["density"] = UNSET if taken_back else checked("density", check_own_density, density)
    for key, parameter, value in (("only", "only", only), ("except", "except_", except_)):
        patterns = globs(value, parameter)
        if patterns is not None:
            keys[key] = list(patterns) or UNSET
    return keys
