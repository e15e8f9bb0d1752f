"""**state** — what a user sees of a repository, read in the same form from git and from persona.

Commits of the two programs have different ids. So a commit is known by its **label**: its subject, and a
digest of its message, files, author, times, and the labels of its parents.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ID = re.compile(r"(?<![0-9a-z])(g?)([0-9a-f]{7,64})\b")
"""An id, or the end of a name that `describe` prints."""
_OWN = (".git", ".persona")


@dataclass(frozen=True)
class Written:
    """A commit as a program stores it."""

    files: Mapping[str, bytes]
    parents: tuple[str, ...]
    author: tuple[str, str, int]
    committed: int
    message: str


@dataclass(frozen=True)
class State:
    """A repository at one moment; labels stand for commits."""

    head: str
    branches: Mapping[str, str]
    tags: Mapping[str, tuple[str, str | None]]
    """A tag → its commit, and its message if it is annotated."""
    reflogs: Mapping[str, list[str]]
    """HEAD or a branch → its moves, newest first."""
    files: Mapping[str, bytes]
    """The text files of the work tree that are not conflicted."""
    changed: list[str]
    untracked: list[str]
    conflicted: list[str] = field(default_factory=list)
    under_way: str | None = None
    """The command that waits for --continue or --abort."""
    notes: Mapping[str, str] = field(default_factory=dict)

    def differences(self, other: State) -> list[str]:
        """A sentence for each part that differs."""
        mine, theirs = vars(self), vars(other)
        return [
            f"{part}:\n{_shown(mine[part], theirs[part])}\n  in persona:\n{_shown(theirs[part], mine[part])}"
            for part in mine
            if mine[part] != theirs[part]
        ]


def _shown(value: Any, other: Any) -> str:
    """A part of a state, without what the other side has too."""
    if isinstance(value, Mapping):
        value = {key: value[key] for key in value if key not in other or value[key] != other[key]}
        lines = [f"{key}: {_shown(value[key], other.get(key))}" for key in value]
    elif isinstance(value, list):
        lines = [str(one) for one in value]
    elif isinstance(value, bytes):
        return value.decode()
    else:
        return f"    {value}"
    return "\n".join(f"    {line}" for line in lines)


class Source(ABC):
    """A repository of one program, as its states are read from it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._labels: dict[str, str] = {}

    @abstractmethod
    def commits_like(self, prefix: str) -> list[str]:
        """The ids of commits that begin with these digits."""

    @abstractmethod
    def written(self, id: str) -> Written:
        """A commit."""

    @abstractmethod
    def state(self) -> State:
        """The state now."""

    def label(self, id: str) -> str:
        """The label of a commit; a reflog also has the id of none."""
        if not id.strip("0"):
            return "<none>"
        if id not in self._labels:
            commit = self.written(id)
            message = self._labelled(commit.message)
            parts = [message, *map(self.label, commit.parents), repr(commit.author), str(commit.committed)]
            for path in sorted(commit.files):
                parts += [path, hashlib.sha256(commit.files[path]).hexdigest()]
            digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:6]
            self._labels[id] = f"<{message.partition(chr(10))[0]} {digest}>"
        return self._labels[id]

    def in_text(self, text: str) -> str:
        """A text with labels in place of ids, whole or shortened."""
        return self._labelled(text)

    def _labelled(self, text: str) -> str:
        def label(found: re.Match[str]) -> str:
            ids = self.commits_like(found[2])
            return found[1] + self.label(ids[0]) if ids else found[0]

        return _ID.sub(label, text)

    def text_files(self, conflicted: list[str]) -> dict[str, bytes]:
        """The files of the work tree without weights."""
        found: dict[str, bytes] = {}
        for file in sorted(self.root.rglob("*")):
            path = str(file.relative_to(self.root))
            weights = file.suffix == ".safetensors" or path in conflicted
            if path.split("/")[0] not in _OWN and file.is_file() and not weights:
                found[path] = file.read_bytes()
        return found
