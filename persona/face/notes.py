"""The notes on the commits of an open repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from persona.face.collection import Collection
from persona.face.verb import Verb
from persona.history import verbs
from persona.history.arguments import checks_arguments
from persona.objects.ids import abbreviate

if TYPE_CHECKING:
    from persona.history.verbs.notes import CommitNote


@checks_arguments
class Notes(Collection[str]):
    """What people wrote about commits after they were made: commit id → text. `repo.notes["HEAD~1"]` works.

    Scores and other facts that persona learned about a commit are not among them.
    """

    kind: ClassVar[str] = "note"

    add = Verb(lambda: verbs.notes.add_note)
    append = Verb(lambda: verbs.notes.append_note)
    remove = Verb(lambda: verbs.notes.remove_notes)
    of = Verb(lambda: verbs.notes.note)

    def all(self) -> list[CommitNote]:
        """The notes with the ids of their commits, in order of ids."""
        self._history.require_open()
        return verbs.notes.notes(self._history)

    def __getitem__(self, rev: str) -> str:
        """The text of the note on a commit, by revision. Raises `UnknownName` if it has none."""
        self._history.require_open()
        return verbs.notes.note(self._history, rev).text

    def _read(self) -> dict[str, str]:
        return {one.id: one.text for one in self.all()}

    def _shown(self) -> list[str]:
        return [abbreviate(id) for id in self]
