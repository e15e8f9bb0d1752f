"""The parameters of a mergekit recipe as they are written: numbers, gradients, or values with filters.

A gradient is a list of numbers, spread evenly over the layers. A filter is a text that a tensor's name has to
contain; the first filter that fits decides. The meaning is that of mergekit 0.1.5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

Gradient = tuple[float, ...]
"""Values over the layers, evenly spaced; one value holds for all layers."""
Scopes = tuple[Mapping[str, Any], ...]
"""Tables of parameters; the first that has a value for a tensor decides."""


def leaves(setting: Any) -> Iterator[Any]:
    """Every value that a setting can have."""
    if isinstance(setting, dict):
        yield from leaves(setting.get("value"))
    elif isinstance(setting, list):
        for item in setting:
            yield from leaves(item)
    else:
        yield setting


def number(value: Any) -> float | None:
    """A value as a finite number; None for anything else. Text counts: YAML reads 1e-3 as text."""
    if not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def truth(value: Any) -> bool | None:
    """A value as true or false; None for anything else."""
    if isinstance(value, str):
        word = value.strip().lower()
        return (
            True
            if word in ("true", "yes", "on", "1")
            else False
            if word in ("false", "no", "off", "0")
            else None
        )
    return bool(value) if value in (0, 1) and isinstance(value, (int, float)) else None


def filters(setting: Any) -> Iterator[str]:
    """The filters of a setting that are not for every tensor."""
    for item in setting if isinstance(setting, list) else [setting]:
        if isinstance(item, dict) and item.get("filter") not in (None, "*"):
            yield str(item["filter"])


def gradients(setting: Any) -> Iterator[Gradient]:
    """The gradients of more than one number in a setting."""
    if isinstance(setting, dict):
        yield from gradients(setting.get("value"))
    elif isinstance(setting, list) and not any(isinstance(item, dict) for item in setting):
        yield tuple(number(item) or 0.0 for item in setting)
    elif isinstance(setting, list):
        for item in setting:
            yield from gradients(item)


def possible(scopes: Scopes, key: str, default: float) -> Iterator[Any]:
    """Every value that a parameter has for some tensor."""
    for scope in scopes:
        if key in scope:
            yield from leaves(scope[key])
            if not any(filters(scope[key])):
                return
    yield default


def chosen(scopes: Scopes, key: str, tensor: str) -> Gradient | None:
    """The value of a parameter for a tensor, as a gradient of at least one number; None if none is set."""
    for scope in scopes:
        if key in scope and (found := _chosen(scope[key], tensor)) is not None:
            return found
    return None


def _chosen(setting: Any, tensor: str) -> Gradient | None:
    if isinstance(setting, dict):
        setting = [setting]
    if not isinstance(setting, list):
        return (number(setting) or 0.0,)
    if not any(isinstance(item, dict) for item in setting):
        return tuple(number(item) or 0.0 for item in setting) or None
    for item in setting:
        wanted = item.get("filter")
        if wanted in (None, "*") or str(wanted) in tensor:
            return _chosen(item.get("value"), tensor)
    return None


def at(gradient: Gradient, t: float) -> float:
    """The value of a gradient at t, 0 at its first number and 1 at its last, as mergekit interpolates it."""
    scaled = t * (len(gradient) - 1)
    low = int(scaled)
    high = min(len(gradient) - 1, low + 1)
    part = scaled - low
    return (1 - part) * gradient[low] + part * gradient[high]


def place(layer: int | None, first: int, stop: int) -> float:
    """t of a layer among those from `first` to before `stop`.

    A tensor outside the layers has t = 0, also one that comes after them.
    """
    if layer is None:
        return 0.0
    return 1.0 if stop - first == 1 else (layer - first) / (stop - first - 1)
