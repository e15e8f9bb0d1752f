"""An import of a model that was trained from a revision, `--onto REV`: what must hold, and what to say.

The vector is the difference to the weights of REV. So a recipe gives the trained weights only if it has the
vectors of REV beside the new one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from persona.errors import InvalidInput, Keyword, Refused
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.options import ImportOptions
from persona.history.planning import plan_of
from persona.history.recipes.text import RECIPE_FILE
from persona.history.vectors.patched import whole
from persona.intake.parts import Held, View
from persona.measure.difference import largest_difference
from persona.merge.plan import Plan
from persona.objects.recipe import Recipe
from persona.store.refs import NoteList
from persona.weights.checkpoint import Checkpoint


def plan_before(history: History, recipe: Recipe, rev: str, notes: NoteList) -> Plan:
    """The plan of the revision that a model was trained from."""
    onto = history.recipe_of(resolve(history, rev, notes))
    if history.base(onto.base).digest != history.base(recipe.base).digest:
        raise InvalidInput(f"that revision, {rev}, has another base than {RECIPE_FILE}", parameter="onto")
    return plan_of(history, onto)


def refuse_replacing(recipe: Recipe, name: str, onto: Recipe, rev: str) -> None:
    """`Refused` if the vector that was trained from `rev` would replace one that `rev` itself has.

    Without the old vector, the new one would be added to other weights than those that it was trained from.
    """
    old = recipe.by_name.get(name)
    if old is None or not is_replaced(recipe, name, onto):
        return
    raise Refused(
        f"{name} is a part of {rev}, from which the new vector was trained: without the old {name}, its"
        " training would be lost",
        hint=(Keyword(name=free_name(name, {*recipe.by_name, *onto.by_name})), " keeps both"),
    )


def is_replaced(recipe: Recipe, name: str, onto: Recipe) -> bool:
    """Whether a new vector `name` takes a vector of `onto` out of the recipe."""
    old = recipe.by_name.get(name)
    others = {term.vector for term in recipe.terms if term.name != name}
    return (
        old is not None and old.vector not in others and any(term.vector == old.vector for term in onto.terms)
    )


def free_name(name: str, taken: Collection[str]) -> str:
    """The first of NAME-2, NAME-3, … that is free; for NAME-2 it is NAME-3."""
    found = re.fullmatch(r"(.+)-(\d{1,9})", name)
    stem, count = (found[1], int(found[2])) if found else (name, 1)
    while (free := f"{stem}-{count + 1}") in taken:
        count += 1
    return free


def difference(
    history: History, path: Path, held: Mapping[str, Held], before: Plan, options: ImportOptions
) -> float | None:
    """The largest |difference| between the weights of HEAD and those that were imported from `path`.

    `held`: the tensors of the import by the names of the base. None if no tensor can be compared. Raises as
    `Checkpoint.open`.
    """
    with Checkpoint.open(path) as checkpoint:
        weights = whole(history, before.recipe.base, checkpoint, before, options)
        found = largest_difference(
            plan_of(history, history.recipe_of(history.head_commit())),
            View(weights, held),
            threads=options["threads"],
            memory=history.memory(),
            progress=options["progress"],
        )
        checkpoint.check_unchanged()
    return found
