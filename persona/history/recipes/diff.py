"""The difference between two recipes."""

from __future__ import annotations

from typing import Any

from persona.history.recipes.views import rules_view, term_keys
from persona.history.results import TermChange
from persona.objects.recipe import Recipe


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
    changes: list[TermChange] = []
    for name in dict.fromkeys([*new, *old]):
        was = term_keys(old[name]) if name in old else {}
        now = term_keys(new[name]) if name in new else {}
        if was == now and (name in old) == (name in new) and (not was or old[name] == new[name]):
            continue
        change = "changed" if was and now else "added" if now else "removed"
        if change == "changed":
            differing = [key for key in now if was[key] != now[key]]
            was = {key: was[key] for key in differing}
            now = {key: now[key] for key in differing}
        changes.append(TermChange(name, change, was, now))
    return changes
