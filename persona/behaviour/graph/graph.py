"""**graph** — the patterns of a work tree or of a commit, the links between them, and their data.

A faulty file hides no other one: its problems are kept, and raised when somebody asks for its pattern.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from itertools import chain
from typing import Final

from blake3 import blake3

from persona.behaviour.dialogues import Dialogue, Prompt, prompts_of, read_dialogues, read_turns
from persona.behaviour.graph.pattern import Pattern, Trainable
from persona.behaviour.graph.reading import Problem, fault, file_name, pattern_of, written_of
from persona.behaviour.json_lines import text_of
from persona.behaviour.probes import ProbeSet, read_probes
from persona.errors import Blank, Call, InvalidInput, UnknownName, listed, quoted
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.recipes.text import line_of
from persona.history.worktree import text_files, tracking
from persona.objects.names import file_path_problem
from persona.weights.inputs import stays_inside

FOLDER: Final = tracking.GRAPH
TRAINING_ROLES: Final = ("train", "opposite", "prompt", "turns")
"""The data that decides a vector."""

Reader = Callable[[str], bytes | None]


@dataclass(frozen=True)
class DataFile:
    """A data file: its path in the work tree, and the BLAKE3 of its bytes, 64 hex digits."""

    file: str
    blake3: str


class Graph:
    """Patterns by key, in order. `problems`: those of each faulty file. `paths`: the tracked files;
    `left_out`: files of the folder that no commit can hold, and why. `read`: the bytes of a file of the work
    tree or the commit, None if there is none.
    """

    def __init__(self, paths: Iterable[str], read: Reader, left_out: Mapping[str, str] | None = None) -> None:
        self.read = read
        self.paths = frozenset(paths)
        self.left_out = dict(left_out or {})
        self.patterns: dict[str, Pattern] = {}
        self.problems: dict[str, tuple[Problem, ...]] = {}
        for path in sorted(self.paths):
            data = read(path) if _is_pattern(path) else None
            if data is None:
                continue
            pattern, problems = pattern_of(path, data)
            if pattern is None:
                self.problems[path] = problems
            elif (other := self.patterns.get(pattern.key)) is not None:
                twice = f"key: {quoted(pattern.key)} is the key of {other.file} already"
                self.problems[path] = (Problem(path, line_of(written_of(path, data).front, ("key",)), twice),)
            else:
                self.patterns[pattern.key] = pattern

    @classmethod
    def of(cls, history: History, rev: str | None = None) -> Graph:
        """The graph of the work tree, or of a revision. Raises `UnknownRevision`."""
        if rev is not None:
            blobs = history.files_of(resolve(history, rev))
            return cls(blobs, lambda path: history.blob(blobs[path]) if path in blobs else None)
        known = tracking.tracked(history)

        def read(path: str) -> bytes | None:
            if not stays_inside(history.root, history.root / path):
                return None  # `left_out` says why
            return text_files.read(history.root, path)

        folder = (FOLDER, f"{FOLDER}/")
        left_out = {path: why for path, why in known.left_out.items() if path in folder or _is_inside(path)}
        return cls(known.paths, read, left_out)

    # -- patterns and what they own

    @cached_property
    def trainables(self) -> dict[str, Trainable]:
        """Everything that owns a vector, by its name, in the order of the patterns."""
        return {one.name: one for pattern in self.patterns.values() for one in pattern.trainables}

    def pattern(self, key: str) -> Pattern:
        """A pattern by its key. Raises `UnknownName`, and `InvalidInput` if its file is faulty."""
        if key not in self.patterns:
            raise self._missing(key, key, "pattern", self.patterns)
        return self.patterns[key]

    def names_of(self, key: str) -> list[str]:
        """The vectors that a key stands for: itself, or all facets of a pattern that has only facets."""
        pattern = self.patterns.get(key)
        if key in self.trainables or pattern is None:
            return [key]
        return [one.name for one in pattern.trainables]

    def trainable(self, name: str) -> Trainable:
        """The trainable that owns a vector, by KEY or KEY#FACET.

        Raises as `pattern`, and `InvalidInput` if the pattern has nothing to train on.
        """
        found = self.trainables.get(name)
        if found is None:
            pattern = self.patterns.get(name)
            if pattern is not None:
                names = [one.name for one in pattern.trainables]
                raise UnknownName(
                    f"the pattern {quoted(name)} has no vector of its own, only its facets have; name one of"
                    f" {listed(names)}"
                )
            raise self._missing(name, name.partition("#")[0], "pattern or facet", self.trainables)
        if found.data.train is None and found.data.prompt is None:
            file = self.patterns[found.key].file
            raise InvalidInput(
                f"{file}:{self.line_of(found, 'train')}: {quoted(name)} has nothing to train on; [data] needs"
                " train, a file of dialogues, or prompt and turns"
            )
        return found

    def _missing(self, name: str, key: str, kind: str, known: Mapping[str, object]) -> Exception:
        for path, problems in self.problems.items():
            if path in (f"{FOLDER}/{key}.md", f"{FOLDER}/{file_name(key)}"):
                return fault(problems)
        from difflib import get_close_matches

        near = get_close_matches(name, known, 1)
        if near:
            return UnknownName(f"no {kind} is named {quoted(name)}", hint=f"did you mean {near[0]}?")
        if not known:
            return UnknownName(
                f"no {kind} is named {quoted(name)}: {FOLDER}/ has none; write {FOLDER}/{file_name(key)}",
                hint=("nodes of another program come in with ", Call("graph.import_lines", Blank("FILE"))),
            )
        return UnknownName(f"no {kind} is named {quoted(name)}", hint=f"there are: {listed(list(known))}")

    # -- data

    def path_of(self, trainable: Trainable, role: str) -> str | None:
        """The path in the work tree of a data file, None if the trainable has none for the role.

        Raises `InvalidInput` for a path that leaves the work tree.
        """
        written = getattr(trainable.data, role)
        if written is None:
            return None
        path = posixpath.normpath(posixpath.join(FOLDER, written))
        why = "it is absolute" if written.startswith("/") else file_path_problem(path)
        if why:
            raise InvalidInput(
                f"{self.place_of(trainable, role)}: {role}: {quoted(written)} is no file of the work tree:"
                f" {why}; give a path from {FOLDER}/, such as data/probes.jsonl"
            )
        return path

    def data(self, trainable: Trainable, role: str) -> tuple[str, bytes] | None:
        """The path and the bytes of a data file, None if the trainable has none for the role.

        Raises `InvalidInput` with the line of the front matter for a file that is not there.
        """
        path = self.path_of(trainable, role)
        if path is None:
            return None
        data = self.read(path)
        if data is None:
            why = self.left_out.get(path)
            problem = f"cannot be used: {why}" if why else "does not exist"
            raise InvalidInput(f"{self.place_of(trainable, role)}: {role}: {path} {problem}")
        return path, data

    def place_of(self, trainable: Trainable, role: str) -> str:
        """FILE:LINE of the key in the front matter that names a data file."""
        return f"{self.patterns[trainable.key].file}:{self.line_of(trainable, role)}"

    def line_of(self, trainable: Trainable, role: str) -> int:
        """The line of the key in the front matter that names a data file."""
        file = self.patterns[trainable.key].file
        written = written_of(file, self.read(file) or b"")
        own = written.document.get("facets", {}).get(trainable.facet, {}).get("data", {})
        path = ("facets", str(trainable.facet), "data", role) if role in own else ("data", role)
        return line_of(written.front, path)

    def dialogues(self, trainable: Trainable, role: str = "train") -> tuple[Dialogue, ...]:
        """The dialogues of `train`, `opposite` or `demos`; empty if the trainable has none for the role."""
        found = self.data(trainable, role)
        return () if found is None else read_dialogues(*found)

    def turns(self, trainable: Trainable) -> tuple[Dialogue, ...]:
        """The user's turns that a prompt is baked over; empty if there are none."""
        found = self.data(trainable, "turns")
        return () if found is None else read_turns(*found)

    def prompt(self, trainable: Trainable) -> str | None:
        """The system prompt to bake in, without the space around it."""
        found = self.data(trainable, "prompt")
        return None if found is None else read_prompt(*found)

    def probes(self, name: str) -> ProbeSet | None:
        """The probes of a pattern (KEY) or a facet (KEY#FACET); None if it has none.

        Raises `UnknownName`, and `InvalidInput` for a faulty file.
        """
        trainable = self.trainables.get(name)
        if trainable is None:
            raise self._missing(name, name.partition("#")[0], "pattern or facet", self.trainables)
        found = self.data(trainable, "probes")
        return None if found is None else read_probes(name, *found)

    def trained_prompts(self, trainables: Iterable[Trainable]) -> dict[Prompt, str]:
        """The prompts in the training data of trainables, each with its place. Raises as `data`."""
        found: dict[Prompt, str] = {}
        for one in trainables:
            said = (*(self.dialogues(one, role) for role in ("train", "opposite", "demos")), self.turns(one))
            found = prompts_of(chain.from_iterable(said)) | found
        return found

    def data_files(self, trainable: Trainable, roles: Iterable[str] = TRAINING_ROLES) -> dict[str, DataFile]:
        """The data files that a trainable has, by role. Raises as `data`."""
        found = {}
        for role in roles:
            if (entry := self.data(trainable, role)) is not None:
                found[role] = DataFile(entry[0], blake3(entry[1]).hexdigest())
        return found


def read_prompt(path: str, data: bytes) -> str:
    """The text of a prompt. Raises `InvalidInput` if there is none."""
    text = text_of(path, data).strip()
    if not text:
        raise InvalidInput(f"{path}:1: the prompt is empty")
    return text


def _is_inside(path: str) -> bool:
    return path.startswith(f"{FOLDER}/")


def _is_pattern(path: str) -> bool:
    """Whether a path is a pattern's: a Markdown file right below the folder, and no README."""
    folder, _, name = path.rpartition("/")
    return folder == FOLDER and name.endswith(".md") and name.casefold() != "readme.md"
