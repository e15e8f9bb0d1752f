"""One commit of an open repository, with the calls that need a revision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Unpack

from persona import live as live_room
from persona.errors import UnknownName, quoted
from persona.face.verb import VerbAt
from persona.frozen import dataclass
from persona.history import verbs
from persona.history.arguments import checks_arguments
from persona.history.history import History
from persona.history.names.entries import Entries
from persona.history.names.revisions import resolve
from persona.history.query_results import CommitEntry
from persona.objects.ids import abbreviate

if TYPE_CHECKING:
    from persona.history.options import LiveOptions
    from persona.history.results import Diff
    from persona.live.model import LiveModel
    from persona.live.slots import Module


@checks_arguments
@dataclass(frozen=True, repr=False)
class Revision(CommitEntry):
    """A commit, from `repo["HEAD~1"]` or `repo.log()`.

    Its content never changes; its methods need the repository open.
    """

    _history: History = field(repr=False, compare=False)

    @classmethod
    def of(cls, history: History, entry: CommitEntry) -> Revision:
        """The revision of an entry."""
        return cls(
            entry.id, entry.commit, entry.refs, entry.read_recipe, entry.read_scores, entry.read_note, history
        )

    @classmethod
    def at(cls, history: History, rev: str) -> Revision:
        """The revision of that name."""
        return cls.of(history, Entries(history, history.notes).of(resolve(history, rev, history.notes)))

    @property
    def short_id(self) -> str:
        """The start of the id, as messages show it."""
        return abbreviate(self.id)

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of the tracked files, in order; `recipe.toml` among them."""
        return tuple(sorted(self._history.files_of(self.id)))

    def read(self, path: str) -> bytes:
        """The bytes of a tracked file. Raises `UnknownName`."""
        blob = self._history.files_of(self.id).get(path)
        if blob is None:
            raise UnknownName(f"{self.short_id} has no file {quoted(path)}; it has: {', '.join(self.files)}")
        return self._history.blob(blob)

    def diff(
        self, other: str | CommitEntry | None = None, *, paths: str | Sequence[str] | None = None
    ) -> Diff:
        """The difference from here to `other`, or to the work tree without `other`.

        `paths` as for `Repository.diff`.
        """
        return verbs.diff.diff(
            self._history, self.id, other.id if isinstance(other, CommitEntry) else other, paths=paths
        )

    def changes(self, *, paths: str | Sequence[str] | None = None) -> Diff:
        """The changes of the commit against its first parent."""
        return verbs.diff.show(self._history, self.id, paths=paths)[1]

    digest = VerbAt(lambda: verbs.digest.digest)
    export_adapter = VerbAt(lambda: verbs.adapters.export_adapter)
    tensors = VerbAt(lambda: verbs.tensors.tensors)
    checkout = VerbAt(lambda: verbs.checkout.checkout)
    load = VerbAt(lambda: live_room.load.load)

    def live(self, model: Module | None = None, **options: Unpack[LiveOptions]) -> LiveModel:
        """Overwrites a model's parameters with these weights; see `Repository.live`."""
        return live_room.model.live(self._history, model, self.id, **options)
