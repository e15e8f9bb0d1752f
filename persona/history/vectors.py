"""Vectors by name, and their statistics. What has to be counted over all chunks is counted once and kept in
`cache/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona.errors import InvalidInput, Refused, UnknownName
from persona.history import worktree
from persona.history.history import BASES, VECTORS, History, signature
from persona.history.recipe_text import RECIPE_FILE
from persona.objects.commit import Person
from persona.objects.ids import NULL_ID, abbreviate
from persona.objects.names import check_ref_name
from persona.objects.recipe import Recipe
from persona.objects.rules import NUMERICS
from persona.objects.table import Table, decode_table
from persona.objects.vector import Vector
from persona.store.refs import Change

if TYPE_CHECKING:
    from persona.history.query_results import VectorInfo


def infos(history: History) -> list[VectorInfo]:
    """See `Repository.vectors`."""
    recipe = history.read_recipe(worktree.read_recipe_text(history.root))
    found = [info(history, term.name, term.vector, recipe) for term in recipe.terms]
    named = {term.vector for term in recipe.terms}
    for ref, id in history.store.refs.list(VECTORS).items():
        if id not in named:
            found.append(info(history, ref.removeprefix(VECTORS), id, None))
    return found


def named(history: History, name: str) -> VectorInfo:
    """See `Repository.vector`."""
    recipe = history.read_recipe(worktree.read_recipe_text(history.root))
    id = id_of(history, name)
    if name in recipe.by_name:
        return info(history, name, id, recipe)
    if VECTORS + name in history.store.refs.list(VECTORS):
        return info(history, name, id, None)
    names = [term.name for term in recipe.terms if term.vector == id]
    return info(history, names[0] if names else abbreviate(id), id, recipe if names else None)


def id_of(history: History, name: str) -> str:
    """The id of a vector by its name in `recipe.toml`, by a kept name, or by its start."""
    recipe = history.read_recipe(worktree.read_recipe_text(history.root))
    if name in recipe.by_name:
        return recipe.by_name[name].vector
    kept = history.store.refs.list(VECTORS).get(VECTORS + name)
    return kept or history.resolve_object(name, "vector")


def keep(history: History, name: str, id: str) -> str | None:
    """Gives a vector that no commit holds a name of its own, so that it can be found whatever becomes of
    `recipe.toml`; returns that name, None where HEAD's recipe holds the vector.

    Another vector that the name keeps moves on to the next free one, NAME-2.
    """
    refs = history.store.refs
    if any(term.vector == id for term in history.recipe_of(history.head_commit()).terms):
        return None
    held = refs.list(VECTORS)
    for ref, other in held.items():
        if other == id:
            return ref.removeprefix(VECTORS)
    plain = _as_ref(name)
    taken = {ref.removeprefix(VECTORS).casefold(): ref for ref in held}
    ref = taken.get(plain.casefold(), VECTORS + plain)
    old = held.get(ref)
    changes = [Change(ref, id, old, f"add: {name}")]
    if old is not None:
        number = next(n for n in count(2) if f"{plain}-{n}".casefold() not in taken)
        changes.append(Change(f"{VECTORS}{plain}-{number}", old, None, f"add: another {name} came"))
    who, when = signature(history.committer())
    refs.update_all(changes, who=who, when=when)
    return ref.removeprefix(VECTORS)


def release(history: History, recipe: Recipe) -> None:
    """Takes the kept names of vectors that a commit with this recipe holds."""
    refs = history.store.refs
    held = {term.vector for term in recipe.terms}
    changes = [
        Change(ref, None, id, "commit: holds it now") for ref, id in refs.list(VECTORS).items() if id in held
    ]
    if changes:
        who, when = signature(history.committer())
        refs.update_all(changes, who=who, when=when)


def _as_ref(name: str) -> str:
    """A vector's name with what no ref may hold made a dash."""
    name = re.sub(r"[\x00-\x20\x7f~^:?*\[\\/]|\.\.|@\{", "-", name).strip(".-")
    name = re.sub(r"(\.lock)+$", "", name, flags=re.IGNORECASE)
    try:
        return check_ref_name(name)
    except InvalidInput:
        return "vector"


def forget(history: History, names: Sequence[str], person: Person) -> None:
    """See `Repository.remove_vector`."""
    recipe = history.read_recipe(worktree.read_recipe_text(history.root))
    kept = history.store.refs.list(VECTORS)
    changes: list[Change] = []
    for name in dict.fromkeys(names):
        if name in recipe.by_name:
            raise Refused(f"{RECIPE_FILE} names the vector {name}; `persona rm {name}` drops it from there")
        id = kept.get(VECTORS + name)
        if id is None:
            raise UnknownName(f"no vector is kept under the name {name}; `persona vector ls` lists them")
        changes.append(Change(VECTORS + name, None, id, f"vector: rm {name}"))
    who, when = signature(person)
    history.store.refs.update_all(changes, who=who, when=when)


def info(history: History, name: str, id: str, recipe: Recipe | None) -> VectorInfo:
    """All that is known of a vector; counts it when no cache knows."""
    from persona.history.query_results import VectorInfo

    vector = history.vector(id)
    base_id = base_of(history, vector, recipe)
    base = history.base(base_id) if base_id else None
    counted = statistics(history, id, base_id) if base_id and vector.kind == "delta" else {}
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
    table = _table(history, vector)
    chunks = {chunk for spec in vector.tensors for chunk in table.chunks(spec.name)} - {NULL_ID}
    return total + objects.stored_bytes(vector.table) + sum(objects.stored_bytes(chunk) for chunk in chunks)


def remember(history: History, id: str, changed_fraction: float, l2: float | None = None) -> dict[str, Any]:
    """Keeps what was counted anyway; returns all that is known then."""
    found = {"changed_fraction": changed_fraction} | ({} if l2 is None else {"l2": l2})
    known = {**_kept(history, id), **found}
    history.store.cache(f"vectors-{NUMERICS}/{id}").write(json.dumps(known).encode())
    return known


def remember_origin(history: History, id: str, place: Path) -> None:
    """Keeps where a vector was imported from, on this machine."""
    history.store.cache(f"origins/{id}").write(json.dumps(str(place)).encode())


def known_origin(history: History, id: str) -> Path | None:
    """Where a vector was imported from; None where that is not known."""
    data = history.store.cache(f"origins/{id}").read()
    return Path(json.loads(data)) if data else None


def known_fraction(history: History, id: str) -> float | None:
    """The fraction of weights that a vector changes, where it was counted before."""
    value = _kept(history, id).get("changed_fraction")
    return float(value) if value is not None else None


def statistics(history: History, id: str, base_id: str) -> dict[str, Any]:
    """ "changed_fraction" of the base's float elements, and "l2", the Euclidean norm of f − b in binary64."""
    kept = _kept(history, id)
    if "l2" not in kept or "changed_fraction" not in kept:
        from persona.history import measures

        size = measures.size_of(history, id, base_id)
        kept = remember(history, id, size.changed_fraction, size.l2)
    return kept


def _kept(history: History, id: str) -> dict[str, Any]:
    data = history.store.cache(f"vectors-{NUMERICS}/{id}").read()
    value = json.loads(data) if data else {}
    return value if isinstance(value, dict) else {}


def _table(history: History, vector: Vector) -> Table:
    assert vector.table is not None
    data = history.store.objects.get(vector.table, "table")
    return decode_table(data, vector.tensors, vector.chunk, "the vector's table")
