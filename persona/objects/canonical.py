"""The one canonical encoding of structured objects.

**canonical JSON** — UTF-8, keys sorted by code point, no optional space, no duplicate keys, no floats:
integers with |n| < 2^53, and real numbers as canonical decimals.
**canonical decimal** — a decimal as text without exponent, superfluous zeros or ``-0``: "0.7", "-0.5", "1".

An object is refused unless ``encode(decode(b)) == b``.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NoReturn

from persona.errors import IntegrityError, InvalidInput
from persona.limits import MAX_DECIMAL_CHARS, MAX_JSON_CONTAINERS, MAX_JSON_DEPTH

MAX_INTEGER: Final = (1 << 53) - 1

Json = Any
"""dict[str, Json] | list[Json] | str | int | bool | None"""


def encode(value: Json) -> bytes:
    """The canonical bytes of `value`.

    Raises `InvalidInput` for floats, wide integers, deep nesting and lone surrogates.
    """
    _check(value, 0)
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"text that is not valid Unicode: {error.object[error.start : error.end]!r}"
        ) from None


def decode(data: bytes | memoryview, what: str = "object") -> Json:
    """The value of canonical bytes.

    Raises `IntegrityError` naming `what` for bytes that `encode` would write differently.
    """
    data = bytes(data)
    if data.count(b"[") + data.count(b"{") > MAX_JSON_CONTAINERS:
        raise IntegrityError(f"{what}: more than {MAX_JSON_CONTAINERS} lists and objects")
    if _depth(data) > MAX_JSON_DEPTH:
        raise IntegrityError(f"{what}: nested deeper than {MAX_JSON_DEPTH} levels")
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_float=_no_float, parse_constant=_no_float
        )
        same = encode(value) == data
    except (UnicodeDecodeError, ValueError, InvalidInput, RecursionError) as error:
        raise IntegrityError(f"{what}: not canonical JSON: {error}") from None
    if not same:
        raise IntegrityError(f"{what}: not in canonical form")
    return value


def decimal(value: str | int | float | Decimal) -> str:
    """The canonical decimal of a finite number; a float means its shortest decimal. Raises `InvalidInput`."""
    if isinstance(value, bool):
        raise InvalidInput(f"not a number: {value!r}")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"not a finite number: {value!r:.60}")
        value = repr(value)
    if isinstance(value, str) and not value.isascii():
        raise InvalidInput(f"not a number: {value!r:.60}")  # digits of other scripts, which Decimal accepts
    try:
        number = Decimal(value)
    except (InvalidOperation, TypeError, ValueError):
        raise InvalidInput(f"not a number: {value!r:.60}") from None
    if not number.is_finite():
        raise InvalidInput(f"not a finite number: {value!s:.60}")
    if abs(number.adjusted()) > MAX_DECIMAL_CHARS:
        raise InvalidInput(f"a number out of range: {number:.3e}")
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    digits = digits.lstrip("0") or "0"
    if digits.startswith("."):
        digits = "0" + digits
    text = "0" if digits == "0" else sign + digits
    if len(text) > MAX_DECIMAL_CHARS:
        raise InvalidInput(f"a number of more than {MAX_DECIMAL_CHARS} characters: {text[:20]}…")
    return text


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a duplicate key")
    return found


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"a float: {text[:40]}")


def _check(value: Json, depth: int) -> None:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if kind is int:
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise InvalidInput(f"an integer beyond 2^53, of {value.bit_length()} bits")
    elif depth == MAX_JSON_DEPTH and kind in (list, tuple, dict):
        raise InvalidInput(f"nested deeper than {MAX_JSON_DEPTH} levels")
    elif kind is list or kind is tuple:
        for item in value:
            if type(item) is not str:  # most are, in a manifest of many tensors
                _check(item, depth + 1)
    elif kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise InvalidInput(f"a key that is not text: {key!r}")
            _check(item, depth + 1)
    else:
        raise InvalidInput(f"a {kind.__name__} has no canonical form")


def _depth(data: bytes) -> int:
    """An upper bound of the nesting, so that hostile input never reaches a recursive parser."""
    if data.count(b"[") + data.count(b"{") <= MAX_JSON_DEPTH:
        return 0
    depth = deepest = 0
    in_string = False
    for byte in _structure(data):
        if byte == 0x22:
            in_string = not in_string
        elif in_string:
            continue
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


_DROPPED = bytes(byte for byte in range(256) if byte not in b'"[]{}')


def _structure(data: bytes) -> bytes:
    """The quotes and brackets of `data`.

    An escaped backslash or quote is dropped as a pair, so no escape is misread.
    """
    return data.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _DROPPED)
