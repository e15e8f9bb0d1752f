"""**work tree** — the model directory beside `.persona`: `recipe.toml`, `graph/`, and the files that make the
model load. Here its files are read and written; `tracking` says which of them commits hold.

Files are read through links and written whole beside their target, which a link never survives.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from persona.errors import InvalidInput, Refused, listed
from persona.history.history import History
from persona.history.recipes.text import RECIPE_FILE
from persona.limits import MAX_TEXT_FILE_BYTES
from persona.objects.ids import object_id
from persona.objects.names import check_file_path
from persona.store import files
from persona.weights.inputs import read_input

TOO_LARGE: Final = "too large"
"""Stands for the blob id of a tracked file that no blob can hold: it differs from every commit's."""


def read(root: Path, path: str) -> bytes | None:
    """The bytes of a tracked file, or None where there is no regular file. Raises `SystemFault` for one that
    cannot be looked at: nobody knows that it is gone.
    """
    return _read(root / check_file_path(path))


def _read(place: Path) -> bytes | None:
    try:
        if not stat.S_ISREG(os.stat(place).st_mode):
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link that leads to no file, as surely as one to nothing
            return None
        raise files.system_fault("read", place, error) from error
    return read_input(place, limit=MAX_TEXT_FILE_BYTES)


def read_recipe_text(root: Path, *, to_edit: bool = False) -> bytes:
    """The bytes of `recipe.toml`; `InvalidInput` where it is missing. `to_edit`: `Refused` where it is a
    symbolic link, which the edited file would replace.
    """
    if to_edit and os.path.islink(root / RECIPE_FILE):
        place = os.path.realpath(root / RECIPE_FILE)
        raise Refused(f"{RECIPE_FILE} is a symbolic link; edit {place} by hand, or put the file itself here")
    data = read(root, RECIPE_FILE)
    if data is None:
        raise InvalidInput(f"{root / RECIPE_FILE} is missing; `persona restore {RECIPE_FILE}` brings it back")
    return data


def blob_id(data: bytes) -> str:
    """The id that a file's bytes have as a blob."""
    return object_id("blob", data)


def id_of(root: Path, path: str) -> str | None:
    """The blob id of a tracked file as it is now, or None where there is no regular file; `TOO_LARGE` for one
    that no blob can hold.
    """
    return _id(root / check_file_path(path))


def _id(place: Path) -> str | None:
    try:
        data = _read(place)
    except InvalidInput:
        return TOO_LARGE
    return None if data is None else blob_id(data)


def write(history: History, path: str, data: bytes, seen: str | None) -> None:
    """Makes a tracked file hold `data`, whole or not at all. `seen` and errors: see `apply`."""
    apply(history, {path: data}, {} if seen is None else {path: seen})


def put(
    history: History, target: Mapping[str, str], current: Mapping[str, str], paths: Iterable[str]
) -> list[str]:
    """Makes `paths` as they are in `target` (absent: removed) where `current`, which is what they hold,
    differs; returns them.
    """
    edits = edits_of(history, target, current, paths)
    apply(history, edits, current)
    return list(edits)


def edits_of(
    history: History, target: Mapping[str, str], current: Mapping[str, str], paths: Iterable[str]
) -> dict[str, bytes | None]:
    """What `put` has to make files hold. Everything is read here, before anything is written: a damaged blob
    changes no file.
    """
    changed = [path for path in paths if target.get(path) != current.get(path)]
    return {path: history.blob(target[path]) if path in target else None for path in changed}


