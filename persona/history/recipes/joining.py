"""How a vector joins the others if nobody says so: a new one that is subtracted does not vote.

In an election, the vectors that are added outvote a subtraction in many elements, so much of it is lost
(docs/decisions/037-subtractions-do-not-vote.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from persona.errors import Call, Note
from persona.objects.recipe import Recipe, Term, Value, values
from persona.objects.rules import Rules


def new_term(rules: Rules, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a new term: α is 1 unless they say otherwise, and a subtraction gets `join = "add"`.

    It votes if the keys have a density, for which only a vote has a use, or if the rules elect nobody.
    """
    found = {**keys, "alpha": keys.get("alpha") or "1"}
    if subtracts(found["alpha"]) and not keys.get("density") and rules.elect != "none":
        found.setdefault("join", "add")
    return found


def subtracts(alpha: Value) -> bool:
    """Whether a term with this α takes its vector away: below 0 in some layer, and above 0 in none."""
    numbers = [Decimal(number) for number in values(alpha)]
    return min(numbers) < 0 and max(numbers) <= 0


def notes(before: Recipe, after: Recipe, name: str) -> list[str]:
    """The note on a term that a command made a subtraction: that it does not vote, or that it does."""
    old, new = before.by_name.get(name), after.by_name[name]
    if not subtracts(new.alpha) or (old is not None and subtracts(old.alpha)):
        return []
    if new.join == "add":
        hint = (Call("recipe.set", name, join="vote"), " lets it vote")
        return [Note(f'{name} is subtracted, so it does not vote (join = "add")', hint)] if not old else []
    if not _outvoted(after, new):
        return []
    hint = (Call("recipe.set", name, join="add"), " subtracts all of it")
    return [Note(f"{name} is subtracted by vote, and the others can outvote it", hint)]


def _outvoted(recipe: Recipe, term: Term) -> bool:
    """Whether other terms vote beside one that has no density of its own."""
    others = [other for other in recipe.terms if other.join == "vote" and other is not term]
    return recipe.rules.elect != "none" and term.density is None and bool(others)
