"""**provenance** — what a vector was trained from: a note on the vector, and no part of its id."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Final

from blake3 import blake3

from persona.frozen import dataclass
from persona.history import note_refs
from persona.history.history import History
from persona.objects import canonical
from persona.objects.note import Note

Files = dict[str, dict[str, str]]
"""Role → the path of a file of data in the work tree, and the BLAKE3 of its bytes."""


@dataclass(frozen=True)
class Provenance:
    """Everything that decides a trained vector, and how its training went.

    `name`: the vector's, KEY or KEY#FACET. `file`, `text`: the pattern's file and the id of its blob. `onto`:
    the commit that it was trained from, None for the base. `settings`: all that were in force; `given`: those
    that came from the caller, not from the file. `template`: the digest of the chat template. `part`: "plus"
    or "minus" for one side of a contrastive pair. `loss`: some steps with their loss in nats per token.
    `warm`: how the warm start went that `settings` ask for, None if they ask for none; see docs/format.md.
    """

    pattern: str
    facet: str | None
    name: str
    file: str
    text: str
    data: Files
    base: str
    onto: str | None
    settings: dict[str, Any]
    given: dict[str, Any]
    template: str
    threads: int
    device: str
    code: str
    libraries: dict[str, str]
    part: str | None = None
    vector: str = ""
    steps: int = 0
    loss: tuple[tuple[int, str], ...] = ()
    warm: dict[str, Any] | None = None
    seconds: int = 0

    @property
    def digest(self) -> str:
        """Which training this is: of everything that decides the vector, 64 hex digits."""
        return blake3(canonical.encode(self._decisive())).hexdigest()

    def changed_since(self, then: Provenance) -> tuple[str, ...]:
        """The differences from an earlier training, in words: "text", "data train", "setting steps", "base".

        To see whether a vector is stale, compare its provenance with itself, text, data, base and settings
        replaced by those of today: `then.with_changes(text=…, …).changed_since(then)`.
        """
        found = [word for word, key in _WORDS.items() if getattr(self, key) != getattr(then, key)]
        for word, ours, theirs in (
            ("data", _hashes(self.data), _hashes(then.data)),
            ("setting", self.settings, then.settings),
        ):
            keys = sorted({*ours, *theirs})
            found += [f"{word} {key}" for key in keys if ours.get(key) != theirs.get(key)]
        return tuple(found)

    def same_training(self, then: Provenance) -> bool:
        """Whether text, data, base and settings are those of an earlier training, on whatever machine."""
        return not set(self.changed_since(then)) - set(_MACHINE)

    def with_changes(self, **changes: Any) -> Provenance:
        """The same with some fields changed."""
        return replace(self, **changes)

    def as_data(self) -> dict[str, Any]:
        """The note's data, in canonical JSON."""
        return {
            **self._decisive(),
            "given": self.given,
            "seed": self.settings.get("seed"),
            "steps": self.steps,
            "loss": [[step, loss] for step, loss in self.loss],
            "seconds": self.seconds,
            **({} if self.warm is None else {"warm": self.warm}),
        }

    @classmethod
    def of(cls, vector: str, data: dict[str, Any]) -> Provenance | None:
        """The provenance in the data of a note; None for a note of another kind of origin."""
        try:
            known = {item.name: data[item.name] for item in fields(cls) if item.name in data}
            known["loss"] = tuple((int(step), str(loss)) for step, loss in data["loss"])
            return cls(**{**known, "vector": vector})
        except (KeyError, TypeError, ValueError):
            return None

    def _decisive(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _OUTCOME}


_OUTCOME: Final = ("vector", "steps", "loss", "warm", "seconds", "given")
_WORDS: Final = {
    "text": "text",
    "base": "base",
    "commit it is trained onto": "onto",
    "chat template": "template",
    "number of threads": "threads",
    "device": "device",
    "version of persona": "code",
    "versions of libraries": "libraries",
}


_MACHINE: Final = ("number of threads", "device", "version of persona", "versions of libraries")


def _hashes(data: Files) -> dict[str, str]:
    return {role: file["blake3"] for role, file in data.items()}


def known(history: History) -> Iterator[Provenance]:
    """The provenance of every trained vector. One vector may have several."""
    for note in note_refs.all_of(history, "provenance"):
        if (found := Provenance.of(note.about, note.data)) is not None:
            yield found


def patterns_of(history: History, patterns: Container[str], ids: Mapping[str, str]) -> dict[str, str]:
    """The pattern or facet of each vector, by name: the one of its name, else the one it was trained from.

    `patterns`: the names of patterns and facets. `ids`: of the vectors, by name. A vector without one is left
    out.
    """
    trained: dict[str, str] = {}
    if any(name not in patterns for name in ids):
        trained = {
            one.vector: one.name for one in known(history) if one.part is None and one.name in patterns
        }
    found = {name: name if name in patterns else trained.get(id) for name, id in ids.items()}
    return {name: pattern for name, pattern in found.items() if pattern is not None}


def keep(history: History, made: Provenance) -> None:
    """Keeps the provenance of a vector, unless the same training is known to have made it."""
    if not any(one.vector == made.vector and one.digest == made.digest for one in known(history)):
        note_refs.keep(history, Note(made.vector, "vector", "provenance", made.as_data()))
