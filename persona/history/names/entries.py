"""Commits as `log` shows them, with the names that point at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona.errors import IntegrityError
from persona.history.history import History
from persona.history.recipes.views import recipe_view
from persona.objects.commit import Commit
from persona.store.refs import HEADS, SCORES, TAGS, TEXTS, NoteList

if TYPE_CHECKING:
    from persona.history.query_results import CommitEntry
    from persona.history.score_results import Scores


class Entries:
    """Makes `CommitEntry`s; the names that point at each commit are read once."""

    def __init__(self, history: History, notes: NoteList | None = None) -> None:
        self.history = history
        self._notes = notes
        self._names: dict[str, list[str]] | None = None
        self._scored: set[str] | None = None
        self._noted: set[str] | None = None

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
            read_scores=lambda: self._scores_of(id),
            read_note=lambda: self._note_of(id),
        )

    def _scores_of(self, id: str) -> Scores | None:
        """The scores of a commit. If they are damaged, None, and a note says so."""
        notes: NoteList = [] if self._notes is None else self._notes
        if self._scored is None:
            self._scored = self.history.ref_names(SCORES, notes)
        if SCORES + id[:32] not in self._scored:
            return None  # without an import of what reads scores
        from persona.history.scores import readable

        return readable(self.history, id, notes)

    def _note_of(self, id: str) -> str | None:
        """The text of the note on a commit. If it is damaged, None, and a note says so."""
        notes: NoteList = [] if self._notes is None else self._notes
        if self._noted is None:
            self._noted = self.history.ref_names(TEXTS, notes)
        if TEXTS + id[:32] not in self._noted:
            return None
        from persona.history import note_refs

        try:
            return note_refs.text_of(self.history, id)
        except IntegrityError as error:
            notes.append(error.note)
            return None

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
