"""The results of commands: frozen values whose fields have the names of the JSON keys of docs/commands.md.

`as_json` is the one conversion. It drops a trailing underscore (`from_`, `except_`). It leaves out a field
marked `UNPRINTED`, which is for callers and for the text of the command line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, fields, is_dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from persona.errors import PersonaError
from persona.frozen import dataclass
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


class Result:
    """The answer of a call."""

    def __repr__(self) -> str:
        from persona.history.brief import brief

        return brief(self)


@dataclass(frozen=True, repr=False)
class Head(Result):
    """The state of HEAD: on a branch (`id` None if it has no commit), or detached (no `branch`)."""

    branch: str | None
    id: str | None

    @property
    def detached(self) -> bool:
        """Whether HEAD is at a commit and on no branch."""
        return self.branch is None and self.id is not None

    def to_json(self) -> dict[str, Any]:
        """As printed with `--json`."""
        return {"branch": self.branch, "id": self.id, "detached": self.detached}


@dataclass(frozen=True, repr=False)
class VectorChange(Result):
    """A vector that a commit adds, replaces or removes.

    Sizes in bytes; fractions of the base's float elements. `largest_rounding`: the largest change by rounding
    to the base's dtype, None if nothing was rounded. `kept_fraction`: the fraction that the density keeps,
    None if it is not known. `new_bytes`: the growth of the store, 0 for a vector that was stored before.
    `ranks`: the ranks of an adapter's factors, each once, ascending; `tensors`: how many it changes. Both are
    known of adapters only.
    """

    name: str
    id: str
    change: str
    alpha: float | tuple[float, ...] | None
    stored_bytes: int | None
    raw_bytes: int | None
    changed_fraction: float | None
    kept_fraction: float | None
    largest_rounding: float | None
    new_bytes: int | None = None
    ranks: tuple[int, ...] = ()
    tensors: int | None = None
    unchanged: tuple[str, ...] = ()
    """The kinds of modules that the vector does not change at all, as `norms` or `self_attn.k_proj`."""
    left: tuple[str, ...] = ()
    """The tensors of the base that the fine-tune lacks, or that were left out on request."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Names in the fine-tune → the base's, with `*` for numbers, if `rename` was needed."""
    grown: dict[str, str | None] = field(default_factory=dict)
    """The tensors that the vector grows, each with its origin (`persona.objects.growth`)."""
    previous: str | None = field(default=None, metadata=UNPRINTED)
    """The id that the name had before, when `change` is "replaced"."""
    density: float | tuple[float, ...] | None = field(default=None, metadata=UNPRINTED)
    """The density in effect for the term."""
    expression: str | None = field(default=None, metadata=UNPRINTED)
    """The sum of vectors that it is, if it is an expression."""
    only: tuple[str, ...] = field(default=(), metadata=UNPRINTED)
    """Globs of the tensors that the term may change; empty means all."""
    except_: tuple[str, ...] = field(default=(), metadata=UNPRINTED)
    """Globs of the tensors that the term does not change."""


@dataclass(frozen=True, repr=False)
class KeptFraction(Result):
    """The part of a vector that a density keeps.

    It is a fraction of the base's float elements, ties at the cut-off included.
    """

    name: str
    density: float | tuple[float, ...]
    kept_fraction: float


@dataclass(frozen=True, repr=False)
class CommitResult(Result):
    """A new commit; or an edit that is not committed yet (`add`, `revert --no-commit`), with `id` None.

    `kept`: the other vectors that are trimmed differently than before, if that is known.
    """

    id: str | None
    branch: str | None
    parents: tuple[str, ...]
    vectors: tuple[VectorChange, ...]
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)
    """Sentences for the user: rounding, ignored tensors, files that were not imported, next steps."""
    subject: str = field(default="", metadata=UNPRINTED)
    checkout: CheckoutResult | None = None
    """The weights computed at once, with `commit.checkout = true`."""
    failure: PersonaError | None = field(default=None, metadata=UNPRINTED)
    """Why they could not be computed, though the commit was made."""
    kept: tuple[KeptFraction, ...] = ()
    files: tuple[str, ...] = ()
    """Text files that are tracked from now on, because `add` or `commit` named them."""


@dataclass(frozen=True, repr=False)
class WeightsState(Result):
    """The state of the weights, and the commit that they were computed for.

    The state is absent, clean, stale, uncommitted, edited or unknown. `vector`: the name of the vector that
    holds weights trained here in place, if the weights are as trained.
    """

    state: str
    revision: str | None
    vector: str | None = None
    alone: bool = field(default=False, metadata=UNPRINTED)
    """Neither a commit nor the recipe holds that vector, so that only a forced checkout overwrites them."""


@dataclass(frozen=True, repr=False)
class Carried(Result):
    """An edit that came along to another commit: a file "changed", "added" or "removed" against it."""

    path: str
    change: str


@dataclass(frozen=True, repr=False)
class CheckoutResult(Result):
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
    """HEAD now."""
    before: Head | None = field(default=None, metadata=UNPRINTED)
    """HEAD before."""
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


@dataclass(frozen=True, repr=False)
class SwitchResult(Result):
    """HEAD after a switch, and the state of the weights in the work tree."""

    branch: str | None
    id: str | None
    weights: WeightsState
    detached: bool = False
    before: Head | None = field(default=None, metadata=UNPRINTED)
    """HEAD before."""
    carried: tuple[Carried, ...] = ()
    """Edits that are not committed and came along."""
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


@dataclass(frozen=True, repr=False)
class TermView(Result):
    """A term as it is shown. `density` None: the recipe's. A tuple is a list over layers."""

    id: str
    alpha: float | tuple[float, ...]
    density: float | tuple[float, ...] | None
    only: tuple[str, ...]
    except_: tuple[str, ...]
    join: str


@dataclass(frozen=True, repr=False)
class TermChange(Result):
    """A term that differs between two recipes.

    `change`: "added", "removed", "changed", or "renamed", which has the key "name" too. It has the keys that
    differ, before and after; all keys if the term was added or removed.
    """

    name: str
    change: str
    from_: dict[str, Any]
    to: dict[str, Any]


@dataclass(frozen=True, repr=False)
class FileChange(Result):
    """A text file that differs: "added", "removed" or "changed"."""

    path: str
    change: str
    before: Callable[[], bytes | None] = field(repr=False, compare=False)
    after: Callable[[], bytes | None] = field(repr=False, compare=False)


@dataclass(frozen=True, repr=False)
class Diff(Result):
    """The difference between two trees.

    `from_` and `to` are commit ids, None for the work tree (or for nothing). `rules`: axis → {"from", "to"}
    ("base" among them). `files` are paths; `recipe.toml` is among them only if nothing but its text differs.
    """

    from_: str | None
    to: str | None
    rules: dict[str, dict[str, Any]]
    vectors: tuple[TermChange, ...]
    files: tuple[str, ...]
    file_changes: tuple[FileChange, ...] = field(default=(), repr=False, metadata=UNPRINTED)

    @property
    def empty(self) -> bool:
        """Whether the two are the same."""
        return not (self.rules or self.vectors or self.files)
