"""The form of results in a notebook: starts of ids, no bytes, no empty or default fields, counted lists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final

from persona.objects.ids import abbreviate, is_id

_WIDTH: Final = 100
"""Characters of a line."""
_ITEMS: Final = 12
"""Items of a collection that are shown."""
_VALUES: Final = 4
"""The same, for items with fields of their own."""
_ID: Final = re.compile(r"(?<![0-9a-f])([0-9a-f]{8})[0-9a-f]{56}(?![0-9a-f])")


def brief(value: Any) -> str:
    """A value in one line, or in a few if one is too short."""
    if is_dataclass(value) and not isinstance(value, type):
        shown = [(item, getattr(value, item.name)) for item in fields(value) if item.repr]
        parts = [
            f"{item.name}={brief(found)}"
            for item, found in shown
            if found != item.default and not _is_nothing(found)
        ]
        return _wrapped(f"{type(value).__name__}(", parts, ")")
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, Mapping):
        return _wrapped("{", _some(f"{brief(name)}: {brief(found)}" for name, found in value.items()), "}")
    if isinstance(value, tuple | list):
        if len(value) > _VALUES and is_dataclass(value[0]):
            return f"<{len(value)} of {type(value[0]).__name__}>"
        return _wrapped("[", _some(map(brief, value)), "]")
    return repr(value)


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str | bytes | tuple | list | dict) and not value)


def _text(text: str) -> str:
    """A text in quotes; an id, the digest of weights and a long text by their beginning."""
    if is_id(text):
        return abbreviate(text)
    text = _ID.sub(r"\1", text)
    return repr(text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…")


def _some(parts: Iterable[str]) -> list[str]:
    found = list(parts)
    return found if len(found) <= _ITEMS else [*found[:_ITEMS], f"… {len(found) - _ITEMS} more"]


def _wrapped(begin: str, parts: list[str], end: str) -> str:
    line = begin + ", ".join(parts) + end
    if len(line) <= _WIDTH and "\n" not in line:
        return line
    lines = [""]
    for part in parts:
        filled = f"{lines[-1]} {part}," if lines[-1] else f"{part},"
        if lines[-1] and ("\n" in lines[-1] + part or len(filled) > _WIDTH - 2):
            lines.append(f"{part},")
        else:
            lines[-1] = filled
    return begin + "".join("\n  " + line.replace("\n", "\n  ") for line in lines) + "\n" + end
