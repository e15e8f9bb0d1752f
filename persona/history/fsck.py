"""`fsck`: the bytes of every record, ref and reflog, and that whatever a ref names is complete. Walks are
iterative.

Roots are refs, HEAD, reflogs, and the recipe in the work tree. What no root reaches is counted, and no
problem: an interrupted command leaves such things behind. `full` recomputes every id, also those over decoded
elements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from persona.errors import IntegrityError, PersonaError
from persona.history import worktree
from persona.history.history import History
from persona.history.results import FsckResult, Problem, Progress
from persona.objects.base import Base
from persona.objects.ids import NULL_ID, abbreviate
from persona.objects.table import decode_table
from persona.objects.vector import Vector

if TYPE_CHECKING:
    from persona.store.records import Record


def fsck(history: History, full: bool, progress: Progress | None) -> FsckResult:
    """See `Repository.fsck`."""
    store = history.store
    problems: list[Problem] = []
    present = {id: kind for id, kind, _ in store.objects.iterate()}
    total, done = store.objects.counts()[2], 0
    payloads = _Payloads(history)

    def payload_of(record: Record) -> list[Any] | None:
        nonlocal done
        done += sum(memoryview(segment).nbytes for segment in record.segments)
        if progress:
            progress("checking", min(done, total), total)
        return payloads.of(record)

    for found in store.objects.problems(full, payload_of if full else None):
        if not found.healed:
            problems.append(Problem(found.kind or None, found.id or None, found.problem))
    damaged = {problem.id for problem in problems if problem.id}
    problems += [Problem(kind, None, text) for kind, _, text in store.refs.problems()]
    reach = _Reach(history, present, damaged)
    for what, root, kind in _roots(history):
        reach.need(root, kind, what)
    reach.follow()
    problems += reach.problems
    for name in store.states():
        try:
            store.state(name).read()
        except PersonaError as error:
            problems.append(Problem("state", None, error.message))
    return FsckResult(
        ok=not problems,
        objects=len(present),
        problems=tuple(problems),
        unreachable=len(present.keys() - reach.seen),
    )


def _roots(history: History) -> Iterator[tuple[str, str, str | None]]:
    """(what names it, id, kind or None for any) of everything that has to be there."""
    refs = history.store.refs
    try:
        names = list(refs.list())
    except PersonaError:
        names = []
    kinds = {"refs/heads/": "commit", "refs/bases/": "base", "refs/vectors/": "vector"}
    for name in ["HEAD", *names]:
        try:
            id = refs.head_id() if name == "HEAD" else refs.read(name)
            entries = refs.log(name)
        except PersonaError:
            continue  # named by refs.problems()
        kind = next((kind for prefix, kind in kinds.items() if name.startswith(prefix)), None)
        if name == "HEAD":
            kind = "commit"
        if id is not None:
            yield name, id, kind
        for entry in entries:
            for old in (entry.old, entry.new):
                if old is not None:
                    yield f"the reflog of {name}", old, kind
    try:
        recipe = history.read_recipe(worktree.read_recipe_text(history.root))
    except PersonaError:
        return  # the user's own text, or a base or vector that another problem names
    yield "recipe.toml", recipe.base, "base"
    for term in recipe.terms:
        yield "recipe.toml", term.vector, "vector"


@dataclass
class _Reach:
    """Everything that the roots lead to; what is missing, of another kind, or contradicts itself becomes a
    problem.
    """

    history: History
    present: dict[str, str]
    damaged: set[str]
    seen: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    _queue: list[tuple[str, str]] = field(default_factory=list)

    def need(self, id: str, kind: str | None, what: str) -> None:
        """Notes that `what` names an object."""
        held = self.present.get(id)
        if held is None:
            if id not in self.seen:
                shown = f"{kind or 'object'} {abbreviate(id)}"
                self.problems.append(Problem(kind, id, f"{shown}, named by {what}, is missing"))
        elif kind is not None and held != kind and held != "unknown":
            self.problems.append(
                Problem(kind, id, f"{what} names {abbreviate(id)} as a {kind}, but it is a {held}")
            )
        elif id not in self.seen and held not in ("chunk", "delta", "blob", "table"):
            self._queue.append((id, held))
        self.seen.add(id)

    def follow(self) -> None:
        """Reads everything noted and notes what that names, until there is nothing more."""
        while self._queue:
            id, kind = self._queue.pop()
            if id in self.damaged:
                continue
            try:
                self._follow_one(id, kind)
            except PersonaError as error:
                self.problems.append(Problem(kind, id, error.message))

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
        elif kind == "recipe":
            recipe = history.recipe(id)
            self.need(recipe.base, "base", what)
            for term in recipe.terms:
                self.need(term.vector, "vector", what)
                self._check_binding(recipe.base, term.vector)
        elif kind == "base":
            base = history.base(id)
            for blob in base.files.values():
                self.need(blob, "blob", what)
            self._table(base, base.table, "chunk", what)
        elif kind == "vector":
            vector = history.vector(id)
            for other, _ in vector.expression:
                self.need(other, "vector", what)
            if vector.table is not None:
                self._table(vector, vector.table, "delta", what)
        elif kind == "tag":
            tag = history.tag(id)
            self.need(tag.object, tag.kind, what)
        elif kind == "note":
            history.store.objects.get(id, kind)

    def _table(self, owner: Base | Vector, id: str, kind: str, what: str) -> None:
        self.need(id, "table", what)
        if id in self.damaged or id not in self.present:
            return
        data = self.history.store.objects.get(id, "table")
        if isinstance(owner, Vector) and owner.kind != "delta":
            return
        table = decode_table(data, owner.tensors, owner.chunk, f"the table of {what}")
        for spec in owner.tensors:
            for chunk in table.chunks(spec.name):
                if chunk == NULL_ID and kind == "delta":
                    continue
                if chunk not in self.seen:
                    self.need(chunk, kind, f"tensor {spec.name} of {what}")

    def _check_binding(self, base: str, vector: str) -> None:
        if self.present.get(base) == "base" and self.present.get(vector) == "vector":
            self.history.require_vector_of(base, vector)


class _Payloads:
    """Canonical payloads of the kinds whose ids are over decoded elements."""

    def __init__(self, history: History) -> None:
        self.history = history

    def of(self, record: Record) -> list[Any] | None:
        """The parts of a record's payload; None when its base chunk cannot be read."""
        return [self._chunk(record)] if record.kind == "chunk" else self._delta(record)

    def _chunk(self, record: Record) -> Any:
        import numpy as np

        from persona.codec.base import decode_base
        from persona.codec.elements import parse_form

        _, element = parse_form(record.form)
        if element is None:
            if len(record.segments) != 1:
                raise IntegrityError(
                    f"chunk {abbreviate(record.id)}: raw elements in {len(record.segments)} segments"
                )
            return record.segments[0]
        nbytes = sum(memoryview(segment).nbytes for segment in record.segments)
        out = np.empty(nbytes // element.nbytes, element.uint)
        decode_base(record.form, record.segments, out)
        return out.view(np.uint8).data

    def _delta(self, record: Record) -> list[Any] | None:
        import numpy as np

        from persona.codec.delta import decode_delta, delta_payload, exponent_order
        from persona.codec.elements import parse_form

        _, element = parse_form(record.form)
        if element is None or record.relative is None:
            raise IntegrityError(f"delta {abbreviate(record.id)}: it names no base chunk or element type")
        try:
            raw = self._chunk(self.history.store.objects.read(record.relative, "chunk"))
        except PersonaError:
            return None
        if memoryview(raw).nbytes % element.nbytes:
            raise IntegrityError(f"delta {abbreviate(record.id)}: its base chunk is not of {element.name}")
        base = np.frombuffer(raw, np.uint8).view(element.uint)
        order, sorted_base = np.empty(base.size, np.uint32), np.empty_like(base)
        exponent_order(base, element.name, order, sorted_base)
        z_sorted, z = np.empty_like(base), np.empty_like(base)
        decode_delta(record.form, record.segments, z_sorted)
        z[order] = z_sorted
        return list(delta_payload(record.relative, z))
