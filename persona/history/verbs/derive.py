"""`vector derive`: a sum of stored vectors becomes a vector of `recipe.toml`, without weights of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from fractions import Fraction
from typing import Unpack

from persona.errors import Call, InvalidInput, Note, UnknownName
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.options import TermOptions, complete
from persona.history.recipes import filters, joining
from persona.history.recipes.checked import checked_keys
from persona.history.recipes.text import RECIPE_FILE
from persona.history.recipes.views import shown
from persona.history.results import UNPRINTED, Result
from persona.history.vectors import kept_names, lookup
from persona.history.vectors.expressions import Sum, evaluate, written
from persona.history.vectors.naming import Parts, put_term, store_sum, with_term
from persona.history.worktree import text_files
from persona.history.worktree.changing import changing
from persona.limits import MAX_TERMS
from persona.objects.ids import abbreviate
from persona.objects.names import check_vector_name
from persona.objects.recipe import Recipe, from_binary32, to_binary32
from persona.objects.rules import MAX_BINARY32


@dataclass(frozen=True, repr=False)
class Derived(Result):
    """A vector that was derived and named in `recipe.toml`.

    `expression`: the sum that it is, in the names of `recipe.toml`. `parts`: the name, id and coefficient of
    each vector in it. `kind` is "expression", or the kind of the one vector that the sum is. `change`:
    "added", or "replaced" if the name had another vector.
    """

    name: str
    id: str
    kind: str
    change: str
    alpha: float | tuple[float, ...]
    expression: str
    parts: tuple[dict[str, str], ...]
    notes: tuple[str, ...] = field(default=(), metadata=UNPRINTED)


def derive(history: History, name: str, expr: str, **options: Unpack[TermOptions]) -> Derived:
    """Makes a vector from others, such as `"calm - rushed"`, and names it in `recipe.toml`.

    `expr`: vectors, + − * / with numbers, and parentheses. A vector is written as `repo.vectors[...]` takes
    it; a name in quotes may hold any character. The coefficients are computed exactly, then rounded to
    binary32. A term `name` gets the new vector. Raises `InvalidInput` with the place of a fault, for a sum
    that is 0, and for vectors of another base than the recipe's; `UnknownName` for a vector that does not
    exist.
    """
    given = complete(TermOptions, options)
    check_vector_name(name)
    keys = checked_keys(given["alpha"], given["density"], given["only"], given["except_"])
    with changing(history) as tree:
        data, recipe = text_files.recipe(history, to_edit=True)
        names = lookup.names_of(history)
        parts = _parts(history, recipe, expr, names)
        named = lookup.parts_of(parts, names)
        with_term(history, data, name, parts[0][0], keys)  # before anything is stored
        origin = {"expression": expr.strip(), "vectors": _by_name(parts, names)}
        id = store_sum(history, recipe.base, parts, origin)
        kept_names.keep(history, name, id)
        made, replaced, on_files = put_term(tree, name, id, keys)
        return Derived(
            name=name,
            id=id,
            kind=history.vector(id).kind,
            change="replaced" if replaced else "added",
            alpha=shown(made.by_name[name].alpha),
            expression=written(named),
            parts=named,
            notes=(*_notes(history, made, name, parts), *joining.notes(recipe, made, name), *on_files),
        )


def _parts(history: History, recipe: Recipe, expr: str, names: Mapping[str, str]) -> Parts:
    """The sum that a text means."""
    known: dict[str, Sum | None] = {}
    remembered = lookup.remembered(history)

    def find(name: str) -> Sum | None:
        if name not in known:
            known[name] = _meaning(history, recipe, remembered.get(name, name))
        return known[name]

    found: list[tuple[str, str]] = []
    names_to_type = [*lookup.ids(history), *remembered]
    for id, coefficient in sorted(evaluate(expr, names_to_type, find).items()):
        if abs(coefficient) > MAX_BINARY32:
            of = names.get(id) or abbreviate(id)
            raise InvalidInput(f"the coefficient of {of} is beyond the range of binary32")
        rounded = to_binary32(coefficient)
        if rounded:
            found.append((id, from_binary32(rounded)))
    if not found:
        raise InvalidInput("nothing is left of the expression: all its coefficients are rounded to 0")
    if len(found) > MAX_TERMS:
        raise InvalidInput(f"the expression has {len(found)} vectors; at most {MAX_TERMS} are possible")
    return tuple(found)


def _meaning(history: History, recipe: Recipe, name: str) -> Sum | None:
    """The sum of vectors that have weights for the name or the start of an id of a vector."""
    try:
        id = lookup.id_of(history, name)
    except UnknownName:
        return None
    history.require_vector_of(recipe.base, id)
    vector = history.vector(id)
    if vector.kind == "expression":
        return {part: Fraction(coefficient) for part, coefficient in vector.expression}
    return {id: Fraction(1)}


def _by_name(parts: Parts, names: Mapping[str, str]) -> dict[str, str]:
    """The ids of the vectors that have a name, by name."""
    return {names[part]: part for part, _ in parts if part in names}


def _notes(history: History, made: Recipe, name: str, parts: Parts) -> list[str]:
    """Notes on vectors that the recipe has twice: on their own, and in the new vector."""
    ids = {part for part, _ in parts} - {made.by_name[name].vector}
    own = [term.name for term in made.terms if term.vector in ids]
    notes: list[str] = list(filters.twice(made, history.base(made.base), {name}))
    if own:
        them = "them" if len(own) > 1 else "it"
        hint = (Call("recipe.remove", *own), f" removes {them}; {name} does not need {them}")
        verb = "are" if len(own) > 1 else "is"
        notes.append(Note(f"{' and '.join(_series(own))} {verb} still in {RECIPE_FILE}, beside {name}", hint))
    return notes


def _series(names: list[str]) -> list[str]:
    return [", ".join(names[:-1]), names[-1]] if len(names) > 1 else names
