"""The results of commands that only read, and of changes of a live model; see `results`.

They are a module of their own because a commit does not need them, and each of these classes takes part of a
millisecond to make.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from persona.frozen import dataclass
from persona.history.results import (
    UNPRINTED,
    Diff,
    Head,
    KeptFraction,
    Result,
    TermView,
    WeightsState,
    iso_date,
)
from persona.objects.commit import Commit, Person
from persona.objects.ids import abbreviate

if TYPE_CHECKING:
    from persona.history.score_results import Scores
    from persona.history.sequence_views import UnderWay


@dataclass(frozen=True, repr=False)
class Author(Result):
    """The author or the committer of a commit."""

    name: str
    email: str


@dataclass(frozen=True, repr=False)
class RecipeView(Result):
    """A recipe as it is shown: the base's id, every axis in use, the terms by name in canonical order."""

    base: str
    rules: dict[str, str | float]
    vectors: dict[str, TermView]


@dataclass(frozen=True, repr=False)
class CommitEntry(Result):
    """One commit as `log` and `show` give it. Its recipe and scores are read only when asked for."""

    id: str
    commit: Commit
    refs: tuple[str, ...] = field(compare=False)
    """Short names of refs that pointed at this commit: "HEAD -> main", "tag: v1", "warm"."""
    read_recipe: Callable[[], RecipeView] = field(repr=False, compare=False)
    read_scores: Callable[[], Scores | None] = field(repr=False, compare=False)
    read_note: Callable[[], str | None] = field(repr=False, compare=False)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {abbreviate(self.id)} {self.subject!r}>"

    @property
    def parents(self) -> tuple[str, ...]:
        """Ids of the parents, the first one first."""
        return self.commit.parents

    @property
    def author(self) -> Author:
        """The author."""
        return Author(self.commit.author.name, self.commit.author.email)

    @property
    def date(self) -> str:
        """When it was written, ISO-8601 with the author's offset."""
        return iso_date(self.commit.author)

    @property
    def committer(self) -> Author:
        """The person who recorded it."""
        return Author(self.commit.committer.name, self.commit.committer.email)

    @property
    def committer_date(self) -> str:
        """When it was recorded, ISO-8601 with the committer's offset."""
        return iso_date(self.commit.committer)

    @property
    def message(self) -> str:
        """The whole message."""
        return self.commit.message

    @property
    def subject(self) -> str:
        """The first line of the message."""
        return self.commit.subject

    @cached_property
    def recipe(self) -> RecipeView:
        """The recipe of this commit."""
        return self.read_recipe()

    @cached_property
    def scores(self) -> Scores | None:
        """What `verify` measured of this commit last; None if nothing."""
        return self.read_scores()

    @cached_property
    def note(self) -> str | None:
        """The text of the note on this commit; None if it has none."""
        return self.read_note()

    def to_json(self) -> dict[str, Any]:
        """The JSON of `log`: `scores` only if the commit was measured, `note` only if it has one."""
        found = {
            "id": self.id,
            "parents": self.parents,
            "author": self.author,
            "date": self.date,
            "committer": self.committer,
            "committer_date": self.committer_date,
            "message": self.message,
            "recipe": self.recipe,
        }
        more = {"scores": self.scores, "note": self.note}
        return found | {key: value for key, value in more.items() if value is not None}


@dataclass(frozen=True, repr=False)
class LeftOut(Result):
    """A file that no commit can hold, and why."""

    path: str
    why: str


@dataclass(frozen=True, repr=False)
class Status(Result):
    """The work tree against HEAD: branch, recipe, text files, weights.

    `kept`: the vectors of the recipe that are trimmed differently than in HEAD, if that is known.
    """

    branch: str | None
    head: str | None
    recipe_changed: bool
    files_changed: tuple[str, ...]
    weights: WeightsState
    kept: tuple[KeptFraction, ...] = ()
    untracked: tuple[str, ...] = ()
    """Files that no commit will hold. A directory with only untracked files is one entry, as `runs/`."""
    left_out: tuple[LeftOut, ...] = ()
    """Files that would be tracked but that no commit can hold."""
    in_the_way: tuple[str, ...] = ()
    """Weights that no index names: `checkout` refuses to write its own beside them."""
    diff: Diff | None = field(default=None, metadata=UNPRINTED)
    """HEAD against the work tree; None when `problem` stands."""
    problem: str | None = None
    """Why recipe.toml cannot be read, with its line."""
    bisect: Head | None = None
    """Where the bisect began that is under way; None if there is none."""
    sequence: UnderWay | None = None
    """The merge, cherry-pick, revert or rebase that has stopped; None if there is none."""


