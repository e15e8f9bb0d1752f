"""Strict JSON of known form, read token by token.

A general JSON parser builds everything that a file asks for before anyone looks at it: 100 MB of `[[],[],…]`
become 2 GB of lists. This reader says what must come next. So the first token out of place ends the reading,
and nothing is built that was not asked for. Duplicate keys, which general parsers drop, are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from persona.errors import InvalidInput

_SPACE = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"((?:[^"\\\x00-\x1f]++|\\["\\/bfnrtu])*+)"')
_INTEGER = re.compile(r"(0|[1-9][0-9]{0,18})(?![0-9.eE])")
_VALUE_CHARS = 1 << 22


class Scan:
    """A position in a JSON text; `where` names the text in errors."""

    __slots__ = ("position", "text", "where")

    def __init__(self, data: bytes, where: str) -> None:
        try:
            self.text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"{where} is not UTF-8 at byte {error.start}; the file is damaged or of another kind"
            ) from None
        self.where = where
        self.position = 0

    def fail(self, problem: str) -> NoReturn:
        """Raises InvalidInput with the position."""
        raise InvalidInput(
            f"{self.where} is malformed at character {self.position}: {problem}; save or download the "
            "file again"
        )

    def take(self, char: str) -> bool:
        """Skip white space, then `char` if it comes next."""
        text = self.text
        position = self.position
        if text[position : position + 1] in " \t\n\r":
            position = _SPACE.match(text, position).end()  # type: ignore[union-attr]
        found = text[position : position + 1] == char
        self.position = position + 1 if found else position
        return found

    def expect(self, char: str) -> None:
        """Skip white space and `char`, which must come next."""
        if not self.take(char):
            self.fail(f"{char!r} expected")

    def string(self) -> str:
        """The string that comes next; it can be written as UTF-8 again."""
        self.position = _SPACE.match(self.text, self.position).end()  # type: ignore[union-attr]
        found = _STRING.match(self.text, self.position)
        if found is None:
            self.fail("a string expected")
        value: str = found[1]
        if "\\" in value:
            try:
                value = json.loads(found[0])
                value.encode("utf-8")
            except ValueError:
                self.fail("a string with a broken escape")
        self.position = found.end()
        return value

    def integer(self) -> int:
        """The non-negative integer that comes next."""
        self.position = _SPACE.match(self.text, self.position).end()  # type: ignore[union-attr]
        found = _INTEGER.match(self.text, self.position)
        if found is None:
            self.fail("an integer from 0 to 10^19 expected")
        self.position = found.end()
        return int(found[1])

    def integers(self, most: int) -> tuple[int, ...]:
        """The array of at most `most` non-negative integers that comes next."""
        self.expect("[")
        if self.take("]"):
            return ()
        values = [self.integer()]
        while self.take(","):
            if len(values) >= most:
                self.fail(f"more than {most} integers in one array")
            values.append(self.integer())
        self.expect("]")
        return tuple(values)

    def members(self) -> Iterator[str]:
        """The keys of the next object; the caller reads each key's value before it asks for the next one."""
        self.expect("{")
        if self.take("}"):
            return
        seen: set[str] = set()
        while True:
            key = self.string()
            if key in seen:
                self.fail(f"the key {shorten(key)} occurs twice")
            seen.add(key)
            self.expect(":")
            yield key
            if self.take("}"):
                return
            self.expect(",")

    def strings(self, most: int | None = None) -> dict[str, str]:
        """The object of strings that comes next, of at most `most` characters."""
        start = self.position
        found: dict[str, str] = {}
        for key in self.members():
            found[key] = self.string()
            if most is not None and self.position - start > most:
                self.fail(f"an object of more than {most} characters")
        return found

    def value(self) -> Any:
        """Any value of at most 4 Mi characters."""
        self.position = _SPACE.match(self.text, self.position).end()  # type: ignore[union-attr]
        window = self.text[self.position : self.position + _VALUE_CHARS]
        try:
            value, used = json.JSONDecoder(object_pairs_hook=self._object).raw_decode(window)
        except (ValueError, RecursionError):
            self.fail("a value expected, of at most 4 Mi characters and not nested deeply")
        self.position += used
        return value

    def end(self) -> None:
        """Nothing but white space may be left."""
        self.position = _SPACE.match(self.text, self.position).end()  # type: ignore[union-attr]
        if self.position != len(self.text):
            self.fail("text after the end of the object")

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            self.fail("a key occurs twice in one object")
        return members


def shorten(name: str) -> str:
    """`name` in quotes for a sentence; a long name loses its middle."""
    return repr(name if len(name) <= 120 else f"{name[:80]}…{name[-30:]}")
