"""**glob** — a pattern of tensor names, with a grammar of its own (docs/numerics.md).

`*` matches any run of characters, `?` one character, `[abc]`, `[a-z]` and `[!abc]` one character of a set.

Every text is a glob and has one meaning, so a stored recipe always means the same. `fault` names the globs
that people read in two ways; they are refused when a recipe is taken in.

A glob becomes a regular expression of code points, sets and atomic groups. An atomic group never gives back
the characters that it matched, so a match takes at most the length of the name times the length of the glob.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=4096)
def matcher(pattern: str) -> Callable[[str], Any]:
    """A function that is true for the names that a glob matches as a whole."""
    first, *others = _segments(pattern)
    text = first
    if others:
        *inner, last = others
        # The earliest place of each inner segment leaves the most of the name to the segments after it.
        text += "".join(f"(?>.*?{segment})" for segment in inner if segment) + f".*{last}"
    return re.compile(text, re.DOTALL).fullmatch


def fault(pattern: str) -> str | None:
    """Why a glob is refused when a recipe is taken in, as the end of a sentence; None if it is accepted."""
    for body in _sets(pattern):
        if body is None:
            return "has a '[' without a ']'; write [01] for one of the characters 0 and 1, and [[] for a '['"
        if body.startswith("^"):
            return "reads ^ as one of the characters; write [!…] for any character except these"
        if "[:" in body and body.endswith(":"):
            return f"has the set [{body:.20}]; sets have no names, so write the characters: [a-z]"
        after: str | None = None
        items = list(_items(body.removeprefix("!")))
        for place, (low, high) in enumerate(items):
            if low > high:
                return f"has the range {low}-{high}, which is empty; write {high}-{low}"
            if after is not None and low == "-" and (high != "-" or place + 1 < len(items)):
                return f"has a '-' after the range {after}; put a '-' that means itself first: [-{after}]"
            after = f"{low}-{high}" if low != high else None
    return None


def _segments(pattern: str) -> list[str]:
    """The parts of a glob between its `*`, as regular expressions of a fixed number of characters."""
    segments: list[list[str]] = [[]]
    sets = _sets(pattern)
    at = 0
    while at < len(pattern):
        char = pattern[at]
        body = next(sets) if char == "[" else None
        if char == "*":
            segments.append([])
        else:
            segments[-1].append("." if char == "?" else _code(char) if body is None else _set(body))
        at += 1 if body is None else len(body) + 2
    return ["".join(segment) for segment in segments]


def _sets(pattern: str) -> Iterator[str | None]:
    """What stands between the brackets of each set of a glob; None for each `[` that begins no set."""
    start = pattern.find("[")
    closed = True
    while start >= 0:
        # The first character of a set never ends it: []] and [!]] are sets with a ].
        first = start + 1 + pattern.startswith("!", start + 1)
        end = pattern.find("]", first + 1) if closed else -1
        closed = end >= 0
        yield pattern[start + 1 : end] if closed else None
        start = pattern.find("[", end + 1 if closed else start + 1)


def _items(body: str) -> Iterator[tuple[str, str]]:
    """The first and the last character of each range of a set; a single character is a range of one."""
    at = 0
    while at < len(body):
        is_range = body[at + 1 : at + 2] == "-" and at + 2 < len(body)
        yield body[at], body[at + 2 if is_range else at]
        at += 3 if is_range else 1


def _set(body: str) -> str:
    negated = body.startswith("!")
    ranges = [(low, high) for low, high in _items(body[negated:]) if low <= high]
    if not ranges:
        return "." if negated else "(?!)"
    return f"[{'^' * negated}{''.join(f'{_code(low)}-{_code(high)}' for low, high in ranges)}]"


def _code(char: str) -> str:
    """A character as no regular expression can misread it."""
    return char if char.isalnum() and char.isascii() else f"\\U{ord(char):08x}"
