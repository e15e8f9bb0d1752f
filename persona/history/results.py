"""What the commands answer with: frozen values whose fields are named as the JSON keys of docs/commands.md.

A trailing underscore (`from_`, `except_`) is dropped in JSON. A field marked `UNPRINTED` is for callers and
for the text of the command line, and no part of the JSON. `as_json` is the one conversion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from persona.errors import PersonaError
from persona.objects.commit import Person
from persona.progress import Progress as Progress

UNPRINTED: Final = {"json": False}
"""Metadata of a field that is no part of the JSON."""


def as_json(value: Any) -> Any:
    """A result as JSON values: dataclasses to dicts, tuples to lists, a trailing underscore dropped."""
    if hasattr(value, "to_json"):
        return as_json(value.to_json())
    if is_dataclass(value) and not isinstance(value, type):
        return {
            item.name.rstrip("_"): as_json(getattr(value, item.name))
            for item in fields(value)
            if item.metadata.get("json", True)
        }
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return value


def iso_date(person: Person) -> str:
    """ISO-8601 of a person's time, with its own offset from UTC."""
    zone = timezone(timedelta(minutes=person.offset))
    return (
        datetime(1970, 1, 1, tzinfo=zone) + timedelta(seconds=person.time, minutes=person.offset)
    ).isoformat()


@dataclass(frozen=True)
class Head:
    """Where HEAD stands: on a branch (`id` None while it has no commit), or detached (no `branch`)."""

    branch: str | None
    id: str | None

    @property
    def detached(self) -> bool:
        """Whether HEAD is at a commit and on no branch."""
        return self.branch is None and self.id is not None

    def to_json(self) -> dict[str, Any]:
        """As printed with `--json`."""
        return {"branch": self.branch, "id": self.id, "detached": self.detached}


@dataclass(frozen=True)
class VectorChange:
    """A vector that a commit adds, replaces or removes. Bytes; fractions of the base's float elements.

    `largest_rounding`: the largest change by rounding to the base's dtype, None where nothing was rounded.
    `kept_fraction`: the fraction that the density keeps, None where it is not known. `new_bytes`: by how much
    the store grew; 0 for a vector that was stored already.
    """

    name: str
    id: str
    change: str
    alpha: float | None
    stored_bytes: int | None
    raw_bytes: int | None
    changed_fraction: float | None
    kept_fraction: float | None
    largest_rounding: float | None
    new_bytes: int | None = None
    previous: str | None = field(default=None, metadata=UNPRINTED)
    """The id that the name had before, when `change` is "replaced"."""
    density: float | None = field(default=None, metadata=UNPRINTED)
    """The density in effect for the term."""


@dataclass(frozen=True)
class KeptFraction:
    """What a density keeps of a vector: a fraction of the base's float elements, ties at the cut-off
    included.
    """

    name: str
    density: float
    kept_fraction: float


@dataclass(frozen=True)
class CommitResult:
    """A commit that was made, or (`id` None: `add`, `revert --no-commit`) an edit not committed yet.

    `kept`: of the other vectors, those that are trimmed in another way than before, where it is known.
    """

    id: str | None
    branch: str | None
    parents: tuple[str, ...]
    vectors: tuple[VectorChange, ...]
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)
    """Sentences for the user: what was rounded, ignored, not imported, or is usually done next."""
    subject: str = field(default="", metadata=UNPRINTED)
    checkout: CheckoutResult | None = None
    """The weights computed at once, with `commit.checkout = true`."""
    failure: PersonaError | None = field(default=None, metadata=UNPRINTED)
    """Why they could not be computed, though the commit was made."""
    kept: tuple[KeptFraction, ...] = ()
    files: tuple[str, ...] = ()
    """Text files that are tracked from now on, because `add` or `commit` named them."""


@dataclass(frozen=True)
class WeightsState:
    """absent | clean | stale | uncommitted | edited | unknown, and the commit that the weights were computed
    for. `vector`: the name of the one that holds what was trained here in place; the weights are as trained.
    """

    state: str
    revision: str | None
    vector: str | None = None
    alone: bool = field(default=False, metadata=UNPRINTED)
    """Neither a commit nor the recipe holds that vector, so that only a forced checkout overwrites them."""


@dataclass(frozen=True)
class Carried:
    """An edit that came along to another commit: a file "changed", "added" or "removed" against it."""

    path: str
    change: str


@dataclass(frozen=True)
class CheckoutResult:
    """Weights that were materialised. `files`: the weights files written; `seconds`: of wall clock."""

    revision: str | None
    weights: str | None
    files: tuple[str, ...]
    tensors_computed: int
    tensors_reused: int
    bytes_written: int
    seconds: float
    device: str
    carried: tuple[Carried, ...] = ()
    """Edits that are not committed and came along."""
    head: Head | None = None
    """Where HEAD stands now."""
    before: Head | None = field(default=None, metadata=UNPRINTED)
    """Where HEAD was."""
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


@dataclass(frozen=True)
class SwitchResult:
    """Where HEAD went, and what the weights in the work tree are now."""

    branch: str | None
    id: str | None
    weights: WeightsState
    detached: bool = False
    before: Head | None = field(default=None, metadata=UNPRINTED)
    """Where HEAD was."""
    carried: tuple[Carried, ...] = ()
    """Edits that are not committed and came along."""
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


@dataclass(frozen=True)
class TermView:
    """A term as it is shown. `density` None: the recipe's."""

    id: str
    alpha: float
    density: float | None
    only: tuple[str, ...]
    except_: tuple[str, ...]
    join: str


@dataclass(frozen=True)
class TermChange:
    """A term that differs between two recipes: the keys that differ, before and after (all keys when added or
    removed).
    """

    name: str
    change: str
    from_: dict[str, Any]
    to: dict[str, Any]


@dataclass(frozen=True)
class FileChange:
    """A text file that differs: "added", "removed" or "changed"."""

    path: str
    change: str
    before: Callable[[], bytes | None] = field(repr=False, compare=False)
    after: Callable[[], bytes | None] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Diff:
    """What differs between two trees. `from_`/`to`: commit ids, None for the work tree (or for nothing at
    all).

    `rules`: axis → {"from", "to"} ("base" among them). `files`: paths, `recipe.toml` only when its text alone
    differs.
    """

    from_: str | None
    to: str | None
    rules: dict[str, dict[str, Any]]
    vectors: tuple[TermChange, ...]
    files: tuple[str, ...]
    file_changes: tuple[FileChange, ...] = field(default=(), metadata=UNPRINTED)

    @property
    def empty(self) -> bool:
        """Whether the two are the same."""
        return not (self.rules or self.vectors or self.files)
