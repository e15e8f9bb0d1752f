"""Commits as `log` shows them, with the names that point at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona.history.history import History
from persona.objects.commit import Commit
from persona.store.refs import HEADS, TAGS, NoteList

if TYPE_CHECKING:
    from persona.history.query_results import CommitEntry
from persona.history.recipes.views import recipe_view


class Entries:
    """Makes `CommitEntry`s; the names that point at each commit are read once."""

    def __init__(self, history: History, notes: NoteList | None = None) -> None:
        self.history = history
        self._notes = notes
        self._names: dict[str, list[str]] | None = None

    def of(self, id: str, commit: Commit | None = None) -> CommitEntry:
        """The entry of a commit."""
        from persona.history.query_results import CommitEntry

        history = self.history
        commit = commit or history.commit(id)
        tree = commit.tree
        return CommitEntry(
            id=id,
            commit=commit,
            refs=tuple(self._pointing().get(id, ())),
            read_recipe=lambda: recipe_view(history.recipe(history.tree(tree).recipe)),
        )

    def _pointing(self) -> dict[str, list[str]]:
        if self._names is None:
            self._names = {}
            head = self.history.head_or_name()
            if head.id:
                self._names[head.id] = [f"HEAD -> {head.branch}" if head.branch else "HEAD"]
            for name, id in self.history.names(HEADS, self._notes).items():
                if name.removeprefix(HEADS) != head.branch:
                    self._names.setdefault(id, []).append(name.removeprefix(HEADS))
            for name, id in self.history.names(TAGS, self._notes).items():
                commit, _ = self.history.peeled(id)
                self._names.setdefault(commit, []).append(f"tag: {name.removeprefix(TAGS)}")
        return self._names
