"""**work tree** — the model directory beside `.persona`.

It has `recipe.toml`, `graph/`, and the files that make the model load. This module reads its files, through
links; `tracking` says which of them commits hold. A `LockedTree` writes them whole beside their target, so a
link is replaced by a file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from persona.errors import Call, InvalidInput, Refused, listed
from persona.history.history import History
from persona.history.recipes.text import RECIPE_FILE
from persona.limits import MAX_TEXT_FILE_BYTES
from persona.objects.ids import object_id
from persona.objects.names import check_file_path
from persona.objects.recipe import Recipe
from persona.store import files
from persona.weights.inputs import read_input

TOO_LARGE: Final = "too large"
"""Stands for the blob id of a tracked file that no blob can hold: it differs from every commit's."""


def read(root: Path, path: str) -> bytes | None:
    """The bytes of a tracked file, or None if there is no regular file.

    Raises `SystemFault` for a file that cannot be examined, because it may exist.
    """
    return _read(root / check_file_path(path))


def _read(place: Path) -> bytes | None:
    try:
        if not stat.S_ISREG(os.stat(place).st_mode):
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:  # a loop of links leads to no file, like a broken link
            return None
        raise files.system_fault("read", place, error) from error
    return read_input(place, limit=MAX_TEXT_FILE_BYTES)


def read_recipe_text(root: Path, *, to_edit: bool = False) -> bytes:
    """The bytes of `recipe.toml`; raises `InvalidInput` if it is missing.

    `to_edit`: raises `Refused` for a symbolic link, which the edited file would replace.
    """
    if to_edit and os.path.islink(root / RECIPE_FILE):
        place = os.path.realpath(root / RECIPE_FILE)
        raise Refused(f"{RECIPE_FILE} is a symbolic link; edit {place} by hand, or put the file itself here")
    data = read(root, RECIPE_FILE)
    if data is None:
        raise InvalidInput(
            f"{root / RECIPE_FILE} is missing", hint=(Call("restore", RECIPE_FILE), " brings it back")
        )
    return data


class RecipeText(NamedTuple):
    """`recipe.toml` as it was read: its bytes, and the recipe that they mean."""

    data: bytes
    recipe: Recipe


def recipe(history: History, *, to_edit: bool = False) -> RecipeText:
    """`recipe.toml` as it is.

    Raises the errors of `read_recipe_text`, and `InvalidInput` if it is no valid recipe.
    """
    data = read_recipe_text(history.root, to_edit=to_edit)
    return RecipeText(data, history.read_recipe(data))


def new_recipe(history: History) -> RecipeText:
    """As `recipe`, for one that is taken in or that weights are computed from: its filters match tensors."""
    text = recipe(history)
    history.check_filters(text.recipe, text.data)
    return text


def blob_id(data: bytes) -> str:
    """The id that a file's bytes have as a blob."""
    return object_id("blob", data)


def id_of(root: Path, path: str) -> str | None:
    """The blob id of a tracked file as it is now, or None if there is no regular file.

    `TOO_LARGE` for a file that no blob can hold.
    """
    return id_at(root / check_file_path(path))


def id_at(place: Path) -> str | None:
    """As `id_of`, of the file at a place."""
    try:
        data = _read(place)
    except InvalidInput:
        return TOO_LARGE
    return None if data is None else blob_id(data)


def edits_of(
    history: History, target: Mapping[str, str], current: Mapping[str, str], paths: Iterable[str]
) -> dict[str, bytes | None]:
    """The contents that make files equal `target`.

    Everything is read here, before anything is written, so a damaged blob changes no file.
    """
    changed = [path for path in paths if target.get(path) != current.get(path)]
    return {path: history.blob(target[path]) if path in target else None for path in changed}


def refuse_edited(paths: Sequence[str]) -> None:
    """`Refused` naming files that somebody changed while the command was at work, if there are any."""
    if paths:
        raise Refused(
            f"{listed(paths)}: edited while this command was running, and left as edited;"
            " run the command again"
        )


def check_room(root: Path, kept: Iterable[str], removed: Iterable[str]) -> None:
    """Checks that files can be written at `kept` once `removed` are gone.

    Raises `Refused` that names files in the way of a directory or a file. Raises `IntegrityError` for a
    directory that was replaced by a link, because files elsewhere would be written or removed through it.
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
        are, it = ("is", "it") if len(names) == 1 else ("are", "them")
        raise Refused(
            f"{listed(names)} {are} in the way of new files; move {it} away and run the command again"
        )


def obstacles(root: Path, paths: Iterable[str]) -> list[str]:
    """The paths where something lies that no commit can hold: a pipe, a device, a link that leads to no file.

    A directory is none: `check_room` finds the files in it.
    """
    return [path for path in paths if _is_obstacle(root / check_file_path(path))]


def _is_obstacle(place: Path) -> bool:
    try:
        mode = os.lstat(place).st_mode
        if stat.S_ISLNK(mode):
            return not stat.S_ISREG(os.stat(place).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return os.path.islink(place)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return True
        raise files.system_fault("look at", place, error) from error
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _all_below(root: Path, path: str) -> Iterator[str]:
    """Every file below a directory of the work tree, hidden ones and links too, leftovers not."""
    pending = [path] if (root / path).is_dir() and not (root / path).is_symlink() else []
    while pending:
        here = pending.pop()
        for item in files.names_in(root / here):
            if item.is_dir(follow_symlinks=False):
                pending.append(f"{here}/{item.name}")
            elif not files.is_unfinished(item.name):
                yield f"{here}/{item.name}"
