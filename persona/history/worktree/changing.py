"""The work tree lock, for every change of the work tree. Leftovers of dead commands are removed first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from persona.errors import PersonaError
from persona.history.history import History
from persona.history.worktree.locked import LockedTree, locked
from persona.history.worktree.move import read_move
from persona.limits import MAX_TEXT_FILE_BYTES
from persona.objects.ids import object_id
from persona.store import files


@contextmanager
def changing(history: History, *, force: bool = False) -> Iterator[LockedTree]:
    """Holds the work tree lock, after cleaning up after commands that died.

    It removes their leftovers and takes back the files of a move that was cut short. `force`: gives up a move
    that cannot be taken back. Raises `Refused` before anything changes if the store's format is newer.
    """
    history.store.require_writable()
    with locked(history) as tree:
        history.store.clear_leftovers()
        for folder in _folders(history):
            files.clear_leftovers(folder, beside=True, is_kept=partial(_is_stored, history))
        tree.take_back(force=force)
        yield tree


def leftovers(history: History) -> list[tuple[Path, int]]:
    """Leftovers in the store and beside the files of the work tree, with their sizes in bytes."""
    beside = [found for folder in _folders(history) for found in files.leftovers(folder, beside=True)]
    return sorted([*history.store.leftovers(), *beside])


def _folders(history: History) -> list[Path]:
    """The directories of the work tree that hold files of HEAD, or of a move that was cut short.

    Only the work tree's own directory if nothing can be read.
    """
    commits: set[str] = set()
    with suppress(PersonaError):
        commits.update(id for id in (history.last_commit(),) if id is not None)
    with suppress(PersonaError):
        commits.update((read_move(history) or {}).values())
    found = {history.root}
    for id in commits:
        with suppress(PersonaError):
            # Files of a base lie in the work tree itself, and its manifest takes long to read.
            found |= {(history.root / path).parent for path in history.tree_of(id).files}
    top = files.resolved(history.root)
    return sorted(folder for folder in found if files.resolved(folder).is_relative_to(top))


def _is_stored(history: History, path: Path) -> bool:
    """Whether the store holds the content of a file."""
    try:
        data = files.read_file(path, limit=MAX_TEXT_FILE_BYTES)
    except PersonaError:
        return False
    return data is not None and history.store.objects.contains_intact(object_id("blob", data))
