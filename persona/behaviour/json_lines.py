"""The text of a data file, and its JSON lines with the places where they stand.

A fault names file and line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from persona.errors import InvalidInput
from persona.frozen import dataclass


@dataclass(frozen=True)
class Line:
    """One JSON object of a file, and its place. `number` counts from 1."""

    file: str
    number: int
    value: dict[str, Any]

    @property
    def place(self) -> str:
        """FILE:LINE, as messages name it."""
        return f"{self.file}:{self.number}"

    def fail(self, problem: str) -> NoReturn:
        """Raises `InvalidInput` for this line."""
        raise InvalidInput(f"{self.place}: {problem}")

    def text(self, key: str, default: str | None = None) -> str:
        """A field of text that says something."""
        value = self.value.get(key, default)
        if not isinstance(value, str) or not value.strip():
            self.fail(f"{key} must be text that is not empty")
        return value


def text_of(file: str, data: bytes) -> str:
    """The text of a file, without a byte order mark. Raises `InvalidInput` if it is not UTF-8."""
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise InvalidInput(f"{file}:{number}: this is not UTF-8 text") from None


def lines_of(file: str, data: bytes) -> Iterator[Line]:
    """The objects of a file in order; empty lines are left out. Raises `InvalidInput` for anything else."""
    for number, line in enumerate(text_of(file, data).split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{file}:{number}: this is not JSON: {error}") from None
        if re.search(r"\\u[dD][89a-fA-F]", line):
            try:
                json.dumps(value, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                raise InvalidInput(f"{file}:{number}: half of a surrogate pair is no text") from None
        if not isinstance(value, dict):
            raise InvalidInput(f"{file}:{number}: a line must be a JSON object, not {line.strip():.40}")
        yield Line(file, number, value)
