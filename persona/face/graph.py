"""The graph in the work tree of an open repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from persona.behaviour import verbs
from persona.face.collection import Collection
from persona.face.verb import Verb

if TYPE_CHECKING:
    from persona.behaviour.graph.pattern import Pattern


class Patterns(Collection["Pattern"]):
    """The patterns of `graph/` by key, in order of their files. Files that cannot be read are left out.

    `[key]` says what is wrong with the file of a pattern.
    """

    kind: ClassVar[str] = "pattern"

    check = Verb(lambda: verbs.graph.check)
    status = Verb(lambda: verbs.graph.status)
    view = Verb(lambda: verbs.graph.view)
    describe = Verb(lambda: verbs.graph.describe)
    read = Verb(lambda: verbs.graph.read)
    import_lines = Verb(lambda: verbs.graph.import_lines)
    export_lines = Verb(lambda: verbs.graph.export_lines)

    def __getitem__(self, key: str) -> Pattern:
        """A pattern by its key. Raises `UnknownName`, and `InvalidInput` if its file is faulty."""
        if not isinstance(key, str):
            raise self._unknown(key)
        return verbs.graph.read(self._history).pattern(key)

    def _read(self) -> dict[str, Pattern]:
        return verbs.graph.read(self._history).patterns
