"""Strict reading of decoded manifests: every field present, none unknown, each of its type."""

from __future__ import annotations

from typing import Any

from persona.errors import IntegrityError, InvalidInput
from persona.objects import canonical


def mapping(
    value: Any, where: str, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """`value` as a mapping with exactly these keys; raises `IntegrityError` that names the wrong key."""
    if type(value) is not dict:
        raise IntegrityError(f"{where} must be a mapping")
    for key in required:
        if key not in value:
            raise IntegrityError(f"{where}: the field {key!r} is missing")
    for key in value:
        if key not in required and key not in optional:
            raise IntegrityError(f"{where}: unknown field {key!r:.60}")
    return value


def text(value: Any, where: str) -> str:
    """`value` as text."""
    if type(value) is not str:
        raise IntegrityError(f"{where} must be text, not {value!r:.60}")
    return value


def integer(value: Any, where: str, low: int, high: int) -> int:
    """`value` as an integer in [low, high]."""
    if type(value) is not int or not low <= value <= high:
        raise IntegrityError(f"{where} must be an integer from {low} to {high}, not {value!r:.60}")
    return value


def one_of(value: Any, where: str, choices: tuple[str, ...]) -> str:
    """`value` as one of some words."""
    if type(value) is not str or value not in choices:
        raise IntegrityError(f"{where}: {value!r:.60} is not one of {', '.join(choices)}")
    return value


def items(value: Any, where: str, limit: int) -> list[Any]:
    """`value` as a list of at most `limit` items."""
    if type(value) is not list or len(value) > limit:
        raise IntegrityError(f"{where} must be a list of at most {limit} items")
    return value


def decimal(value: Any, where: str) -> str:
    """`value` as a canonical decimal string."""
    try:
        if type(value) is str and canonical.decimal(value) == value:
            return value
    except InvalidInput:
        pass
    raise IntegrityError(f"{where} must be a canonical decimal, not {value!r:.60}")
