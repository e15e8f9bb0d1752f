"""**training run** — a training that is under way: a directory `.persona/runs/DIGEST` until it is done.

DIGEST is that of everything that decides the vector. The directory holds `run.json`, the teacher's answers of
a baked prompt, what the demos of a warm start do to the probes, and the checkpoints of transformers'
`Trainer`. A checkpoint counts if `COMPLETE` is in it, which is written last and has the hashes of the other
files, and if they are right. So a run that was killed goes on from the last checkpoint that is whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from persona.behaviour.training.provenance import Provenance
from persona.errors import BusyError, IntegrityError, PersonaError
from persona.history.history import History
from persona.objects import canonical
from persona.store import files, lock

FOLDER: Final = "runs"
COMPLETE: Final = "persona.json"
RUN: Final = "run.json"
ANSWERS: Final = "answers.json"
TRANSFER: Final = "transfer.json"
_CHECKPOINT: Final = re.compile(r"checkpoint-(\d+)")
_NAME: Final = re.compile(r"[0-9a-f]{32}")
_LIMIT: Final = 1 << 28


class Run:
    """The directory of one training."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def provenance(self) -> Provenance | None:
        """The training of this run; None if it cannot be read."""
        value = self._read(RUN)
        return Provenance.of("", value) if isinstance(value, dict) else None

    def answers(self) -> list[list[int]] | None:
        """The teacher's answers, if they are there."""
        value = self._read(ANSWERS)
        if not isinstance(value, list):
            return None
        return [[int(token) for token in answer] for answer in value]

    def keep_answers(self, answers: list[list[int]]) -> None:
        """Keeps the teacher's answers."""
        files.write_file(self.directory / ANSWERS, canonical.encode(answers))

    def transfer(self) -> dict[str, Any] | None:
        """What the demos of a warm start do to the probes, if it was measured."""
        value = self._read(TRANSFER)
        return value if isinstance(value, dict) else None

    def keep_transfer(self, found: dict[str, Any]) -> None:
        """Keeps what the demos of a warm start do to the probes."""
        files.write_file(self.directory / TRANSFER, canonical.encode(found))

    def last(self) -> tuple[Path, int] | None:
        """The last checkpoint that is whole, and its step. Those after it are removed."""
        found = sorted(self._checkpoints(), reverse=True)
        for step, path in found:
            if _is_whole(path):
                return path, step
            files.remove_tree(path)
        return None

    def step(self) -> int:
        """The step of the last checkpoint that says it is complete; 0 if none does."""
        steps = (step for step, path in self._checkpoints() if (path / COMPLETE).is_file())
        return max(steps, default=0)

    def seal(self, path: Path) -> None:
        """Marks a checkpoint as complete, once its files are on the disk."""
        files.sync_tree(path)
        files.write_file(path / COMPLETE, canonical.encode(_hashes(path)))

    def remove(self) -> None:
        """Removes the directory, `RUN` after the checkpoints: so a removal that was cut short can be told."""
        for item in files.names_in(self.directory):
            if item.is_dir(follow_symlinks=False):
                files.remove_tree(Path(item.path))
        files.remove_tree(self.directory)

    def _checkpoints(self) -> Iterator[tuple[int, Path]]:
        for item in files.names_in(self.directory):
            match = _CHECKPOINT.fullmatch(item.name)
            if match and item.is_dir(follow_symlinks=False):
                yield int(match[1]), Path(item.path)

    def _read(self, name: str) -> Any:
        try:
            data = files.read_file(self.directory / name, limit=_LIMIT)
            return None if data is None else canonical.decode(data, name)
        except IntegrityError:
            return None


@contextmanager
def opened(history: History, made: Provenance) -> Iterator[Run]:
    """The run of a training, made if it is not there. Raises `BusyError` if another command has it."""
    root = history.store.root
    directory = root / FOLDER / made.digest[:32]
    history.store.require_writable()
    files.mkdirs(directory, below=root)
    with lock.run_lock(directory, made.name):
        files.mkdirs(directory, below=root)  # the command before this one may have ended meanwhile
        files.clear_leftovers(directory, beside=True)
        run = Run(directory)
        if run.provenance is None:
            files.write_file(directory / RUN, canonical.encode(made.as_data()))
        yield run


def unfinished(history: History, name: str) -> list[tuple[Run, Provenance]]:
    """The runs of one vector that did not end."""
    found = ((run, run.provenance) for run in _all(history))
    return [(run, made) for run, made in found if made is not None and made.name == name]


def clear(history: History, name: str) -> None:
    """Removes the runs of one vector, once it is stored, and rests of runs whose removal was cut short.

    A run that another command has stays.
    """
    rests = [run for run in _all(history) if run.provenance is None and not run.step()]
    for run in [*(run for run, _ in unfinished(history, name)), *rests]:
        with suppress(BusyError), lock.run_lock(run.directory, name):
            run.remove()


def _all(history: History) -> list[Run]:
    """Every run. The directory also holds weights that `CommitCallback` could not import."""
    folder = history.store.root / FOLDER
    if not folder.is_dir():
        return []
    items = [item for item in files.names_in(folder) if item.is_dir(follow_symlinks=False)]
    return [Run(Path(item.path)) for item in items if _NAME.fullmatch(item.name)]


def _is_whole(path: Path) -> bool:
    try:
        data = files.read_file(path / COMPLETE, limit=_LIMIT)
        return data is not None and json.loads(data) == _hashes(path)
    except (PersonaError, OSError, ValueError):
        return False


def _hashes(path: Path) -> dict[str, str]:
    """The BLAKE3 of each file of a checkpoint, by name."""
    found = {}
    for item in sorted(files.names_in(path), key=lambda item: item.name):
        if item.is_file() and item.name != COMPLETE and not files.is_unfinished(item.name):
            hasher = blake3(max_threads=blake3.AUTO)
            hasher.update_mmap(item.path)
            found[item.name] = hasher.hexdigest()
    return found
