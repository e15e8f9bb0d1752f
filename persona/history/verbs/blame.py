"""`blame`: for every key of a recipe, the commit that set it."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Final

from persona.errors import UnknownName, quoted
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.origins import Key, origins
from persona.history.query_results import Author
from persona.history.recipes.conflicts import TERM_FIELDS
from persona.history.recipes.pairing import same_terms
from persona.history.recipes.views import rules_view, term_keys
from persona.history.results import UNPRINTED, Result, iso_date
from persona.history.worktree import text_files
from persona.objects.recipe import Recipe

_FIELDS: Final = {**TERM_FIELDS, "except": "except"}
"""The keys of a vector in recipe.toml → the fields of a term in a recipe's canonical form."""


@dataclass(frozen=True, repr=False)
class Origin(Result):
    """A value of a recipe, and the commit that set it. If the value is not committed, there is no commit."""

    value: Any
    commit: str | None
    author: Author | None
    date: str | None
    subject: str | None


@dataclass(frozen=True, repr=False)
class Blame(Result):
    """The origins of a recipe's values. `revision` is None for `recipe.toml` in the work tree.

    `rules`: the preset and every axis in use. `vectors`: name → key of recipe.toml → origin; the key "name"
    has the commit that gave the name.
    """

    revision: str | None
    base: Origin
    rules: dict[str, Origin]
    vectors: dict[str, dict[str, Origin]]
    base_name: str = field(default="", metadata=UNPRINTED)


def blame(history: History, rev: str | None = None, *, vector: str | None = None) -> Blame:
    """For every value of a recipe, the commit that set it.

    Without `rev`, `recipe.toml` of the work tree: its values that HEAD does not have are not committed. A
    value comes from the first parent that has it too, as a line does in git. A vector that was renamed keeps
    its origins. `vector`: only the term of that name, and no rules. Raises `UnknownName` if the recipe does
    not have it.
    """
    commit = history.head_commit() if rev is None else resolve(history, rev, history.notes)
    committed = history.recipe_of(commit)
    recipe = text_files.recipe(history).recipe if rev is None else committed
    if vector is not None and vector not in recipe.by_name:
        where = "recipe.toml" if rev is None else rev
        raise UnknownName(f"{where} has no vector named {quoted(vector)}{_names(recipe)}")
    found = origins(history, commit)
    if recipe is not committed:
        found = _since(committed, recipe, found)
    origin = _Origins(history, found)
    rules = rules_view(recipe.rules)
    return Blame(
        revision=None if rev is None else commit,
        base=origin.of((None, "base"), recipe.base),
        rules={} if vector else {axis: origin.of((None, axis), value) for axis, value in rules.items()},
        vectors={
            name: {
                key: origin.of((name, _FIELDS[key]), value)
                for key, value in {"name": name, **term_keys(term)}.items()
            }
            for name, term in recipe.by_name.items()
            if vector in (None, name)
        },
        base_name=history.base_name(recipe.base),
    )


class _Origins:
    """Makes `Origin`s; each commit is read once."""

    def __init__(self, history: History, found: dict[Key, str]) -> None:
        self._history = history
        self._found = found
        self._facts: dict[str, tuple[Author, str, str]] = {}

    def of(self, key: Key, value: Any) -> Origin:
        """The origin of a key with its value."""
        id = self._found.get(key)
        if id is None:
            return Origin(value, None, None, None, None)
        if id not in self._facts:
            commit = self._history.commit(id)
            author = Author(commit.author.name, commit.author.email)
            self._facts[id] = author, iso_date(commit.author), commit.subject
        return Origin(value, id, *self._facts[id])


def _since(before: Recipe, after: Recipe, found: dict[Key, str]) -> dict[Key, str]:
    """The origins of the values that an edited recipe still has."""
    was, now = _values(before), _values(after)
    old_names = {new: old for old, new in same_terms(before.by_name, after.by_name).items()}
    kept: dict[Key, str] = {}
    for (name, what), value in now.items():
        old = name if name is None else old_names.get(name)
        if (old, what) in was and was[old, what] == value:
            kept[name, what] = found[old, what]
    return kept


def _values(recipe: Recipe) -> dict[Key, Any]:
    values: dict[Key, Any] = {(None, "base"): recipe.base}
    values |= {(None, axis): value for axis, value in recipe.rules.to_json().items()}
    for term in recipe.terms:
        values |= {(term.name, what): value for what, value in term.to_json().items()}
    return values


def _names(recipe: Recipe) -> str:
    return f"; it has {', '.join(recipe.by_name)}" if recipe.terms else ""
