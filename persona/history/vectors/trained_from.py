"""Vectors that were trained from a revision: whether a recipe has beside them what they were trained from.

A note keeps the vectors of that revision. So a command that takes one of them away can say so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from persona.errors import Call, Hint, Note, PersonaError, listed
from persona.history import note_refs
from persona.history.history import History
from persona.history.planning import plan_of
from persona.history.recipes import joining
from persona.history.recipes.text import RECIPE_FILE
from persona.objects.ids import abbreviate, is_id
from persona.objects.note import Note as StoredNote
from persona.objects.recipe import Recipe, Term

if TYPE_CHECKING:
    from persona.merge.plan import Plan

_ALPHA: Final = "α"
_FROM: Final = "trained_from"
"""The key of a note on the vectors of the revision that a vector was trained from."""
_OTHERS: Final = "the computed weights will not be the trained ones"


def unlike(history: History, recipe: Recipe, onto: Plan, rev: str) -> list[Note]:
    """The sentence on a recipe whose vectors of the revision do not give the revision's weights."""
    before = onto.recipe.terms
    known = {term.vector for term in before}
    own = [term for term in recipe.terms if term.vector in known]
    part = plan_of(history, Recipe.of(recipe.base, own, recipe.rules))
    if has_keys_of(part, onto, onto.by_name):
        return []
    has = {term.vector: term for term in own}
    lost = [term.name for term in before if term.vector not in has]
    found = [f"lacks {listed(lost)} of {rev}"] if lost else []
    hint: Hint | None = None
    for term in before:
        mine = has.get(term.vector, term)
        if keys := _differing(mine, term):
            found.append(f"has {mine.name} with another {' and '.join(keys)} than {rev}")
            if keys == [_ALPHA] and len(found) == 1:
                hint = (Call("recipe.set", mine.name, alpha=term.alpha), f" gives it that of {rev}")
    if recipe.rules != onto.recipe.rules:
        found.append(f"has other merge rules than {rev}")
    if len(own) > len(has):
        found.append(f"has a vector of {rev} twice")
    said = f"it was trained from {rev}, and {RECIPE_FILE} {', and '.join(found)}: {_OTHERS}"
    return [Note(said, hint if len(found) == 1 else None)]


def has_keys_of(one: Plan, other: Plan, names: Iterable[str]) -> bool:
    """Whether two plans compute some tensors in the same way."""
    tensors = [(one.by_name.get(name), other.by_name.get(name)) for name in names]
    return all(a is not None and b is not None and a.key == b.key for a, b in tensors)


def _differing(one: Term, other: Term) -> list[str]:
    """The keys of two terms of a vector that differ, in words."""
    return [
        word
        for word, a, b in (
            (_ALPHA, one.alpha, other.alpha),
            ("density", one.density, other.density),
            ("filter", (one.only, one.except_), (other.only, other.except_)),
            ("join", one.join, other.join),
        )
        if a != b
    ]


# -- what is known of it later


def remember(history: History, id: str, onto: Plan) -> None:
    """Keeps a note on the vectors of the revision that a vector was trained from."""
    if before := sorted({term.vector for term in onto.recipe.terms}):
        note_refs.keep(history, StoredNote(id, "vector", "provenance", {_FROM: before}))


def trained_from(history: History) -> dict[str, set[str]]:
    """The vectors that were trained from a revision, each with the vectors of that revision.

    If a vector has no note on these, the note on its training may name the commit.
    """
    found: dict[str, set[str]] = {}
    notes = note_refs.all_of(history, "provenance")
    for one in notes:
        before = one.data.get(_FROM)
        if isinstance(before, list):
            found.setdefault(one.about, set()).update(map(str, before))
    for one in notes:
        commit = one.data.get("onto")
        if one.about not in found and isinstance(commit, str) and is_id(commit):
            with suppress(PersonaError):  # the commit may be gone
                found[one.about] = {term.vector for term in history.recipe_of(commit).terms}
    return found


def carry_over(history: History, ids: Mapping[str, str]) -> None:
    """Keeps these notes for vectors that take the place of others on another base: old id → new id."""
    for about, before in trained_from(history).items():
        if about in ids:
            moved = sorted({ids.get(id, id) for id in before})
            note_refs.keep(history, StoredNote(ids[about], "vector", "provenance", {_FROM: moved}))


def left_behind(history: History, after: Recipe, *before: Recipe, besides: Collection[str] = ()) -> list[str]:
    """The sentences on vectors of a new recipe that were trained from vectors which it lacks.

    `before`: the recipes that the new one was made from. It says nothing of a vector that none of them has.
    `besides`: names of terms that no sentence is about.
    """
    held = {term.vector for term in after.terms}
    gone = {
        term.vector: term.name
        for recipe in reversed(before)
        for term in recipe.terms
        if term.vector not in held
    }
    known = trained_from(history) if gone and held else {}
    notes: list[str] = []
    for term in after.terms if known else ():
        start = _start_of(history, term.vector, known) if term.name not in besides else set()
        lost = {id: name for id, name in gone.items() if id in start}
        if lost:
            names = [f"the old {name}" if name in after.by_name else name for name in lost.values()]
            said = f"{term.name} was trained from {listed(names)}, which {RECIPE_FILE} lacks: {_OTHERS}"
            back: Hint | None = None
            if len(lost) == 1 and not after.by_name.keys() & lost.values():
                back = (Call("vectors.take", abbreviate(*lost)), " brings it back")
            notes.append(Note(said, back))
    return notes


def left_behind_at(
    history: History, to: str | None, *commits: str | None, besides: Collection[str] = ()
) -> list[str]:
    """`left_behind` for the recipe of the commit `to`, made from those of other commits.

    Says nothing if a commit cannot be read: HEAD may leave a damaged one.
    """
    if to is None or all(each in (None, to) for each in commits):
        return []
    with suppress(PersonaError):
        before = [history.recipe_of(each) for each in commits if each is not None]
        return left_behind(history, history.recipe_of(to), *before, besides=besides)
    return []


def _start_of(history: History, id: str, known: Mapping[str, set[str]]) -> set[str]:
    """The vectors that a vector was trained from, or a part of its expression."""
    if id in known:
        return known[id]
    with suppress(PersonaError):  # a damaged vector can still be replaced
        return {each for part, _ in history.vector(id).expression for each in known.get(part, ())}
    return set()


def rejoined(history: History, recipe: Recipe, old: Term, keys: dict[str, Any]) -> list[Note]:
    """Lets a vector join as a new one does, if the old one of its term was trained from a revision.

    `keys`: those that the command sets. Sets `join` there, or says that the term keeps its own.
    """
    from persona.history.recipes.edit import UNSET

    alpha, density = keys.get("alpha") or old.alpha, keys.get("density") or old.density
    fresh = joining.new_term(recipe.rules, {"alpha": alpha, "density": density})
    if old.join != "add" or fresh.get("join") == "add":
        return []
    if _start_of(history, old.vector, trained_from(history)):
        keys["join"] = UNSET
        again = (Call("recipe.set", old.name, join="add"), " has it added instead")
        return [Note(f"{old.name} votes: only the old one was trained from a revision", again)]
    hint = (Call("recipe.set", old.name, join="vote"), " lets it vote")
    return [Note(f'{old.name} does not vote, as before (join = "add")', hint)]
