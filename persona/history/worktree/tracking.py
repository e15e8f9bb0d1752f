"""The one place that decides which files are tracked. Every command asks it.

**tracked file** — a file of the work tree that the next commit holds as it is on disk.
**left-out file** — a file that its name would make tracked, but that no commit can hold because of its name,
kind, size or permissions.
**untracked file** — every other file that is not weights.

Tracked are `recipe.toml`, the files of HEAD's commit, the base's own files (also those that HEAD has
deleted), files whose name says that a model loads with them, all files below `graph/`, and the files that
`add` named. Weights are never tracked. `state/added` lists the names that `add`
was given and that no commit at HEAD holds yet: there is no staging area. A left-out file is reported and
stops nothing.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from persona.errors import (
    Blank,
    Call,
    InvalidInput,
    Keyword,
    Note,
    PersonaError,
    Refused,
    SystemFault,
    UsageError,
    listed,
)
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.recipes.text import RECIPE_FILE
from persona.history.worktree import text_files
from persona.limits import MAX_TEXT_FILE_BYTES, MIB
from persona.objects.names import RESERVED_FILES, file_path_problem
from persona.store import files
from persona.weights.inputs import InputFile, stays_inside

ADDED: Final = "added"
GRAPH: Final = "graph"
CONFIG: Final = "config.json"
MODEL_FILES: Final = (
    CONFIG,
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "spiece.model",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "modules.json",
    "config_sentence_transformers.json",
)
"""Names of files that a model loads with."""
MODEL_FILE_BEGINNINGS: Final = ("tokenizer", "vocab.", "chat_template", "sentence_")
"""How others of them begin."""
TEMPLATES: Final = "additional_chat_templates"
"""The directory of further chat templates, as transformers saves them."""

_WEIGHT_DIRECTORY: Final = frozenset({"adapter_config.json"})


@dataclass(frozen=True)
class Tracked:
    """The tracked paths, there or not, in order; and path → why, for the files that are left out."""

    paths: tuple[str, ...]
    left_out: dict[str, str]


def is_model_file(path: str) -> bool:
    """Whether a model loads with the file of this path."""
    if "/" in path:
        return path.startswith(f"{TEMPLATES}/") and path.endswith(".jinja")
    return path in MODEL_FILES or path.startswith(MODEL_FILE_BEGINNINGS)


def is_among(name: str, paths: Iterable[str]) -> bool:
    """Whether a file is one of `paths`, or lies in a directory that is; `.` is the work tree itself."""
    clean = [path.removeprefix("./").rstrip("/") or "." for path in paths if path]
    return any(path == "." or name == path or name.startswith(f"{path}/") for path in clean)


def tracked(history: History, also: Iterable[str] = ()) -> Tracked:
    """The tracked files of the work tree.

    `also`: paths that count as tracked too, such as those of the commit that HEAD will go to.
    """
    committed = history.last_files()
    paths = {RECIPE_FILE, *committed, *added(history), *also}
    left_out: dict[str, str] = {}
    taken = _taken(history.root, paths)
    for path in sorted({*_base_files(history), *_found(history.root, left_out)} - paths):
        why = _problem(history.root, path)
        if why is None and taken.setdefault(_folded(path), path) != path:
            why = _alike(taken[_folded(path)])
        if why is None:
            paths.add(path)
        elif why:
            left_out[path] = why
    return Tracked(tuple(sorted(paths)), dict(sorted(left_out.items())))


def snapshot(history: History, also: Iterable[str] = ()) -> dict[str, str]:
    """The tracked files that are there: path → blob id. `also` as for `tracked`."""
    return ids(history, tracked(history, also).paths)


def ids(history: History, paths: Iterable[str]) -> dict[str, str]:
    """path → blob id of those `paths` that exist. Raises `SystemFault` for a file that cannot be read."""
    return {path: id for path in paths if (id := text_files.id_of(history.root, path)) is not None}


def untracked(history: History, known: Tracked) -> list[str]:
    """The untracked files in order; a directory without tracked files stands for all in it, as `runs/`."""
    return sorted(_untracked(history.root, "", {*known.paths, *known.left_out}))


def untracked_files(history: History, known: Tracked) -> list[str]:
    """The untracked files, each one in directories too, that a blob can hold."""
    found: list[str] = []
    for name in untracked(history, known):
        found += _text_files_below(history.root, name[:-1]) if name.endswith("/") else [name]
    return [path for path in found if _problem(history.root, path) is None]


# -- files that `add` names ----------------------------------------------------------------------------------


def in_the_way(paths: Sequence[str], *, can_force: bool = False) -> Refused:
    """The refusal of a command that would write over files that are not tracked.

    `can_force`: whether the command takes `force`.
    """
    it = "it" if len(paths) == 1 else "them"
    forced = (", or ", Keyword(force=True), f" overwrites {it}") if can_force else ()
    return Refused(
        f"untracked files would be overwritten: {listed(paths)}", hint=(f"move {it} away", *forced)
    )


def added(history: History) -> tuple[str, ...]:
    """The names in `state/added`."""
    return (
        history.store.state(ADDED).decoded(_decoded, Call("add", Blank("FILE")), " names a file in it again")
        or ()
    )


def _decoded(value: Any) -> tuple[str, ...]:
    if type(value) is not list or any(type(path) is not str or file_path_problem(path) for path in value):
        raise TypeError
    return tuple(value)


def named_files(history: History, paths: Sequence[Path]) -> list[str] | None:
    """The text files that `add` was given, by their names in the work tree.

    A directory means all files in it. None if the only path is that of a checkpoint. Raises `InvalidInput`
    that names a file which no commit can hold.
    """
    root = files.resolved(history.root)
    found: dict[str, None] = {}
    for path in paths:
        name = _name_in(root, path) if "\0" not in str(path) else None
        if name is None or _is_checkpoint(root, name):
            if len(paths) == 1:
                return None
            raise UsageError(
                f"{path} is not a text file of the work tree; add a fine-tune in a separate command"
            )
        inside = _text_files_below(root, name) if (root / name).is_dir() else [name]
        found.update(dict.fromkeys(inside))
    known = tracked(history).paths
    taken = _taken(root, known)
    for name in found:
        why = file_path_problem(name) or _problem(root, name) or _weights(root / name)
        if why is None and taken.setdefault(_folded(name), name) != name:
            why = _alike(taken[_folded(name)])
        if why and name not in known:
            hint = why.hint if isinstance(why, Note) else None
            raise InvalidInput(f"{name!r:.200} cannot be tracked: {why}", hint=hint)
    return [name for name in found if name not in known]


def names_of(history: History, paths: Sequence[Path]) -> list[str]:
    """The paths that lie in the work tree, by their names there."""
    root = files.resolved(history.root)
    return [name for path in paths if (name := _name_in(root, path)) is not None]


def _name_in(root: Path, path: Path) -> str | None:
    """The path of a file relative to the work tree; None for a path outside, or the work tree itself."""
    place = path.absolute()
    place = (
        files.resolved(place.parent) / place.name if place.name not in ("", "..") else files.resolved(place)
    )
    if root not in place.parents:
        return None
    return place.relative_to(root).as_posix()


def _is_checkpoint(root: Path, name: str) -> bool:
    """Whether a path is one to import: it holds weights, or is not there, which the import says best."""
    from persona.weights import foreign

    place = root / name
    if place.is_dir():
        inside = [item.name for item in files.names_in(place)]
        return any(foreign.is_weight_name(item) or item in _WEIGHT_DIRECTORY for item in inside)
    return not os.path.lexists(place) or foreign.is_weight_name(name)


def _text_files_below(root: Path, folder: str) -> list[str]:
    """Every file below a directory that is to be tracked."""
    found: list[str] = []
    pending = [folder]
    while pending:
        here = pending.pop()
        for item in files.names_in(root / here):
            path = f"{here}/{item.name}"
            if item.name in RESERVED_FILES or files.is_unfinished(item.name):
                continue
            if item.is_dir(follow_symlinks=False):
                pending.append(path)
            else:
                found.append(path)
    return sorted(found)


def _weights(place: Path) -> str | None:
    """The reason why a file is weights, not text; None if it is text."""
    from persona.weights import foreign

    with InputFile(place) as file:
        known = foreign.recognise(file.read(0, foreign.HEAD_BYTES))
    return known.what if known is not None and known.holds_weights else None


def _taken(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """The `paths` that exist, by their names without case, as some file systems compare them."""
    return {_folded(path): path for path in paths if os.path.lexists(root / path)}


def _alike(other: str) -> str:
    return f"{other} is tracked already, and some file systems cannot tell the two names apart"


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


# -- what lies there -----------------------------------------------------------------------------------------


def _base_files(history: History) -> set[str]:
    """Names of the files of HEAD's base, and of recipe.toml's base if that is another one."""
    head = history.last_commit()
    names = set(history.base(history.recipe_of(head).base).files) if head is not None else set[str]()
    with suppress(PersonaError):  # the caller that needs the text reports its error
        data = text_files.read_recipe_text(history.root)
        if text_files.blob_id(data) != history.last_files().get(RECIPE_FILE):
            names |= set(history.base(history.read_recipe(data).base).files)
    return names


def _found(root: Path, left_out: dict[str, str]) -> Iterator[str]:
    """Files that are tracked for their name or for lying below `graph/`."""
    for item in files.names_in(root):
        if is_model_file(item.name) and not item.is_dir(follow_symlinks=False):
            yield item.name
    yield from (path for path in _found_below(root, TEMPLATES, left_out) if is_model_file(path))
    yield from _found_below(root, GRAPH, left_out)


def _found_below(root: Path, folder: str, left_out: dict[str, str]) -> Iterator[str]:
    """The visible files below a directory of the work tree."""
    if (root / folder).is_symlink():
        left_out[folder] = "a link, which is not followed"
        return
    pending = [folder]
    while pending:
        here = pending.pop()
        try:
            items = files.names_in(root / here)
        except SystemFault as error:
            left_out[f"{here}/"] = error.message
            continue
        for item in items:
            path = f"{here}/{item.name}"
            if item.name.startswith("."):
                continue
            if item.is_dir(follow_symlinks=False):
                pending.append(path)
            else:
                yield path


def _problem(root: Path, path: str) -> str | None:
    """The reason why no commit can hold the file at `path`; None if one can; empty if there is no file."""
    from persona.weights.foreign import is_weight_name

    if why := file_path_problem(path):
        return why
    if is_weight_name(path):
        return Note(
            "weights are not tracked", (Call("add", Blank("PATH")), " imports the directory of a fine-tune")
        )
    place = root / path
    try:
        status = os.stat(place)
    except FileNotFoundError:
        return "a link that leads nowhere" if place.is_symlink() else ""
    except NotADirectoryError:
        return ""
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if stat.S_ISDIR(status.st_mode):
        return "a link to a directory, which is not followed" if place.is_symlink() else ""
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if not stays_inside(root, place):
        return "a link that leads out of the work tree"
    if status.st_size > MAX_TEXT_FILE_BYTES:
        return f"larger than {MAX_TEXT_FILE_BYTES // MIB} MiB"
    try:
        with InputFile(place):
            return None
    except PersonaError as error:
        return error.message


def _untracked(root: Path, folder: str, known: set[str]) -> Iterator[str]:
    from persona.weights.writer import weight_files

    weights = set(weight_files(root)) if not folder else set()
    for item in files.names_in(root / folder):
        path = folder + item.name
        if path in known or f"{path}/" in known or item.name in weights or _is_hidden(item.name):
            continue
        if not item.is_dir(follow_symlinks=False):
            yield path
        elif any(name.startswith(f"{path}/") for name in known):
            yield from _untracked(root, f"{path}/", known)
        elif _holds_a_file(root / path):
            yield f"{path}/"


def _holds_a_file(directory: Path) -> bool:
    pending = [directory]
    while pending:
        try:
            items = files.names_in(pending.pop())
        except SystemFault:
            return True
        for item in items:
            if item.is_dir(follow_symlinks=False):
                pending.append(Path(item.path))
            elif not _is_hidden(item.name):
                return True
    return False


def _is_hidden(name: str) -> bool:
    """Whether a name is of the store, of weights or of a writer's files, which no list shows."""
    from persona.weights.foreign import is_weight_name

    return name in RESERVED_FILES or is_weight_name(name) or files.is_unfinished(name)
