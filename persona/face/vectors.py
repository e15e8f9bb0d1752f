"""The vectors of an open repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from persona.face.collection import Collection
from persona.face.verb import Verb
from persona.history import verbs

if TYPE_CHECKING:
    from persona.history.query_results import VectorInfo


class Vectors(Collection["VectorInfo"]):
    """The vectors by name.

    Those of `recipe.toml` come first, in canonical order of its terms, then those with only a kept name.
    `[name]` also takes the start of a vector's id.
    """

    kind: ClassVar[str] = "vector"

    statistics = Verb(lambda: verbs.measure.vector_statistics)
    derive = Verb(lambda: verbs.derive.derive)
    extract = Verb(lambda: verbs.adapters.extract_vector)
    all = Verb(lambda: verbs.vectors.all_vectors)
    take = Verb(lambda: verbs.vectors.take)
    delete = Verb(lambda: verbs.vectors.forget)

    def __getitem__(self, name: str) -> VectorInfo:
        """A vector by name, or by the start of its id. Raises `UnknownName`."""
        from persona.history.vectors import lookup

        if not isinstance(name, str):
            raise self._unknown(name)
        return lookup.named(self._history, name)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and self.get(name) is not None)

    def _read(self) -> dict[str, VectorInfo]:
        from persona.history.vectors import lookup

        return lookup.infos(self._history)

    def _names(self) -> list[str]:
        from persona.history.vectors import lookup

        return list(lookup.ids(self._history))
