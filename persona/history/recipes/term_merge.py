"""The terms of three recipes, merged: each term key by key, its name like any other value.

If two terms would get the same name, that is a conflict. Both stay: ours has the name, and the other stands
under a name of its own until somebody decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from persona.history.recipes.conflicts import TERM_FIELDS, Conflict, Decisions, Strategy
from persona.history.recipes.pairing import Slot, Terms, free_name, slots
from persona.history.recipes.text import RECIPE_FILE
from persona.objects.recipe import Term


def merge_terms(base: Terms, theirs: Terms, ours: Terms, decisions: Decisions) -> list[Term]:
    """Our terms with the change from `base` to `theirs`, and with our value where nothing decides."""
    found = slots(base, theirs, ours)
    quiet = decisions.quiet()
    names = _unique(found, [_name(slot, quiet) for slot in found], decisions.strategy)
    merged = [_merged(slot, name, decisions) for slot, name in zip(found, names, strict=True)]
    return [term for term in merged if term is not None]


class _Name(NamedTuple):
    """The name of a term in the result, or of one that a conflict leaves out.

    `conflict`: another term has the name that this one should get. `dropped`: none of the terms that would
    have the name is in the result.
    """

    name: str
    conflict: Conflict | None = None
    dropped: bool = False


def _name(slot: Slot, decisions: Decisions) -> str | None:
    """The name that a term gets if there is no other; None if it is not there."""
    if slot.theirs is None or slot.ours is None:
        term = decisions.term("", *slot)
        return None if term is None else term.name
    name: str | None = decisions.key("", slot.base, slot.theirs, slot.ours, "name")
    return name


def _unique(found: Sequence[Slot], names: list[str | None], strategy: Strategy | None) -> list[_Name]:
    """The names of all terms, none twice."""
    there = [name is not None for name in names]
    if strategy == "base":
        _go_back(found, names)
    taken = {name for name in names if name is not None}
    conflicts: dict[int, Conflict] = {}
    for name in sorted(taken):
        same = [at for at, other in enumerate(names) if other == name]
        if len(same) < 2:
            continue
        # Each side has the name once: for one of the two terms it is ours, for the other theirs.
        same.sort(key=lambda at: _name_in(found[at].ours) != name)
        stays, moves = same if strategy != "theirs" else same[::-1]
        other = found[moves].theirs if strategy == "theirs" else found[moves].ours
        its = other.name if other is not None and other.name not in taken else free_name(name, taken)
        names[moves] = its
        taken.add(its)
        if strategy not in ("ours", "theirs"):
            conflicts[moves] = _conflict(found[moves], found[stays], its, name)
    result = []
    for at, (slot, final) in enumerate(zip(found, names, strict=True)):
        dropped = final is None and there[at]
        if final is None:
            final = _name_in(slot.theirs) or _name_in(slot.ours) or _name_in(slot.base) or ""
            final = free_name(final, taken) if final in taken else final
        result.append(_Name(final, conflicts.get(at), dropped))
    return result


def _go_back(found: Sequence[Slot], names: list[str | None]) -> None:
    """Gives terms with the same name the names that they had before; a new one is then not there."""
    while True:
        there = [name for name in names if name is not None]
        doubled = [at for at, name in enumerate(names) if name is not None and there.count(name) > 1]
        if not doubled:
            return
        for at in doubled:
            names[at] = _name_in(found[at].base)


def _name_in(term: Term | None) -> str | None:
    return None if term is None else term.name


def _conflict(slot: Slot, holder: Slot, name: str, wanted: str) -> Conflict:
    """The conflict about a name that both a term of theirs and one of ours should get."""
    its, ours = slot.theirs, holder.ours
    return Conflict(
        RECIPE_FILE,
        f"vectors.{name}.name",
        _name_in(slot.base),
        wanted,
        _name_in(slot.ours),
        "name",
        detail=_name_in(holder.theirs) or "",
        vector="" if its is None else its.vector,
        holder="" if ours is None else ours.vector,
    )


def _merged(slot: Slot, name: _Name, decisions: Decisions) -> Term | None:
    """The term under its name, and the conflicts about it."""
    base, theirs, ours = slot
    path, before = f"vectors.{name.name}", len(decisions.found)
    if theirs is None or ours is None:
        term = decisions.term(name.name, base, theirs, ours)
    else:
        fields = {key: field for key, field in TERM_FIELDS.items() if key != "name" or not name.conflict}
        term = replace(
            ours,
            **{
                field: decisions.key(f"{path}.{key}", base, theirs, ours, field)
                for key, field in fields.items()
            },
        )
    if name.conflict is not None:
        decisions.found.append(name.conflict)
    known = term or theirs or ours or base
    if known is not None:
        decisions.found[before:] = [replace(one, vector=known.vector) for one in decisions.found[before:]]
    return None if term is None or name.dropped else replace(term, name=name.name)
