"""The commits that explain how some files came to be as they are, as `git log -- FILE` finds them.

A merge that has the files of one of its parents explains nothing, and the other parents explain nothing that
is left: the walk goes on to that parent alone. Any other commit is shown if its files differ from those of
its parents.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from persona.history.history import History
from persona.history.names.walk import walk_onward
from persona.objects import commit as commits

_MOST_HELD: Final = 4096
"""Commits and trees that are remembered at most."""
Chosen = tuple[tuple[str, str | None], ...]
"""The files that the walk is about: paths and blob ids."""


def walk_files(
    history: History,
    starts: Iterable[str],
    hidden: Iterable[str],
    among: Callable[[str], bool],
    *,
    first_parent: bool = False,
) -> Iterator[str]:
    """The commits that changed the files that are `among` those asked about, newest first."""
    files, hidden = _Files(history, among), tuple(hidden)
    shown: set[str] = set()

    def onward(id: str, parents: tuple[str, ...], wanted: Collection[str] | None) -> tuple[str, ...]:
        if first_parent:
            parents = parents[:1]
        mine = files.of(id)
        counts = [parent for parent in parents if wanted is None or parent in wanted or parent in hidden]
        """The parents to compare: with none behind a hidden commit, unless there are no others, as in git."""
        differs = bool(mine) if not parents else False
        for parent in counts or parents:
            if files.of(parent) != mine:
                differs = True
            elif counts:
                return (parent,)
        if differs:
            shown.add(id)
        return parents

    for id, _ in walk_onward(history, starts, hidden, onward):
        if id in shown:
            yield id


class _Files:
    """The chosen files of commits. A tree is read once, and no more of a commit than its tree."""

    def __init__(self, history: History, among: Callable[[str], bool]) -> None:
        self._history = history
        self._among = among
        self._matches: dict[str, bool] = {}
        self._trees: dict[str, str] = {}
        """Commit → its tree."""
        self._chosen: dict[str, Chosen] = {}
        """Tree → its chosen files."""
        self._bases: dict[str, dict[str, str]] = {}
        """Recipe or base → the chosen files of the base."""

    def of(self, commit: str) -> Chosen:
        """The chosen files of a commit."""
        tree = self._trees.get(commit)
        if tree is None:
            _limit(self._trees)
            data = self._history.store.objects.get(commit, "commit")
            tree = self._trees[commit] = commits.links(data)[0]
        found = self._chosen.get(tree)
        if found is None:
            _limit(self._chosen)
            found = self._chosen[tree] = self._read(tree)
        return found

    def _read(self, id: str) -> Chosen:
        value = json.loads(self._history.store.objects.get(id, "tree"))
        own = {path: blob for path, blob in value["files"].items() if self._is_chosen(path)}
        files = {**self._of_base(value["recipe"]), **own}
        return tuple(sorted((path, blob) for path, blob in files.items() if blob is not None))

    def _of_base(self, recipe: str) -> dict[str, str]:
        """The chosen files of the base of a recipe."""
        found = self._bases.get(recipe)
        if found is None:
            _limit(self._bases)
            base = json.loads(self._history.store.objects.get(recipe, "recipe"))["base"]
            if base not in self._bases:
                files = self._history.base(base).files
                self._bases[base] = {path: blob for path, blob in files.items() if self._is_chosen(path)}
            found = self._bases[recipe] = self._bases[base]
        return found

    def _is_chosen(self, path: str) -> bool:
        if path not in self._matches:
            self._matches[path] = self._among(path)
        return self._matches[path]


def _limit(held: dict[str, object] | dict[str, str] | dict[str, Chosen] | dict[str, dict[str, str]]) -> None:
    if len(held) >= _MOST_HELD:
        held.clear()
