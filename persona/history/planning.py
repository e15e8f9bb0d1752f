"""The plan of a recipe, with the manifests that it needs read from the repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona.errors import IntegrityError
from persona.history.history import History
from persona.objects.ids import abbreviate
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import Rules
from persona.objects.vector import Vector

if TYPE_CHECKING:
    from persona.merge.plan import Plan


def plan_of(history: History, recipe: Recipe) -> Plan:
    """The plan of a recipe; no chunk is read. Raises the errors of `merge.plan.plan`."""
    from persona.merge.plan import plan

    return plan(history.store, recipe, history.base(recipe.base), manifests(history, recipe))


def grown_base(history: History, recipe: Recipe) -> Recipe:
    """The base as the vectors of a recipe grow it (`persona.objects.growth`): these vectors, at α = 0."""
    from persona.objects import growth

    vectors = growth.vectors_of(recipe, history.vector)
    names = {name for name, vector in vectors if vector.grown}
    terms = [Term(term.name, term.vector, "0") for term in recipe.terms if term.name in names]
    return Recipe.of(recipe.base, terms, Rules.of("linear"))


def manifests(history: History, recipe: Recipe) -> dict[str, Vector]:
    """The manifests of a recipe's vectors, and of the vectors that its expressions are made of, by id.

    Raises `IntegrityError` if one is missing.
    """
    found = {term.vector: history.vector(term.vector) for term in recipe.terms}
    for id, vector in list(found.items()):
        for part, _ in vector.expression:
            found[part] = part_of(history, id, vector, part)
    return found


def part_of(history: History, id: str, expression: Vector, part: str) -> Vector:
    """The manifest of a vector that the expression `id` is made of.

    Raises `IntegrityError` if it is missing, is an expression itself, or belongs to another base.
    """
    try:
        vector = history.vector(part)
    except IntegrityError as error:
        error.message += f"; the expression {abbreviate(id)} is made of it"
        raise
    problem = None
    if vector.kind == "expression":
        problem = "is an expression itself"
    elif vector.base != expression.base:
        problem = f"belongs to {history.base_words(vector.base)}"
    if problem:
        raise IntegrityError(
            f"the expression {abbreviate(id)} is made of the vector {abbreviate(part)}, which {problem}",
            kind="vector",
            id=id,
        )
    return vector
