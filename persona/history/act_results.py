"""The results of small acts: fields named as the JSON keys of docs/commands.md, as in `results`."""

from __future__ import annotations

from dataclasses import field

from persona.frozen import dataclass
from persona.history.results import UNPRINTED


@dataclass(frozen=True)
class Edited:
    """An edit of `recipe.toml`: the vector, or the merge rules that were set."""

    set: str | dict[str, str | float]
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


@dataclass(frozen=True)
class Removed:
    """Names that were dropped, and the text files that went with them, put back or removed."""

    removed: tuple[str, ...]
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


@dataclass(frozen=True)
class Renamed:
    """A branch or a vector that has another name now."""

    from_: str
    to: str


class Deleted(dict[str, str]):
    """Branches or tags that were deleted, and the id that each named."""

    def to_json(self) -> dict[str, dict[str, str]]:
        """As printed with `--json`."""
        return {"deleted": dict(self)}


class Restored(tuple[str, ...]):
    """Text files that were put back."""

    notes: tuple[str, ...] = ()
    """Sentences for the user, on files that had a conflict."""

    def to_json(self) -> dict[str, list[str]]:
        """As printed with `--json`."""
        return {"files": list(self)}
