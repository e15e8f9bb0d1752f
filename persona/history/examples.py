"""**example** — a graph of patterns with its data, in this package, to begin a repository with."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from persona.errors import InvalidInput, listed

EXAMPLES: Final = Path(__file__).parents[1] / "examples"


def names() -> tuple[str, ...]:
    """The examples of this package."""
    return tuple(sorted(place.name for place in EXAMPLES.iterdir() if (place / "graph").is_dir()))


def example_files(name: str) -> dict[str, bytes]:
    """The files of an example below `graph/`, by their path in the work tree.

    Raises `InvalidInput` for a name that is none of `names()`.
    """
    if name not in names():
        found = f"the examples are {listed(names())}" if len(names()) > 1 else f"there is only {names()[0]}"
        raise InvalidInput(f"no example is named {name!r:.60}; {found}", parameter="example")
    root = EXAMPLES / name
    places = sorted(place for place in (root / "graph").rglob("*") if place.is_file())
    return {place.relative_to(root).as_posix(): place.read_bytes() for place in places}
