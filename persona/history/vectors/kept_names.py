"""**kept name** — a ref for a vector that no commit holds, so that it can be found."""

from __future__ import annotations

import re
from itertools import count

from persona.errors import InvalidInput
from persona.history.history import History, reason
from persona.objects.names import check_ref_name
from persona.objects.recipe import Recipe
from persona.store.refs import VECTORS, Change


def keep(history: History, name: str, id: str) -> str | None:
    """Gives a vector that no commit holds a kept name, and returns it.

    So the vector can be found even if `recipe.toml` loses it. Returns None if HEAD's recipe holds the vector.
    If another vector has the name, that one moves to the next free name, NAME-2.
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
    person = history.committer()
    changes = [Change(ref, id, old, reason(person, f"add: {name}"))]
    if old is not None:
        number = next(n for n in count(2) if f"{plain}-{n}".casefold() not in taken)
        why = reason(person, f"add: another {name} came")
        changes.append(Change(f"{VECTORS}{plain}-{number}", old, None, why))
    refs.update_all(changes)
    return ref.removeprefix(VECTORS)


def release(history: History, recipe: Recipe) -> None:
    """Takes the kept names of vectors that a commit with this recipe holds."""
    refs = history.store.refs
    held = {term.vector for term in recipe.terms}
    kept = {ref: id for ref, id in refs.list(VECTORS).items() if id in held}
    if kept:
        why = reason(history.committer(), "commit: holds it now")
        refs.update_all([Change(ref, None, id, why) for ref, id in kept.items()])


def _as_ref(name: str) -> str:
    """A vector's name with a dash for each character that no ref may hold."""
    name = re.sub(r"[\x00-\x20\x7f~^:?*\[\\/]|\.\.|@\{", "-", name).strip(".-")
    name = re.sub(r"(\.lock)+$", "", name, flags=re.IGNORECASE)
    try:
        return check_ref_name(name)
    except InvalidInput:
        return "vector"
