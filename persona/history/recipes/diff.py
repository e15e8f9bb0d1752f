"""The difference between two recipes."""

from __future__ import annotations

from typing import Any

from persona.history.recipes.pairing import same_terms
from persona.history.recipes.views import rules_view, term_keys
from persona.history.results import TermChange
from persona.objects.recipe import Recipe, Term


def diff_recipes(
    before: Recipe | None, after: Recipe | None
) -> tuple[dict[str, dict[str, Any]], list[TermChange]]:
    """The rules and the terms that differ; None stands for no recipe at all."""
    return _rules(before, after), _terms(before, after)


def _rules(before: Recipe | None, after: Recipe | None) -> dict[str, dict[str, Any]]:
    old: dict[str, Any] = {"base": before.base, **rules_view(before.rules)} if before else {}
    new: dict[str, Any] = {"base": after.base, **rules_view(after.rules)} if after else {}
    keys = dict.fromkeys([*old, *new])
    return {key: {"from": old.get(key), "to": new.get(key)} for key in keys if old.get(key) != new.get(key)}


def _terms(before: Recipe | None, after: Recipe | None) -> list[TermChange]:
    old = before.by_name if before else {}
    new = after.by_name if after else {}
    names = same_terms(old, new)
    came = {new_name: old_name for old_name, new_name in names.items()}
    changes: list[TermChange] = []
    for name, term in new.items():
        if name not in came:
            changes.append(TermChange(name, "added", {}, term_keys(term)))
        elif old[came[name]] != term:
            was, now = _named(old[came[name]]), _named(term)
            differing = [key for key in now if was[key] != now[key]]
            change = "renamed" if "name" in differing else "changed"
            sides = ({key: side[key] for key in differing} for side in (was, now))
            changes.append(TermChange(name, change, *sides))
    return changes + [
        TermChange(name, "removed", term_keys(term), {}) for name, term in old.items() if name not in names
    ]


def _named(term: Term) -> dict[str, Any]:
    return {"name": term.name, **term_keys(term)}
