"""Vectors by name, and their statistics. What has to be counted over all chunks is counted once and kept in
`cache/`.
"""

from __future__ import annotations

import json
from typing import Any

from persona.errors import Refused, UnknownName
from persona.history import worktree
from persona.history.history import BASES, VECTORS, History, signature
from persona.history.recipe_text import RECIPE_FILE
from persona.history.results import VectorInfo
from persona.objects.base import Base
from persona.objects.commit import Person
from persona.objects.ids import NULL_ID, abbreviate
from persona.objects.recipe import Recipe
from persona.objects.table import Table, decode_table
from persona.objects.tensors import chunk_span
from persona.objects.vector import Vector


def infos(history: History) -> list[VectorInfo]:
    """See `Repository.vectors`."""
    recipe = history.read_recipe(worktree.read_recipe_text(history.root))
    found = [info(history, term.name, term.vector, recipe) for term in recipe.terms]
    for ref, id in history.store.refs.list(VECTORS).items():
        found.append(info(history, ref.removeprefix(VECTORS), id, None))
    return found


def named(history: History, name: str) -> VectorInfo:
    """See `Repository.vector`."""
    recipe = history.read_recipe(worktree.read_recipe_text(history.root))
    if name in recipe.by_name:
        return info(history, name, recipe.by_name[name].vector, recipe)
    kept = history.store.refs.list(VECTORS).get(VECTORS + name)
    if kept is not None:
        return info(history, name, kept, None)
    id = history.resolve_object(name, "vector")
    names = [term.name for term in recipe.terms if term.vector == id]
    return info(history, names[0] if names else abbreviate(id), id, recipe if names else None)


def forget(history: History, name: str, person: Person) -> None:
    """See `Repository.remove_vector`."""
    recipe = history.read_recipe(worktree.read_recipe_text(history.root))
    if name in recipe.by_name:
        raise Refused(f"{RECIPE_FILE} names the vector {name}; `persona rm {name}` drops it from there")
    id = history.store.refs.list(VECTORS).get(VECTORS + name)
    if id is None:
        raise UnknownName(f"no vector is kept under the name {name}; `persona vector ls` lists them")
    who, when = signature(person)
    history.store.refs.update(VECTORS + name, None, expect=id, who=who, when=when, why=f"vector: rm {name}")


def info(history: History, name: str, id: str, recipe: Recipe | None) -> VectorInfo:
    """All that is known of a vector; counts it when no cache knows."""
    vector = history.vector(id)
    base = history.base(recipe.base) if recipe else base_of(history, vector)
    counted = statistics(history, id, vector, base) if base and vector.kind == "delta" else {}
    return VectorInfo(
        name=name,
        id=id,
        kind=vector.kind,
        base=vector.base,
        tensors=len(vector.tensors),
        elements=sum(spec.elements for spec in vector.tensors),
        changed_fraction=counted.get("changed_fraction"),
        raw_bytes=base.merged_bytes if base else 0,
        stored_bytes=stored_bytes(history, id, vector),
        l2=counted.get("l2"),
        in_recipe=recipe is not None,
    )


def base_of(history: History, vector: Vector) -> Base | None:
    """The manifest of a base that a vector is bound to, or None where the repository has none."""
    for id in dict.fromkeys(history.store.refs.list(BASES).values()):
        base = history.base(id)
        if base.digest == vector.base:
            return base
    return None


def stored_bytes(history: History, id: str, vector: Vector) -> int:
    """Bytes on disk of a vector's records: its manifest, its table, its chunks."""
    objects = history.store.objects
    total = objects.stored_bytes(id)
    if vector.table is None:
        return total
    table = _table(history, vector)
    chunks = {chunk for spec in vector.tensors for chunk in table.chunks(spec.name)} - {NULL_ID}
    return total + objects.stored_bytes(vector.table) + sum(objects.stored_bytes(chunk) for chunk in chunks)


def remember(history: History, id: str, changed_fraction: float) -> None:
    """Keeps what an import counted anyway."""
    kept = _kept(history, id)
    history.store.cache(f"vectors/{id}").write(
        json.dumps({**kept, "changed_fraction": changed_fraction}).encode()
    )


def known_fraction(history: History, id: str) -> float | None:
    """The fraction of weights that a vector changes, where it was counted before."""
    value = _kept(history, id).get("changed_fraction")
    return float(value) if value is not None else None


def statistics(history: History, id: str, vector: Vector, base: Base) -> dict[str, Any]:
    """ "changed_fraction" of the base's float elements, and "l2", the Euclidean norm of f − b in binary64."""
    kept = _kept(history, id)
    if "l2" not in kept or "changed_fraction" not in kept:
        changed, squares = _count(history, vector, base)
        kept = {"changed_fraction": changed / max(1, base.merged_elements), "l2": squares**0.5}
        history.store.cache(f"vectors/{id}").write(json.dumps(kept).encode())
    return kept


def _kept(history: History, id: str) -> dict[str, Any]:
    data = history.store.cache(f"vectors/{id}").read()
    value: dict[str, Any] = json.loads(data) if data else {}
    return value


def _table(history: History, vector: Vector) -> Table:
    assert vector.table is not None
    data = history.store.objects.get(vector.table, "table")
    return decode_table(data, vector.tensors, vector.chunk, "the vector's table")


def _count(history: History, vector: Vector, base: Base) -> tuple[int, float]:
    """Elements that differ, and the sum of (f − b)² over finite ones."""
    import numpy as np

    from persona.codec.delta import exponent_order, restore
    from persona.merge import casts
    from persona.merge.chunks import ChunkReader, Workspaces
    from persona.merge.pipeline import in_order, thread_count

    data = history.store.objects.get(base.table, "table")
    base_table = decode_table(data, base.tensors, base.chunk, "the base's table")
    table = _table(history, vector)
    reader = ChunkReader(history.store.objects, base.chunk)
    workspaces = Workspaces(vector.tensors, base.chunk)

    def count(span: tuple[int, int]) -> tuple[int, float]:
        spec, index = vector.tensors[span[0]], span[1]
        space = workspaces.get(spec)
        start, stop = chunk_span(spec, index, base.chunk)
        size = stop - start
        z = space.rows(1)[0, :size]
        base_id = base_table.chunk(spec.name, index)
        if not reader.delta(spec, table.chunk(spec.name, index), base_id, index, z):
            return 0, 0.0
        before = reader.base(spec, base_id, index, space.base)
        exponent_order(before, spec.dtype, space.order[:size], space.sorted_base[:size])
        after = space.other[:size]
        restore(space.sorted_base[:size], z, space.order[:size], after)
        with np.errstate(invalid="ignore", over="ignore"):
            difference = casts.widen(after, spec.dtype) - casts.widen(before, spec.dtype)
            squares = np.square(difference[np.isfinite(difference)])
        return int(np.count_nonzero(z)), float(squares.sum())

    spans = [
        (place, i) for place, spec in enumerate(vector.tensors) for i in range(len(table.chunks(spec.name)))
    ]
    counts = list(in_order(count, spans, threads=thread_count(None)))
    return sum(changed for changed, _ in counts), sum(squares for _, squares in counts)
