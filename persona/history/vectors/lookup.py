"""Vectors by name, and what is known of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from persona.errors import UnknownName
from persona.history import note_refs
from persona.history.history import History
from persona.history.planning import part_of
from persona.history.vectors.cache import known_counts
from persona.history.vectors.counting import statistics
from persona.history.vectors.expressions import written
from persona.history.worktree import text_files
from persona.objects.ids import NULL_ID, abbreviate
from persona.objects.recipe import Recipe, Term
from persona.objects.table import decode_vector_table
from persona.objects.tensors import TensorSpec
from persona.objects.vector import Vector
from persona.store.refs import BASES, VECTORS

if TYPE_CHECKING:
    from persona.history.query_results import VectorInfo


def ids(history: History) -> dict[str, str]:
    """The ids of the vectors by name.

    Those of `recipe.toml` come first, in canonical order of its terms, then those with only a kept name. If a
    term has the kept name, the vector stands under the start of its id.
    """
    recipe = text_files.recipe(history).recipe
    found = {term.name: term.vector for term in recipe.terms}
    in_recipe = set(found.values())
    for ref, id in history.store.refs.list(VECTORS).items():
        if id not in in_recipe:
            name = ref.removeprefix(VECTORS)
            found[abbreviate(id) if name in found else name] = id
    return found


def names_of(history: History) -> dict[str, str]:
    """A name of each vector of `ids`, by its id, and the names of `remembered`."""
    found = {id: name for name, id in remembered(history).items()}
    for name, id in reversed(ids(history).items()):
        found[id] = name
    return found


def remembered(history: History) -> dict[str, str]:
    """The ids of vectors that have no name today, by the names that expressions were derived from."""
    today = ids(history)
    named, found = set(today.values()), dict[str, set[str]]()
    for note in note_refs.all_of(history, "provenance"):
        names = note.data.get("vectors")
        for name, id in names.items() if isinstance(names, dict) else ():
            if name not in today and isinstance(id, str) and id not in named:
                found.setdefault(name, set()).add(id)
    return {name: alike.pop() for name, alike in found.items() if len(alike) == 1}


def parts_of(expression: tuple[tuple[str, str], ...], names: Mapping[str, str]) -> tuple[dict[str, str], ...]:
    """The name, id and coefficient of each vector that an expression is made of.

    A vector without a name in `names`, by id, has the start of its id.
    """
    return tuple(
        {"name": names.get(id) or abbreviate(id), "id": id, "coefficient": coefficient}
        for id, coefficient in expression
    )


def infos(history: History) -> dict[str, VectorInfo]:
    """All that is known of the vectors of `ids`."""
    recipe = text_files.recipe(history).recipe
    return {
        name: info(history, name, id, recipe if name in recipe.by_name else None)
        for name, id in ids(history).items()
    }


def named(history: History, name: str) -> VectorInfo:
    """A vector by name in the recipe, by kept name, by the start of its id, or by a name of `remembered`."""
    recipe = text_files.recipe(history).recipe
    id = _id_of(history, name, recipe)
    if name in recipe.by_name:
        return info(history, name, id, recipe)
    if VECTORS + name in history.store.refs.list(VECTORS):
        return info(history, name, id, None)
    names = [term.name for term in recipe.terms if term.vector == id]
    return info(history, names[0] if names else abbreviate(id), id, recipe if names else None)


def id_of(history: History, name: str) -> str:
    """The id of a vector by name in `recipe.toml`, by kept name, by its start, or by a remembered name."""
    return _id_of(history, name, text_files.recipe(history).recipe)


def _id_of(history: History, name: str, recipe: Recipe) -> str:
    if name in recipe.by_name:
        return recipe.by_name[name].vector
    kept = history.store.refs.list(VECTORS).get(VECTORS + name)
    try:
        return kept or history.resolve_object(name, "vector")
    except UnknownName:
        if (id := remembered(history).get(name)) is None:
            raise
        return id


def info(history: History, name: str, id: str, recipe: Recipe | None) -> VectorInfo:
    """All that is known of a vector. If no cache has its counts, counts it, unless it is an adapter."""
    from persona.history.query_results import VectorInfo

    vector = history.vector(id)
    base_id = base_of(history, vector, recipe)
    base = history.base(base_id) if base_id else None
    counted = known_counts(history, id)
    if base_id and vector.kind != "lowrank":  # for an adapter, every change would be computed
        counted = statistics(history, id, base_id)
    specs = _specs(history, id, vector)
    parts = parts_of(vector.expression, names_of(history)) if vector.expression else ()
    return VectorInfo(
        name=name,
        id=id,
        kind=vector.kind,
        base=vector.base,
        tensors=len(specs),
        elements=sum(spec.elements for spec in specs),
        changed_fraction=counted.get("changed_fraction"),
        raw_bytes=base.merged_bytes if base else 0,
        stored_bytes=stored_bytes(history, id, vector),
        l2=counted.get("l2"),
        ranks=vector.ranks,
        grown=grown(history, vector),
        verdict=_verdict(history, id),
        expression=written(parts) if parts else None,
        parts=parts,
        in_recipe=recipe is not None,
    )


def grown(history: History, vector: Vector) -> dict[str, str | None]:
    """The tensors that a vector or a part of it grows, each with its origin."""
    parts = [history.vector(part) for part, _ in vector.expression]
    return {name: origin for one in (vector, *parts) for name, origin in one.grown}


def _verdict(history: History, id: str) -> str | None:
    """The verdict on a vector alone, if it was measured and the note can be read."""
    from persona.history.scores import readable

    found = readable(history, id, history.notes)
    return None if found is None else found.verdict


def expression_of(history: History, id: str) -> str | None:
    """The sum that a vector is, as text; None if it is no expression."""
    vector = history.vector(id)
    if not vector.expression:
        return None
    return written(parts_of(vector.expression, names_of(history)))


def unchanged_kinds(history: History, id: str, base_id: str) -> tuple[str, ...]:
    """The kinds of modules that a vector does not change at all (`measure.layers.unchanged_kinds`)."""
    from persona.measure import layers

    changed = {spec.name for spec in _specs(history, id, history.vector(id))}
    return layers.unchanged_kinds(
        (spec.name for spec in history.base(base_id).tensors if spec.merged), changed
    )


def without_effect(history: History, terms: Iterable[Term], before: Recipe | None) -> Iterator[str]:
    """A sentence for each of some terms whose vector changes no tensor that the term's filter admits.

    `before`: a recipe whose filters are known.
    """
    known = {(term.vector, term.only, term.except_) for term in before.terms} if before else set()
    for term in terms:
        if not (term.only or term.except_) or (term.vector, term.only, term.except_) in known:
            continue
        specs = _specs(history, term.vector, history.vector(term.vector))
        if not any(term.admits(spec.name) for spec in specs):
            yield f"{term.name} has no effect: it changes none of the tensors that its filter admits"


def provenance(history: History, id: str) -> tuple[dict[str, Any], ...]:
    """The notes on a vector's origin."""
    return tuple(note.data for note in note_refs.all_of(history, "provenance") if note.about == id)


def _specs(history: History, id: str, vector: Vector) -> Sequence[TensorSpec]:
    """The tensors that a vector changes."""
    parts = [part_of(history, id, vector, part) for part, _ in vector.expression] or [vector]
    return list({spec.name: spec for part in parts for spec in part.tensors}.values())


def base_of(history: History, vector: Vector, recipe: Recipe | None) -> str | None:
    """The id of the base that a vector is bound to: the recipe's, else one that has a name here."""
    recipes = [] if recipe is None else [recipe.base]
    for id in dict.fromkeys([*recipes, *history.store.refs.list(BASES).values()]):
        if history.base(id).digest == vector.base:
            return id
    return None


def stored_bytes(history: History, id: str, vector: Vector) -> int:
    """Bytes on disk of a vector's records: its manifest, its table, its chunks."""
    objects = history.store.objects
    total = objects.stored_bytes(id)
    if vector.table is None:
        return total
    table = decode_vector_table(objects.get(vector.table, "table"), vector, "the vector's table")
    chunks = {chunk for spec in vector.tensors for chunk in table.chunks(spec.name)} - {NULL_ID}
    return total + objects.stored_bytes(vector.table) + sum(objects.stored_bytes(chunk) for chunk in chunks)