@dataclass(frozen=True, repr=False)
class LiveResult(Result):
    """The result of a change of a live model. `revision` is None for an edited recipe.

    `tensors_reused` kept their bytes; `bytes_written` went into the other tensors; `seconds` are wall-clock
    time.
    """

    revision: str | None
    tensors_computed: int
    tensors_reused: int
    bytes_written: int
    seconds: float
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


@dataclass(frozen=True, repr=False)
class DigestResult(Result):
    """A weights digest.

    `revision` is None for `recipe.toml` as it is; `device` is where terms were merged.
    """

    revision: str | None
    weights: str
    device: str = field(default="cpu", metadata=UNPRINTED)
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


@dataclass(frozen=True, repr=False)
class VectorInfo(Result):
    """A vector by name. `elements`: of the tensors that it changes; `l2`: the Euclidean norm of τ.

    `changed_fraction`: of the base's float elements. `raw_bytes`: of the base's float tensors.
    `stored_bytes`: of the vector's records in the store, manifest and table included (a chunk that two
    vectors share counts for both). `ranks`: of an adapter's factors, each once, ascending. Of an expression,
    `parts` are the vectors that it is made of, each with its "name", "id" and "coefficient", and `expression`
    is their sum as text. `verdict`: of `verify` on the vector alone, None if it was not measured.
    `grown`: the tensors that it grows, each with its origin (`persona.objects.growth`).
    """

    name: str
    id: str
    kind: str
    base: str
    tensors: int
    elements: int
    changed_fraction: float | None
    raw_bytes: int
    stored_bytes: int
    l2: float | None
    ranks: tuple[int, ...] = ()
    grown: dict[str, str | None] = field(default_factory=dict, metadata=UNPRINTED)
    verdict: str | None = field(default=None, metadata=UNPRINTED)
    expression: str | None = field(default=None, metadata=UNPRINTED)
    parts: tuple[dict[str, str], ...] = field(default=(), metadata=UNPRINTED)
    in_recipe: bool = field(default=True, metadata=UNPRINTED)
    commit: str | None = field(default=None, metadata=UNPRINTED)
    """In `all`: the newest commit of all branches and tags that holds it; None if none does."""

    def to_json(self) -> dict[str, Any]:
        """The keys of `vector ls`: `expression` and `parts` only of an expression, `verdict` if known.

        `grown` and `commit` only if there is any.
        """
        more = [key for key in ("grown", "verdict", "expression", "parts", "commit") if getattr(self, key)]
        printed = [item.name for item in fields(self) if item.metadata.get("json", True)]
        return {name: getattr(self, name) for name in (*printed, *more)}


@dataclass(frozen=True, repr=False)
class RefInfo(Result):
    """A branch or tag. `id` is the commit; `message` a tag's own, else the commit's subject."""

    name: str
    id: str
    current: bool
    annotated: bool
    message: str


@dataclass(frozen=True, repr=False)
class Annotation(Result):
    """An annotated tag: its name, the id of the tag itself, its tagger, date and message."""

    name: str
    id: str
    person: Person = field(metadata=UNPRINTED)
    """The tagger with the time."""
    message: str

    def to_json(self) -> dict[str, Any]:
        """As `show` prints it."""
        tagger = Author(self.person.name, self.person.email)
        return {
            "name": self.name,
            "id": self.id,
            "tagger": tagger,
            "date": iso_date(self.person),
            "message": self.message,
        }


@dataclass(frozen=True, repr=False)
class ReflogEntry(Result):
    """One move of a ref. `selector` is "HEAD@{0}", say; `previous` is None for the first move."""

    selector: str
    id: str
    previous: str | None
    name: str
    email: str
    date: str
    message: str