def apply(history: History, edits: Mapping[str, bytes | None], seen: Mapping[str, str]) -> None:
    """Makes tracked files hold these bytes (None: removed): removals first, so that a file may stand where a
    directory was and a directory where a file was; then the rest in this order.

    Whatever stands in the way is found before anything is changed (`check_room`). `seen`: the blob id that
    each path had when the edits were decided (absent: there was no file). A file that is another one by now
    was edited meanwhile: it stays, and `Refused` names it. All are looked at before the first one changes,
    and each again as it is replaced.
    """
    kept = [path for path, data in edits.items() if data is not None]
    removed = [path for path, data in edits.items() if data is None]
    check_room(history.root, kept, removed)
    refuse_edited([path for path in edits if id_of(history.root, path) != seen.get(path)])
    for path in removed:
        _remove(history.root, path, seen.get(path))
    for path, data in edits.items():
        if data is not None:
            _write(history.root, path, data, seen.get(path))
    # Directories that were there already, too: who made them may have been cut short before they were synced.
    below = [path.split("/")[:-1] for path in kept]
    files.sync_directories(
        sorted({history.root.joinpath(*parts[:n]) for parts in below for n in range(len(parts))})
    )


def refuse_edited(paths: Sequence[str]) -> None:
    """`Refused` naming files that somebody changed while the command was at work, if there are any."""
    if paths:
        raise Refused(
            f"{listed(paths)}: edited while this command was running, and left as edited;"
            " run the command again"
        )


def check_room(root: Path, kept: Iterable[str], removed: Iterable[str]) -> None:
    """Whether files can be written at `kept` once `removed` are gone.

    Raises `Refused` naming the files that stand where a directory or a file has to go, `IntegrityError` for a
    directory that was replaced by a link, through which files elsewhere would be written or removed.
    """
    gone = {check_file_path(path) for path in removed}
    in_the_way: dict[str, None] = {}
    for path in [*gone, *map(check_file_path, kept)]:
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts))]
        if any(name in gone for name in above):
            continue  # a file that makes room for the directory
        files.check_directories(root, *parts[:-1])
        if path in gone:
            continue
        in_the_way.update((name, None) for name in above if (root / name).is_file())
        in_the_way.update((name, None) for name in _all_below(root, path) if name not in gone)
    if in_the_way:
        names = list(in_the_way)
        it = "it" if len(names) == 1 else "them"
        raise Refused(
            f"{listed(names)}: in the way of files that have to go there; move {it} away and try again"
        )


def _write(root: Path, path: str, data: bytes, seen: str | None) -> None:
    place = root / path
    if place.is_dir() and not place.is_symlink():
        _clear(place)
    if place.parent != root:
        files.relied_on_directories(place.parent, below=root)
    there = os.path.lexists(place)  # a link that leads nowhere is replaced, too
    if (seen is not None and not there) or not files.replace_file(place, data, _is(seen) if there else None):
        refuse_edited([path])


def _remove(root: Path, path: str, seen: str | None) -> None:
    """Removes a tracked file, and directories that it leaves empty."""
    place = root / path
    if not files.remove_known(place, _is(seen)):
        refuse_edited([path])
    files.sync_directories([place.parent] if place.parent.is_dir() else [])
    files.remove_empty_directories(place.parent, below=root)


def _is(seen: str | None) -> files.Known:
    """Whether a file that was moved aside holds what was seen. A link to no file may lead to one from there;
    it holds nothing that could be lost.
    """
    return lambda place: (seen is None and place.is_symlink()) or _id(place) == seen


def _clear(directory: Path) -> None:
    """Removes a directory that holds nothing but directories, and what a write that was cut short left."""
    for folder, _, names in os.walk(directory, topdown=False):
        for name in filter(files.is_unfinished, names):
            files.remove(Path(folder, name))
        files.remove_empty_directories(Path(folder), below=directory.parent)


def _all_below(root: Path, path: str) -> Iterator[str]:
    """Every file below a directory of the work tree, hidden ones and links too, but for what a write that was
    cut short left.
    """
    pending = [path] if (root / path).is_dir() and not (root / path).is_symlink() else []
    while pending:
        here = pending.pop()
        for item in files.names_in(root / here):
            if item.is_dir(follow_symlinks=False):
                pending.append(f"{here}/{item.name}")
            elif not files.is_unfinished(item.name):
                yield f"{here}/{item.name}"
