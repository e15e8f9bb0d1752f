"""Conflicts that stand in the work tree, resolved by a strategy."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Many
from dataclasses import replace
from typing import Any

from persona.errors import InvalidInput, UnknownName
from persona.history.history import History
from persona.history.recipes.conflicts import (
    IN_RECIPE,
    TERM_FIELDS,
    UNDECIDED,
    Conflict,
    Strategy,
    decided,
)
from persona.history.recipes.line_conflicts import chosen
from persona.history.recipes.pairing import free_name
from persona.history.recipes.pairs import path_of, without_pairs
from persona.history.recipes.text import decode, encode
from persona.history.recipes.three_way import Names, with_meaning
from persona.history.sequencing.state import Sequence, Stop, standing
from persona.history.worktree import text_files
from persona.history.worktree.locked import LockedTree
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import Rules


def resolve_with(tree: LockedTree, sequence: Sequence, strategy: Strategy) -> None:
    """Resolves the conflicts that stand, as far as the strategy decides them. Resolved places stay."""
    history, stop = tree.history, sequence.stop
    assert stop is not None
    found = standing(history, stop)
    settled = list(stop.settled)
    edits: dict[str, bytes | None] = {}
    for path in dict.fromkeys(conflict.path for conflict in found):
        here = [conflict for conflict in found if conflict.path == path]
        if here[0].problem in IN_RECIPE:
            edits[path] = _recipe_with(history, here, strategy)
        elif strategy == "mean" or strategy == "base" or here[0].problem == "style":
            continue  # a side of the whole recipe is no decision about its conflicts
        elif here[0].problem == "lines":
            edits[path] = chosen((text_files.read(history.root, path) or b"").decode(), strategy).encode()
        else:
            settled.append(path)
            side = history.head_commit() if strategy == "ours" else stop.theirs
            blob = history.files_of(side).get(path)
            edits[path] = None if blob is None else history.blob(blob)
    here_now = {path: id for path in edits if (id := text_files.id_of(history.root, path)) is not None}
    edits = {path: data for path, data in edits.items() if here_now.get(path) != _id(data)}
    tree.apply(edits, here_now)
    if len(settled) > len(stop.settled):
        settle(tree, sequence, settled)


def settle(tree: LockedTree, sequence: Sequence, paths: Many[str]) -> Sequence:
    """Notes that the conflicts of whole files are resolved."""
    stop = sequence.stop
    assert stop is not None
    changed: Stop = replace(stop, settled=tuple(dict.fromkeys([*stop.settled, *paths])))
    done = replace(sequence, stop=changed)
    tree.sequence(done.to_json())
    return done


def _id(data: bytes | None) -> str | None:
    return None if data is None else text_files.blob_id(data)


def _recipe_with(history: History, conflicts: Many[Conflict], strategy: Strategy) -> bytes:
    """The bytes of recipe.toml with the values that a strategy decides, and without their pairs."""
    data, recipe = text_files.recipe(history)
    recipe, keys = with_decisions(recipe, conflicts, strategy)
    names = Names(history.read_recipe, history.base_name, history.require_vector_of)
    text = with_meaning(without_pairs(decode(data), keys), recipe, names)
    return encode(text, like=data)


def with_decisions(recipe: Recipe, conflicts: Many[Conflict], strategy: Strategy) -> tuple[Recipe, list[str]]:
    """The recipe with the values that a strategy gives to conflicts, and the keys that it decides.

    A value that does not fit the rest of the recipe is left out.
    """
    found = [(one, value) for one in conflicts if (value := decided(one, strategy)) is not UNDECIDED]
    here = {_name(one): _name_of(recipe, one) for one, _ in found if one.key.startswith("vectors.")}
    left = sorted((each for each in found if not _is_name(each[0])), key=lambda each: _turn(each[0]))
    keys: list[str] = []
    while left:
        stands = []
        for conflict, value in left:
            try:
                recipe = _with(recipe, conflict, value, here)
                keys.append(conflict.key)
            except (InvalidInput, UnknownName):
                stands.append((conflict, value))
        if len(stands) == len(left):
            break
        left = stands
    names = [(one, value) for one, value in found if _is_name(one) and here[_name(one)] is not None]
    try:
        return _with_names(recipe, names, here), [*keys, *(one.key for one, _ in names)]
    except InvalidInput:
        return recipe, keys


def _name(conflict: Conflict) -> str:
    """The name of the vector that a conflict is about."""
    return path_of(conflict)[1]


def _is_name(conflict: Conflict) -> bool:
    return conflict.key.startswith("vectors.") and path_of(conflict)[2:] == ("name",)


def _turn(conflict: Conflict) -> int:
    """Vectors go first and come last, so that a vector that comes can have a name that is free then."""
    return 1 if conflict.problem != "term" else 0 if conflict.ours is not None else 2


def _with(recipe: Recipe, conflict: Conflict, value: Any, here: dict[str, str | None]) -> Recipe:
    """The recipe with a value at the key of a conflict. `UnknownName` if the vector is gone.

    `here`: the name that a vector had at the stop → its name in the recipe.
    """
    path = path_of(conflict)
    if path[0] == "base":
        return Recipe.of(value, recipe.terms, recipe.rules)
    if path[0] == "merge":
        axes = {**recipe.rules.axes(), path[1]: value}
        preset = axes.pop("preset", recipe.rules.preset)
        rules = Rules.of(str(preset), **{axis: one for axis, one in axes.items() if one is not None})
        return Recipe.of(recipe.base, recipe.terms, rules)
    terms, name = dict(recipe.by_name), here[path[1]]
    if conflict.problem == "term" and conflict.ours is None:
        if isinstance(value, Term):
            if value.name in terms:  # as from the start: the vector of theirs has the name
                terms[path[1]] = replace(terms[value.name], name=path[1])
                here.update({old: path[1] for old, now in here.items() if now == value.name})
            terms[value.name] = value
    elif name is None:
        raise UnknownName(f"no vector is named {path[1]}")
    elif conflict.problem != "term":
        terms[name] = replace(terms[name], **{TERM_FIELDS[path[2]]: _fit(path[2], value)})
    elif value is None:
        del terms[name]
    return Recipe.of(recipe.base, list(terms.values()), recipe.rules)


def _with_names(recipe: Recipe, names: Many[tuple[Conflict, Any]], here: Mapping[str, str | None]) -> Recipe:
    """The recipe with the names that conflicts give, all at once.

    Another vector that has one of these names gets its name in theirs, or a new one.
    """
    terms = recipe.by_name
    given = {str(here[_name(one)]): str(value) for one, value in names if value == one.theirs}
    taken = (terms.keys() - given.keys()) | set(given.values())
    for conflict, value in names:
        if value == conflict.theirs and value in terms and value not in given:
            its = conflict.detail
            given[value] = its if its and its not in taken else free_name(value, taken)
            taken.add(given[value])
    renamed = [replace(term, name=given.get(name, name)) for name, term in terms.items()]
    return Recipe.of(recipe.base, renamed, recipe.rules)


def _name_of(recipe: Recipe, conflict: Conflict) -> str | None:
    """The name of the vector of a conflict, which may have been renamed since."""
    terms, name = recipe.by_name, _name(conflict)
    if name in terms and terms[name].vector == conflict.vector:
        return name
    same = [other for other, term in terms.items() if term.vector == conflict.vector]
    if len(same) == 1:
        return same[0]
    return name if name in terms and conflict.problem != "term" else None


def _fit(key: str, value: Any) -> Any:
    return () if value is None and key in ("only", "except") else value
