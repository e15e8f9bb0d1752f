"""The origin of each value of a recipe: the commit that set it.

The rule is git's for lines: a key goes to the first parent that has the same value. If no parent has it, the
commit is the origin. A vector that was renamed is followed under its old name.

A walk may go through the whole history, so it reads no more of a commit than its tree and its parents, and it
keeps what it finds in `cache/`. The next walk ends at the commits that are known.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping
from typing import Any, Final

from persona.history.history import History
from persona.history.recipes.pairing import same_terms
from persona.objects import commit as commits

Key = tuple[str | None, str]
"""The name of a vector, or None for the rules and the base; and a field of the recipe's canonical form."""
Group = dict[Key, tuple[Key, ...]]
"""A key of an ancestor's recipe → the keys of the recipe that was asked about. Its vector may have another
name there, even two."""

_CACHE: Final = "origins-2"
_ABSENT: Final = object()
_EVERY: Final = 1000
"""Commits between two that are remembered."""
_MOST: Final = 4096
"""Commits that are remembered at most."""
_MOST_HELD: Final = 4096
"""Recipes that are held in memory at most."""


def origins(history: History, commit: str) -> dict[Key, str]:
    """The origin of each key of a commit's recipe."""
    return _Walk(history).all_of(commit)


class _Walk:
    """One walk down from a commit. All keys with the same way go together."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._read: dict[str, tuple[bytes, str, list[str]]] = {}
        """Commits that were read and not walked: their bytes, recipes and parents."""
        self._recipes: dict[str, str] = {}
        """Tree → its recipe."""
        self._values: dict[str, dict[Key, Any]] = {}
        """Recipe → its values."""
        self._changes: dict[tuple[str, str], dict[Key, Key | None]] = {}
        """Two recipes → `_changed`."""

    def all_of(self, commit: str) -> dict[Key, str]:
        """The origin of each key of a commit's recipe."""
        known = _remembered(self._history)
        keys = self._values_of(self._commit(commit)[1])
        waiting: dict[str, Group] = {commit: {key: (key,) for key in keys}}
        passed = [(commit, waiting[commit])]
        queue, steps = [(0, commit)], 0
        found: dict[Key, str] = {}
        while queue:
            id = heapq.heappop(queue)[1]
            group = waiting.pop(id, None)
            if group is None:
                continue  # two children sent keys here, and both are done
            self._history.require_open()
            steps += 1
            if here := known.get(id):
                found |= {asked: here[key] for key in group if key in here for asked in group[key]}
                group = {key: group[key] for key in group if key not in here}
            if steps % _EVERY == 0:
                passed.append((id, group))
            onward, rest = self._divided(id, group)
            if rest:
                found |= {asked: id for all_asked in rest.values() for asked in all_asked}
            alone = len(onward) == 1 and not waiting
            for parent, keys in onward.items():
                # The newest goes first, so that keys that parted meet again. One alone needs no order.
                time = 0 if alone else commits.committer_time(self._commit(parent)[0])
                if parent in waiting:
                    keys = _together(waiting[parent], keys)
                waiting[parent] = keys
                heapq.heappush(queue, (-time, parent))
        if steps >= _EVERY:
            for id, group in passed:
                known.setdefault(id, {}).update((key, found[asked[0]]) for key, asked in group.items())
            _remember(self._history, known)
        return found

    def _divided(self, id: str, group: Group) -> tuple[dict[str, Group], Group]:
        """The keys that go on to each parent, and those that have their origin here."""
        _, mine, parents = self._commit(id)
        del self._read[id]
        onward: dict[str, Group] = {}
        for parent in parents:
            if not group:
                break
            theirs = self._commit(parent)[1]
            if theirs == mine or group.keys().isdisjoint(changed := self._changed(mine, theirs)):
                return {**onward, parent: group}, {}
            passed: Group = {}
            for key, asked in group.items():
                before = changed.get(key, key)
                if before is not None:
                    passed[before] = (*passed.get(before, ()), *asked)
            if passed:
                onward[parent] = passed
                group = {key: asked for key, asked in group.items() if changed.get(key, key) is None}
        return onward, group

    def _changed(self, mine: str, theirs: str) -> dict[Key, Key | None]:
        """The keys of a recipe that another one has with another value (None), or under another name."""
        found = self._changes.get((mine, theirs))
        if found is not None:
            return found
        if len(self._changes) >= _MOST_HELD:
            self._changes.clear()
        here, there = self._values_of(mine), self._values_of(theirs)
        found = self._changes[mine, theirs] = {
            key: None for key, value in here.items() if there.get(key, _ABSENT) != value
        }
        if any(field == "vector" for _, field in found):
            before, after = (self._history.recipe(id).by_name for id in (theirs, mine))
            names = {new: old for old, new in same_terms(before, after).items()}
            for name, field in here:
                if name is None or (old := names.get(name)) == name:
                    continue
                same = old is not None and there[old, field] == here[name, field]
                found[name, field] = (old, field) if same else None
        return found

    def _commit(self, id: str) -> tuple[bytes, str, list[str]]:
        if id not in self._read:
            data = self._history.store.objects.get(id, "commit")
            tree, parents = commits.links(data)
            if tree not in self._recipes:
                self._recipes[tree] = self._history.tree(tree).recipe
            self._read[id] = data, self._recipes[tree], parents
        return self._read[id]

    def _values_of(self, id: str) -> dict[Key, Any]:
        found = self._values.get(id)
        if found is None:
            if len(self._values) >= _MOST_HELD:
                self._values.clear()
            data = self._history.store.objects.get(id, "recipe")
            try:
                found = _keys_of(json.loads(data))
            except (KeyError, TypeError, ValueError):
                found = _keys_of(json.loads(self._history.recipe(id).encode()))  # raises its error
            self._values[id] = found
        return found


def _keys_of(recipe: Mapping[str, Any]) -> dict[Key, Any]:
    """The values of a recipe in its canonical form, by key."""
    found: dict[Key, Any] = {(None, "base"): recipe["base"]}
    found |= {(None, axis): value for axis, value in recipe["rules"].items()}
    for term in recipe["terms"]:
        found |= {(term["name"], field): value for field, value in term.items()}
    return found


def _together(one: Group, other: Group) -> Group:
    """Two groups that meet at a commit."""
    return {key: (*one.get(key, ()), *other.get(key, ())) for key in {**one, **other}}


def _remembered(history: History) -> dict[str, dict[Key, str]]:
    """Commits of earlier walks, with the origins of some of their keys."""
    data = history.store.cache(_CACHE).read()
    if data is None:
        return {}
    commits: dict[str, list[list[Any]]] = json.loads(data)
    return {id: {(name, field): origin for name, field, origin in keys} for id, keys in commits.items()}


def _remember(history: History, known: Mapping[str, Mapping[Key, str]]) -> None:
    newest = list(known.items())[-_MOST:]
    value = {id: [[*key, origin] for key, origin in keys.items()] for id, keys in newest}
    history.store.cache(_CACHE).write(json.dumps(value).encode())
