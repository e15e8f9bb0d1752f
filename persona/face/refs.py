"""The branches and the tags of an open repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from persona.face.collection import Collection
from persona.face.verb import Verb
from persona.history import verbs
from persona.objects.ids import abbreviate

if TYPE_CHECKING:
    from persona.history.query_results import RefInfo


class Branches(Collection["RefInfo"]):
    """The branches by name, in order of names. Their reflogs: `repo.reflog(name)`."""

    kind: ClassVar[str] = "branch"

    create = Verb(lambda: verbs.refs.create_branch)
    delete = Verb(lambda: verbs.refs.delete_branches)
    rename = Verb(lambda: verbs.refs.rename_branch)

    @property
    def current(self) -> str | None:
        """The branch that HEAD is on; None while HEAD is detached."""
        self._history.require_open()
        return self._history.head_or_name().branch

    def _read(self) -> dict[str, RefInfo]:
        return {info.name: info for info in verbs.refs.branches(self._history)}

    def _shown(self) -> list[str]:
        return [("* " if name == self.current else "") + name for name in self]


class Tags(Collection["RefInfo"]):
    """The tags by name, in order of names."""

    kind: ClassVar[str] = "tag"

    create = Verb(lambda: verbs.refs.create_tag)
    delete = Verb(lambda: verbs.refs.delete_tags)
    annotation = Verb(lambda: verbs.refs.annotation)

    def _read(self) -> dict[str, RefInfo]:
        return {info.name: info for info in verbs.refs.tags(self._history)}

    def _shown(self) -> list[str]:
        return [f"{info.name} → {abbreviate(info.id)}" for info in self.values()]
