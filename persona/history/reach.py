"""Everything that roots lead to, and whether the objects found there agree with each other.

It compares a tree's recipe with its text, a vector with its base, and a delta with its base's chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from persona.errors import IntegrityError, PersonaError, UnknownName
from persona.history.history import History
from persona.history.planning import part_of
from persona.history.recipes import text as recipe_text
from persona.history.recipes.text import RECIPE_FILE
from persona.history.store_results import Problem
from persona.objects import growth
from persona.objects.base import Base
from persona.objects.ids import NULL_ID, abbreviate
from persona.objects.names import path_clash
from persona.objects.recipe import Recipe
from persona.objects.table import Table, decode_grown_table, decode_table, decode_vector_table, factor_chunks
from persona.objects.tensors import TensorSpec, chunk_span
from persona.objects.tree import Tree
from persona.objects.vector import Vector
from persona.store.refs import BASES
from persona.weights.foreign import is_weight_name

_LEAVES: Final = ("chunk", "delta", "blob", "table", "note")


@dataclass
class Reach:
    """Everything that the roots lead to.

    A missing object, one of another kind, or one that contradicts itself becomes a problem. `present`: id →
    kind of all stored objects. `damaged`: ids that are a problem already.
    """

    history: History
    present: dict[str, str]
    damaged: set[str]
    full: bool = False
    seen: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    _queue: list[tuple[str, str]] = field(default_factory=list)
    _joined: set[tuple[str, str]] = field(default_factory=set)
    _nameless: set[str] = field(default_factory=set)

    def need(self, id: str, kind: str | None, what: str) -> None:
        """Records that `what` names an object."""
        held = self.present.get(id)
        if held is None:
            if id not in self.seen:
                shown = f"{kind or 'object'} {abbreviate(id)}"
                self.problems.append(Problem(kind, id, f"{shown} is missing, and {what} refers to it"))
        elif kind is not None and held != kind and held != "unknown":
            self.problems.append(
                Problem(
                    kind,
                    id,
                    f"{what} refers to {abbreviate(id)} as a {kind}, but {abbreviate(id)} is a {held}",
                )
            )
        elif id not in self.seen and held not in _LEAVES:
            self._queue.append((id, held))
        self.seen.add(id)

    def follow(self) -> None:
        """Reads every recorded object and records the objects that it names, until there are no more."""
        while self._queue:
            id, kind = self._queue.pop()
            if id in self.damaged:
                continue
            try:
                self._follow_one(id, kind)
            except PersonaError as error:
                self.problems.append(Problem(kind, id, error.message))

    def dangling(self) -> list[tuple[str, str]]:
        """(id, kind) of unreachable commits, tags and vectors that no other unreachable object names."""
        lost = {id: kind for id, kind in self.present.items() if id not in self.seen}
        below = Reach(self.history, lost, self.damaged)
        for id, kind in lost.items():
            if kind in ("commit", "tag", "tree", "recipe", "vector"):
                below._queue.append((id, kind))
        below.follow()
        return sorted(
            (id, kind)
            for id, kind in lost.items()
            if kind in ("commit", "tag", "vector") and id not in below.seen
        )

    def _problem(self, kind: str, id: str, text: str) -> None:
        self.problems.append(Problem(kind, id, f"{kind} {abbreviate(id)}: {text}"))

    def _follow_one(self, id: str, kind: str) -> None:
        history, what = self.history, f"{kind} {abbreviate(id)}"
        if kind == "commit":
            commit = history.commit(id)
            self.need(commit.tree, "tree", what)
            for parent in commit.parents:
                self.need(parent, "commit", what)
        elif kind == "tree":
            tree = history.tree(id)
            self.need(tree.recipe, "recipe", what)
            for blob in tree.files.values():
                if blob is not None:
                    self.need(blob, "blob", what)
            self._check_tree(id, tree)
        elif kind == "recipe":
            recipe = history.recipe(id)
            self.need(recipe.base, "base", what)
            for term in recipe.terms:
                self.need(term.vector, "vector", what)
                self._check_join(recipe.base, term.vector)
        elif kind == "base":
            base = history.base(id)
            for blob in base.files.values():
                self.need(blob, "blob", what)
            self._table(base, base.table, what)
        elif kind == "vector":
            vector = history.vector(id)
            for part, _ in vector.expression:
                self.need(part, "vector", what)
            for part, _ in vector.expression:
                if self._holds(part, "vector"):
                    part_of(history, id, vector, part)
            if vector.table is not None:
                self._table(vector, vector.table, what)
            if vector.grown_table is not None:
                self._grown_table(vector, vector.grown_table, what)
        elif kind == "tag":
            tag = history.tag(id)
            self.need(tag.object, tag.kind, what)

    def _holds(self, id: str, kind: str) -> bool:
        """Whether an object is there and nothing is known against it."""
        return self.present.get(id) == kind and id not in self.damaged

    # -- chunks

    def _table(self, owner: Base | Vector, id: str, what: str) -> None:
        self.need(id, "table", what)
        if not self._holds(id, "table"):
            return
        table = self._decoded(owner, id, what)
        for spec in owner.tensors:
            is_delta = isinstance(owner, Vector) and spec.name not in owner.factor
            for chunk in table.chunks(spec.name):
                if chunk == NULL_ID and is_delta:
                    continue
                if chunk not in self.seen:
                    self.need(chunk, "delta" if is_delta else "chunk", f"tensor {spec.name} of {what}")

    def _grown_table(self, vector: Vector, id: str, what: str) -> None:
        """The chunks that the deltas of grown tensors are relative to."""
        self.need(id, "table", what)
        if self._holds(id, "table"):
            table = decode_grown_table(self.history.store.objects.get(id, "table"), vector)
            for name, _ in vector.grown:
                for chunk in table.chunks(name):
                    if chunk not in self.seen:
                        self.need(chunk, "chunk", f"tensor {name} of {what}")

    def _decoded(self, owner: Base | Vector, id: str, what: str) -> Table:
        data, where = self.history.store.objects.get(id, "table"), f"the table of {what}"
        if isinstance(owner, Vector):
            return decode_vector_table(data, owner, where)
        return decode_table(data, owner.tensors, owner.chunk, where)

    def _check_join(self, base_id: str, id: str) -> None:
        """A vector's tensors and chunks agree with its base's; with `full`, their records do as well."""
        if (base_id, id) in self._joined or not (self._holds(base_id, "base") and self._holds(id, "vector")):
            return
        self._joined.add((base_id, id))
        self.history.require_vector_of(base_id, id)
        base, vector = self.history.base(base_id), self.history.vector(id)
        if vector.kind == "expression":
            for part, _ in vector.expression:
                self._check_join(base_id, part)
            return
        if vector.chunk != base.chunk:
            self._problem(
                "vector",
                id,
                f"its chunks have {vector.chunk} elements, but the chunks of its base have {base.chunk}",
            )
            return
        try:
            specs = growth.extended(base, [(abbreviate(id), vector)]).spec
        except IntegrityError as error:
            self._problem("vector", id, error.message)
            return
        for spec in vector.tensors:
            if specs.get(spec.name) != spec:
                self._problem(
                    "vector", id, f"tensor {spec.name} differs from the tensor of its base in dtype or shape"
                )
                return
        if self.full and vector.table is not None:
            self._check_records(base, vector, vector.table, id)

    def _check_records(self, base: Base, vector: Vector, table: str, id: str) -> None:
        """A delta belongs to its base's chunk; a chunk of a factor has the factor's length."""
        if not (self._holds(table, "table") and self._holds(base.table, "table")):
            return
        ours = self._decoded(vector, table, f"vector {abbreviate(id)}")
        theirs = self._decoded(base, base.table, "its base")
        grown = theirs
        if vector.grown_table is not None:
            if not self._holds(vector.grown_table, "table"):
                return
            grown = decode_grown_table(self.history.store.objects.get(vector.grown_table, "table"), vector)
        for spec in vector.tensors:
            factor = vector.factor.get(spec.name)
            if factor is None:
                chunks = grown.chunks(spec.name) or theirs.chunks(spec.name)
                problem = self._other_base(spec, ours.chunks(spec.name), chunks)
                problem = problem or self._other_start(base, vector, spec, chunks, theirs)
            else:
                a, b = factor_chunks(ours, vector, spec)
                problem = self._other_length("A", factor.a(spec), a, vector.chunk)
                problem = problem or self._other_length("B", factor.b(spec), b, vector.chunk)
            if problem:
                self._problem("vector", id, problem)
                return

    def _other_base(self, spec: TensorSpec, deltas: list[str], chunks: list[str]) -> str | None:
        for place, (delta, chunk) in enumerate(zip(deltas, chunks, strict=True)):
            if delta == NULL_ID or not self._holds(delta, "delta"):
                continue
            if self.history.store.objects.header(delta).relative != chunk:
                return f"chunk {place} of tensor {spec.name} belongs to another base chunk"
        return None

    def _other_start(
        self, base: Base, vector: Vector, spec: TensorSpec, chunks: list[str], theirs: Table
    ) -> str | None:
        """A grown tensor begins with the chunks of its base, and each chunk has its length."""
        origins = dict(vector.grown)
        if spec.name not in origins:
            return None
        name = origins[spec.name] or spec.name
        shared = base.spec[name].units // base.chunk
        if chunks[:shared] != theirs.chunks(name)[:shared]:
            return f"the chunks of tensor {spec.name} do not begin with those of {name} of its base"
        return self._other_length("the base", spec, chunks, base.chunk)

    def _other_length(self, letter: str, part: TensorSpec, chunks: list[str], length: int) -> str | None:
        for place, chunk in enumerate(chunks):
            start, stop = chunk_span(part, place, length)
            if not self._holds(chunk, "chunk"):
                continue
            if self.history.store.objects.header(chunk).raw_bytes != (stop - start) * part.unit:
                return f"chunk {place} of {letter} of tensor {part.name} has another length than its shape"
        return None

    # -- text files

    def _check_tree(self, id: str, tree: Tree) -> None:
        if not self._holds(tree.recipe, "recipe"):
            return
        recipe = self.history.recipe(tree.recipe)
        if not self._holds(recipe.base, "base"):
            return
        paths = set(self.history.files_of_tree(tree))
        if clash := path_clash(paths):
            self._problem("tree", id, f"its files clash: {clash}")
        for path in sorted(paths):
            if "/" not in path and is_weight_name(path):
                self._problem("tree", id, f"it holds {path} as a text file, but that name is for weights")
        blob = tree.files.get(RECIPE_FILE)
        if blob is None:
            self._problem("tree", id, f"it holds no {RECIPE_FILE}")
        elif self._holds(blob, "blob"):
            self._check_text(id, recipe, self.history.blob(blob))

    def _check_text(self, id: str, recipe: Recipe, text: bytes) -> None:
        """Checks that the text of a recipe means the recipe, with any names of bases and starts of ids."""
        ids = {term.vector for term in recipe.terms}

        def base(given: str) -> str:
            if not recipe.base.startswith(given):
                self._base_name(given, recipe.base)
            return recipe.base

        def vector(given: str) -> str:
            found = [known for known in ids if known.startswith(given)]
            if len(found) != 1:
                raise UnknownName(f"{given!r:.80} is not a vector of the recipe")
            return found[0]

        try:
            said = recipe_text.parse(text, base=base, vector=vector)
        except PersonaError as error:
            self._problem("tree", id, f"its {RECIPE_FILE} is not that of its recipe: {error.message}")
            return
        if said != recipe:
            self._problem("tree", id, f"its {RECIPE_FILE} does not mean its recipe")

    def _base_name(self, name: str, id: str) -> None:
        """A base's name in a text needs a ref, without which no command reads that text."""
        if name in self._nameless:
            return
        try:
            held: Any = self.history.store.refs.read(BASES + name)
        except PersonaError:
            return  # another problem names it
        if held is None:
            self._nameless.add(name)
            text = f"{BASES}{name} is gone, but a {RECIPE_FILE} uses this name for the base {abbreviate(id)};"
            self.problems.append(
                Problem("ref", id, f'{text} write base = "{abbreviate(id)}" there instead of the name')
            )
