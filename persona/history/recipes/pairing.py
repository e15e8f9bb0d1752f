"""Which terms of two recipes, or of three, are the same.

A vector's id says which term is which, so a term is found again under another name. A term whose vector was
replaced keeps its name. If a vector stands in a recipe twice, its terms are told apart by their names, then
by their other values.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from persona.objects.recipe import Term

Terms = Mapping[str, Term]
"""The terms of a recipe by name."""


class Slot(NamedTuple):
    """One term on three sides; None for a side that does not have it."""

    base: Term | None
    theirs: Term | None
    ours: Term | None


_KEYS: Final[tuple[Callable[[Term], Any], ...]] = (
    lambda term: (term.vector, term.name),
    lambda term: replace(term, name=""),
    lambda term: term.vector,
)


def same_vectors(one: Terms, other: Terms) -> dict[str, str]:
    """The name in `one` → the name in `other` of each term whose vector both have."""
    found: dict[str, str] = {}
    for key in _KEYS:
        left: dict[Any, list[str]] = {}
        for name in sorted(other.keys() - set(found.values())):
            left.setdefault(key(other[name]), []).append(name)
        for name in sorted(one.keys() - found.keys()):
            if same := left.get(key(one[name])):
                found[name] = same.pop(0)
    return found


def same_terms(before: Terms, after: Terms) -> dict[str, str]:
    """The name before → the name after of each term that is there before and after."""
    found = same_vectors(before, after)
    taken = set(found.values())
    return found | {
        name: name for name in before if name not in found and name in after and name not in taken
    }


def slots(base: Terms, theirs: Terms, ours: Terms) -> list[Slot]:
    """The terms of three recipes, each once.

    If both sides have the same new vector, it is one term, also under two names: then it does not replace
    the vector that had one of these names.
    """
    come, here = same_vectors(base, theirs), same_vectors(base, ours)
    new_theirs = {name: theirs[name] for name in theirs.keys() - set(come.values())}
    new_ours = {name: ours[name] for name in ours.keys() - set(here.values())}
    both = same_vectors(new_theirs, new_ours)
    back = {here: there for there, here in both.items()}
    found: list[Slot] = []
    for name, term in base.items():
        in_theirs = name not in come and name in new_theirs
        in_ours = name not in here and name in new_ours
        together = in_theirs and in_ours and both.get(name) == name
        if in_theirs and (together or name not in both):
            come[name] = name
        if in_ours and (together or name not in back):
            here[name] = name
        found.append(Slot(term, _of(theirs, come.get(name)), _of(ours, here.get(name))))
    for name in sorted(new_theirs.keys() - set(come.values())):
        found.append(Slot(None, theirs[name], _of(ours, both.get(name))))
    taken = set(here.values()) | set(both.values())
    found += [Slot(None, None, ours[name]) for name in sorted(new_ours.keys() - taken)]
    return found


def _of(terms: Terms, name: str | None) -> Term | None:
    return None if name is None else terms[name]


def free_name(name: str, taken: Container[str]) -> str:
    """A name that is not taken: the given one with the first number that makes it so."""
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"
