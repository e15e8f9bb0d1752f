"""The decoded objects of one repository, and where HEAD stands. Every module of this folder works on them.

Invariant: each value that is handed out was verified by its id when it was read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple, TypeVar

from persona.errors import (
    Blank,
    Call,
    IntegrityError,
    InvalidInput,
    NotFound,
    PersonaError,
    Refused,
    UnknownName,
    UsageError,
    quoted,
    worded,
)
from persona.history import identity
from persona.history.config import Config
from persona.history.recipes import text as recipe_text
from persona.history.recipes.text import MIN_PREFIX, RECIPE_FILE
from persona.history.results import Head
from persona.objects.base import Base
from persona.objects.commit import Commit, Person, Signer, Tag
from persona.objects.ids import abbreviate, is_id
from persona.objects.recipe import Recipe
from persona.objects.tree import Tree
from persona.objects.vector import Vector
from persona.store.refs import BASES, HEADS, NoteList, Reason
from persona.store.store import Store

Value = TypeVar("Value")
Options = TypeVar("Options", bound=Mapping[str, Any])
MAX_TAGS: Final = 64
"""Tags of tags that are followed."""


class _ReadText(NamedTuple):
    """A recipe text, its recipe, and the ids that its names of bases and starts of ids meant."""

    data: bytes
    recipe: Recipe
    names: dict[str, str]
    starts: dict[str, str]


class Warnings:
    """Takes notes, and gives each as a warning of Python, at the line that called the library."""

    def append(self, note: str, /) -> None:
        """Gives a note as a warning."""
        import sys
        import warnings

        frame, level = sys._getframe().f_back, 2
        while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "persona":
            frame, level = frame.f_back, level + 1
        hint = getattr(note, "hint", None)
        warnings.warn(note if hint is None else f"{note}\nhint: {worded(hint)}", stacklevel=level)


@dataclass
class History:
    """The objects, refs and work tree of one repository."""

    _store: Store | None
    config: Config
    notes: NoteList = field(default_factory=Warnings)
    """Takes the sentences for the user of calls whose result has no notes."""
    author_signer: Signer = None
    """The author of commits."""
    committer_signer: Signer = None
    """The committer, who also moves refs."""
    open_options: Mapping[str, Any] = field(default_factory=dict)
    """Options for every call that does not give them: threads, device, memory, progress."""
    _objects: dict[str, Base | Vector | Recipe | Tree] = field(default_factory=dict)
    _last: _ReadText | None = None
    _lock: Lock = field(default_factory=Lock)
    """Held while `_objects` changes: threads read one repository."""

    @property
    def store(self) -> Store:
        """The store. `UsageError` once the repository is closed."""
        if self._store is None:
            raise UsageError("this repository is closed; open it again with persona.open")
        return self._store

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._store is None

    def require_open(self) -> None:
        """Raises `UsageError` once the repository is closed."""
        _ = self.store

    def close(self) -> None:
        """Closes the files of the store. Any later use of this history raises `UsageError`."""
        store, self._store = self._store, None
        self._objects.clear()
        if store is not None:
            store.objects.close()

    @property
    def root(self) -> Path:
        """The work tree."""
        return self.store.worktree

    # -- what holds for every call

    def in_force(self, kind: type[Options], given: Options) -> Options:
        """Every option of a declaration, with the value that applies.

        It is the given one, else that of `open`, else the setting's, else the default.
        """
        from persona.history.options import complete

        return complete(kind, given, self.open_options, self.config.read)

    def author(self, given: Signer = None) -> Person:
        """The author of a commit, checked: the given one, else `open`'s, else the config's user, now."""
        return self._person(given if given is not None else self.author_signer)

    def committer(self) -> Person:
        """The committer of a change made now, checked: that of `open`, else the config's user."""
        return self._person(self.committer_signer)

    def _person(self, signer: Signer) -> Person:
        return identity.person(self.config, signer() if callable(signer) else signer)

    def memory(self) -> int | None:
        """Bytes that decoded chunks may take together: `open`'s value, else the setting's."""
        from persona.history.options import MemoryOptions

        return self.in_force(MemoryOptions, MemoryOptions())["memory"]

    def threads(self) -> int | None:
        """Threads of a call that does not name them: `open`'s value, else the setting's.

        None if neither says anything, or if the settings cannot be read.
        """
        from persona.history.options import WorkOptions

        try:
            return self.in_force(WorkOptions, WorkOptions())["threads"]
        except InvalidInput:
            return None

    # -- objects

    def commit(self, id: str) -> Commit:
        """A commit."""
        return Commit.decode(self.store.objects.get(id, "commit"))

    def tree(self, id: str) -> Tree:
        """A tree."""
        return self._remembered(id, lambda: Tree.decode(self.store.objects.get(id, "tree")), Tree)

    def recipe(self, id: str) -> Recipe:
        """A recipe."""
        return self._remembered(id, lambda: Recipe.decode(self.store.objects.get(id, "recipe")), Recipe)

    def base(self, id: str) -> Base:
        """The manifest of a base."""
        return self._remembered(id, lambda: Base.decode(self.store.objects.get(id, "base")), Base)

    def vector(self, id: str) -> Vector:
        """The manifest of a vector."""
        return self._remembered(id, lambda: Vector.decode(self.store.objects.get(id, "vector")), Vector)

    def blob(self, id: str) -> bytes:
        """The bytes of a small file."""
        return self.store.objects.get(id, "blob")

    def tag(self, id: str) -> Tag:
        """An annotated tag."""
        return Tag.decode(self.store.objects.get(id, "tag"))

    def peeled(self, id: str) -> tuple[str, str | None]:
        """The object that an id names after all tags, and its kind.

        The kind is None if nothing of that id is stored, "tag" if too many tags name one another.
        """
        for _ in range(MAX_TAGS):
            kind = self.store.objects.kind_of(id)
            if kind != "tag":
                return id, kind
            id = self.tag(id).object
        return id, "tag"

    def tree_of(self, commit: str) -> Tree:
        """The tree of a commit."""
        return self._remembered(commit, lambda: self.tree(self.commit(commit).tree), Tree)

    def recipe_of(self, commit: str) -> Recipe:
        """The recipe of a commit."""
        return self.recipe(self.tree_of(commit).recipe)

    def files_of(self, commit: str) -> dict[str, str]:
        """Every tracked file of a commit: path → blob id, the base's own files included."""
        tree = self.tree_of(commit)
        return self.files_of_tree(tree)

    def files_of_tree(self, tree: Tree) -> dict[str, str]:
        """Every tracked file of a tree: path → blob id, the base's own files included."""
        files: dict[str, str | None] = {**self.base(self.recipe(tree.recipe).base).files, **tree.files}
        return {path: blob for path, blob in files.items() if blob is not None}

    def _remembered(self, id: str, read: Callable[[], Value], kind: type[Value]) -> Value:
        found = self._objects.get(id)
        if isinstance(found, kind):
            return found
        value = read()
        with self._lock:
            if len(self._objects) >= 64:
                del self._objects[next(iter(self._objects))]
            self._objects[id] = value  # type: ignore[assignment]
        return value

    # -- HEAD

    def head(self) -> Head:
        """The branch and commit of HEAD. Raises `IntegrityError` if HEAD leads nowhere."""
        (kind, value), id = self.store.refs.position()
        return Head(value.removeprefix(HEADS) if kind == "ref" else None, id)

    def head_or_name(self) -> Head:
        """Like `head`, but without an id if HEAD's branch is gone, and empty if HEAD is damaged."""
        try:
            return self.head()
        except IntegrityError:
            pass
        try:
            kind, value = self.store.refs.head()
        except IntegrityError:
            return Head(None, None)
        return Head(value.removeprefix(HEADS), None) if kind == "ref" else Head(None, value)

    def last_commit(self) -> str | None:
        """The commit at HEAD; if HEAD leads nowhere, the last one in its reflog, or None."""
        id = self.head_or_name().id
        if id is not None:
            return id
        moves = self.store.refs.log("HEAD")
        return next((move.new for move in moves if move.new is not None), None)

    def last_of_gone(self, branch: str) -> str | None:
        """The last commit of a deleted branch, from its reflog, or None."""
        try:
            if self.store.refs.read(HEADS + branch) is not None:
                return None
            return self.store.refs.last(HEADS + branch)
        except (InvalidInput, IntegrityError):
            return None

    def names(self, prefix: str, notes: NoteList | None = None) -> dict[str, str]:
        """The refs below a prefix and their ids. One that is damaged is left out, with a note in `notes`."""
        return self.store.refs.list(prefix, notes=[] if notes is None else notes)

    def ref_names(self, prefix: str, notes: NoteList) -> set[str]:
        """The names of the refs below a prefix, unread. If they cannot be listed, none, with a note."""
        try:
            return self.store.refs.names(prefix)
        except IntegrityError as error:
            notes.append(error.note)
            return set()

    def last_files(self) -> dict[str, str]:
        """Every tracked file of `last_commit`: path → blob id; empty if no commit is known."""
        id = self.last_commit()
        return self.files_of(id) if id is not None else {}

    def head_commit(self) -> str:
        """The commit at HEAD; raises `Refused` in a repository without a commit."""
        id = self.store.refs.head_id()
        if id is None:
            raise Refused(
                "this repository has no commit yet: its init was cut short",
                hint=("run the same ", Call("init", base=Blank("MODEL")), " again"),
            )
        return id

    # -- names in recipes

    def read_recipe(self, data: bytes, *, where: str | None = RECIPE_FILE) -> Recipe:
        """The recipe of a text: names and starts of ids resolved, each vector known to belong to the base.

        The text that was read last is not parsed again: its names are only looked up. Raises `InvalidInput`
        as `recipe_text.failure` words it.
        """
        if (known := self._known_text(data)) is not None:
            return known
        base_ids: list[str] = []
        names: dict[str, str] = {}
        starts: dict[str, str] = {}

        def base(text: str) -> str:
            base_ids.append(self.resolve_base(text))
            names[text] = base_ids[0]
            return base_ids[0]

        def vector(text: str) -> str:
            if is_id(text) and self._is_checked(base_ids[0], text):
                return text  # if it is missing, the store is damaged, and the text is right
            id = self.resolve_object(text, "vector")
            if not self._is_checked(base_ids[0], id):
                self.require_vector_of(base_ids[0], id)
            starts[text] = id
            return id

        recipe = recipe_text.parse(data, base=base, vector=vector, where=where)
        self._last = _ReadText(data, recipe, names, starts)
        return recipe

    def _known_text(self, data: bytes) -> Recipe | None:
        """The recipe of `data`, if it is the last text that was read and its names still mean the same."""
        last = self._last
        if last is None or last.data != data:
            return None
        try:
            same = all(self.resolve_base(text) == id for text, id in last.names.items())
            same = same and all(self.resolve_object(text, "vector") == id for text, id in last.starts.items())
        except PersonaError:
            return None
        return last.recipe if same else None

    def new_recipe(self, data: bytes, *, where: str | None = RECIPE_FILE) -> Recipe:
        """The recipe of a text that is imported or computed from.

        Like `read_recipe`. Its filters must match tensors (`filters`), and its vectors fit together.
        """
        recipe = self.read_recipe(data, where=where)
        if not all(self._is_checked(recipe.base, term.vector) for term in recipe.terms):
            self.base_of(recipe)
        self.check_filters(recipe, data, where=where)
        return recipe

    def base_of(self, recipe: Recipe) -> Base:
        """The base of a recipe as its vectors grow it (`persona.objects.growth`).

        Raises `InvalidInput` if the vectors cannot be in one recipe.
        """
        from persona.objects import growth

        return growth.extended(self.base(recipe.base), growth.vectors_of(recipe, self.vector))

    def check_filters(self, recipe: Recipe, data: bytes, *, where: str | None = RECIPE_FILE) -> None:
        """`InvalidInput` for a filter of a recipe, which `data` is the text of, that matches no tensor.

        Also for a list over layers if the base has no layers.
        """
        if any(term.only or term.except_ or term.in_layers for term in recipe.terms):
            from persona.history.recipes import filters

            head = self.store.refs.head_id()
            before = self.recipe_of(head) if head else None
            for term, key, problem in filters.problems(recipe, lambda: self.base_of(recipe), before):
                text = recipe_text.decode(data)
                raise recipe_text.failure(text, where, ("vectors", term.name, key), problem)

    def require_vector_of(self, base_id: str, id: str) -> None:
        """`InvalidInput` when a vector belongs to a base with other weights, both named."""
        vector, base = self.vector(id), self.base(base_id)
        if vector.base != base.digest:
            raise InvalidInput(
                f"vector {abbreviate(id)} belongs to {self.base_words(vector.base)}, not to this recipe's"
                f" base {self.base_words(base.digest)}; import its fine-tune against this base"
            )

    def base_words(self, digest: str) -> str:
        """A base for a sentence: its name if it has one, and the start of its weights digest."""
        for name, id in self.store.refs.list(BASES).items():
            if self.base(id).digest == digest:
                return f"{name.removeprefix(BASES)} ({digest[:15]}…)"
        return f"a base with weights {digest[:15]}…"

    def resolve_base(self, text: str) -> str:
        """The id of a base by its name or the start of its id. Raises `UnknownName`."""
        try:
            id = self.store.refs.read(BASES + text)
        except InvalidInput:
            id = None
        return id or self.resolve_object(text, "base")

    def base_name(self, id: str) -> str:
        """A base's name; the start of its id if no name holds it."""
        for name, held in self.store.refs.list(BASES).items():
            if held == id:
                return name.removeprefix(BASES)
        return abbreviate(id)

    def resolve_object(self, text: str, kind: str) -> str:
        """The id of an object of one kind by the start of its id.

        Raises `UnknownName`; if the start is ambiguous, it lists the ids.
        """
        found = self.objects_starting(text)
        ids = [id for id, found_kind in found if found_kind == kind]
        if len(ids) == 1:
            return ids[0]
        if len(ids) > 1:
            listed = ", ".join(id[: len(text) + 4] for id in ids[:8])
            raise UnknownName(f"{text} is the start of {len(ids)} {kind}s: {listed}; give more digits")
        other = f"; it is a {found[0][1]}" if found else ""
        hint = (Call("vectors.values"), " lists them") if kind == "vector" and not found else None
        raise UnknownName(
            f"no {kind} has the name {quoted(text)} or an id that begins with it{other}", hint=hint
        )

    def objects_starting(self, text: str) -> list[tuple[str, str]]:
        """(id, kind) of every object whose id begins with these hex digits (4 or more)."""
        text = text.strip().removesuffix("…").lower()
        if len(text) < MIN_PREFIX or not is_id(text.ljust(64, "0")):
            return []
        if len(text) == 64:
            kind = self.store.objects.kind_of(text)
            return [(text, kind)] if kind else []
        return self.store.objects.ids_with_prefix(text)

    def _is_checked(self, base: str, vector: str) -> bool:
        """Whether HEAD's recipe joins this base and this vector, so that they were checked then."""
        try:
            head = self.store.refs.head_id()
            recipe = self.recipe_of(head) if head else None
        except (NotFound, IntegrityError):
            return False
        return recipe is not None and recipe.base == base and any(t.vector == vector for t in recipe.terms)


def reason(person: Person, why: str) -> Reason:
    """The reason for a move of a ref: the person, the time, and a sentence with single spaces, as in git.

    The time is now, even if a commit was given another date.
    """
    return Reason(f"{person.name} <{person.email}>", identity.now(), " ".join(why.split()))
