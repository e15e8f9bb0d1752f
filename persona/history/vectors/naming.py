"""A stored vector into `recipe.toml`, and a sum of vectors into the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona.history import note_refs
from persona.history.history import History
from persona.history.recipes import edit
from persona.history.recipes.joining import new_term
from persona.history.recipes.text import RECIPE_FILE, decode, encode
from persona.history.worktree import text_files, tracking
from persona.history.worktree.locked import LockedTree
from persona.objects.growth import TwoSizes
from persona.objects.note import Note
from persona.objects.recipe import Recipe
from persona.objects.vector import Vector

Parts = tuple[tuple[str, str], ...]
"""The vectors of a sum by id, in ascending order, each with its coefficient as a manifest holds it."""


def with_term(
    history: History, data: bytes, name: str, id: str, keys: Mapping[str, Any]
) -> tuple[str, Recipe]:
    """The text of a recipe in which the term `name` has a vector, and its recipe.

    `keys`: the other keys of the term that are set. A new term has α 1 unless they say otherwise, and a
    subtraction does not vote. Raises `InvalidInput` for a recipe that cannot be.
    """
    text, recipe = decode(data), history.read_recipe(data)
    if name in recipe.by_name:
        text = edit.set_term(text, name, {"id": id, **keys})
    else:
        text = edit.add_term(text, name, new_term(recipe.rules, {"id": id, **keys}))
    try:
        return text, history.new_recipe(text.encode(), where=None)
    except TwoSizes as error:
        raise error.with_new(name) from None


def put_term(tree: LockedTree, name: str, id: str, keys: Mapping[str, Any]) -> tuple[Recipe, bool, list[str]]:
    """Gives the term `name` of `recipe.toml` a stored vector, and takes the files back of one that it had.

    If the vector adds rows to the base, the files of the work tree count as its own: the rows need them.
    Returns the recipe, whether it had the term, and sentences on files and on what was trained from the old
    vector.
    """
    from persona.history.vectors import model_files
    from persona.history.vectors.trained_from import left_behind

    history = tree.history
    data, recipe = text_files.recipe(history, to_edit=True)
    text, made = with_term(history, data, name, id, keys)
    if model_files.grows(history, [id]):
        model_files.remember(history, id, history.base(made.base), model_files.here(history), ())
    old = [recipe.by_name[name].vector] if name in recipe.by_name else []
    back = model_files.given_back(history, old, made)
    edits = {**back.edits, RECIPE_FILE: encode(text, like=data)}
    tree.apply(edits, {**tracking.ids(history, edits), RECIPE_FILE: text_files.blob_id(data)})
    return made, bool(old), [*back.notes, *left_behind(history, made, recipe)]


def store_sum(history: History, base: str, parts: Parts, origin: Mapping[str, Any]) -> str:
    """The id of a sum of vectors of the base with this id.

    Stores it, with a note on its origin, unless it is one vector itself.
    """
    with history.store.transaction() as tx:
        for part, _ in parts:
            tx.rely_on(part)
        if len(parts) == 1 and parts[0][1] == "1":
            return parts[0][0]
        vector = Vector(history.base(base).digest, "expression", expression=parts)
        id = tx.put("vector", vector.encode())
    note_refs.keep(history, Note(id, "vector", "provenance", dict(origin)))
    return id
