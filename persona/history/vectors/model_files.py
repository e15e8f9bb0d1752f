"""**model file** — a text file that a model loads with: its config, its tokenizer, its chat template.

`--files` takes the model files of a fine-tune along. A note says which files came with which vector. So if
the vector is dropped, its files can be, too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from persona.errors import Blank, Call, Hint, Keyword, Note, PersonaError, Refused, WorkFile, listed
from persona.history import note_refs
from persona.history.history import History
from persona.history.vectors import lookup, model_config
from persona.history.worktree import text_files, tracking
from persona.objects import note
from persona.objects.base import Base
from persona.objects.recipe import Recipe
from persona.weights.checkpoint import Checkpoint

_MODULES = "modules.json"
"""The list of the modules of a sentence-transformers model, each in a directory of its own."""

Texts = dict[str, bytes]
"""Path → content of model files."""


def of_checkpoint(checkpoint: Checkpoint, base: Base) -> Texts:
    """The model files of a fine-tune.

    In a subdirectory, they are those of a module, additional chat templates, and files that the base has.
    """
    folders = {path.split("/")[0] for path in base.files if "/" in path} | _modules(checkpoint)
    return {
        path: checkpoint.read_text(path)
        for path in checkpoint.text_files
        if tracking.is_model_file(path)
        or (path.split("/")[0] in folders and (path in base.files or _ends_as_one(path)))
    }


def differing(history: History, texts: Texts) -> Texts:
    """Those that differ from the work tree's."""
    return {path: data for path, data in texts.items() if text_files.read(history.root, path) != data}


def replaceable(history: History, texts: Collection[str]) -> dict[str, str]:
    """The blob ids of the work tree's files of these names.

    Raises `Refused` for an uncommitted edit that the imported files would overwrite.
    """
    committed = history.files_of(history.head_commit())
    found = {file: id for file in texts if (id := text_files.id_of(history.root, file)) is not None}
    edited = [file for file, id in found.items() if id != committed.get(file)]
    if edited:
        raise Refused(
            f"uncommitted edits would be overwritten: {', '.join(edited)}",
            hint=(
                "commit first, or put it back with ",
                Call("restore", WorkFile(edited[0])),
                ", or leave out ",
                Keyword(files=True),
            ),
        )
    return found


def notes(texts: Collection[str], taken: Collection[str]) -> list[str]:
    """The sentences on the files that differ, of which some were imported."""
    found: list[str] = [f"imported too: {listed(list(taken))}"] if taken else []
    if left := [path for path in texts if path not in taken]:
        differ, them = ("differs", "it") if len(left) == 1 else ("differ", "them")
        hint = (Keyword(files=True), f" imports {them} too")
        found.append(Note(f"not imported: {listed(left)}, which {differ} from the work tree's", hint))
    return found


def remember(history: History, id: str, base: Base, texts: Texts, written: Collection[str]) -> None:
    """Keeps a note on the files that came with a vector: those that differ from the base's.

    `written`: the files that were imported; config.json may have been changed on the way.
    """
    blobs = {path: text_files.blob_id(data) for path, data in texts.items()}
    blobs |= tracking.ids(history, written)
    if brought := {path: blob for path, blob in blobs.items() if base.files.get(path) != blob}:
        note_refs.keep(history, note.Note(id, "vector", "provenance", {"files": brought}))


# -- when the vector is dropped ------------------------------------------------------------------------------


class GivenBack(NamedTuple):
    """Edits that put files back (None removes one), and sentences on them."""

    edits: dict[str, bytes | None]
    notes: list[str]


def given_back(
    history: History, dropped: Iterable[str], recipe: Recipe, *, keep: bool = False, commits: bool = False
) -> GivenBack:
    """The edits that undo the files of vectors that `recipe` has no more.

    `dropped`: the ids of the vectors. A file becomes the base's again, or that of another vector of `recipe`.
    A file that was edited since stays. With `keep`, all stay. `commits`: whether the command makes a commit.
    """
    came: dict[str, set[str]] = {}
    others: dict[str, str] = {}
    rest = {term.vector for term in recipe.terms}
    gone = set(dropped) - rest
    for one in note_refs.all_of(history, "provenance"):
        files = one.data.get("files")
        if not isinstance(files, dict):
            continue
        for path, blob in files.items():
            if one.about in gone:
                came.setdefault(path, set()).add(blob)
            elif one.about in rest:
                others[path] = blob
    base = history.base(recipe.base)
    found = GivenBack({}, [])
    stay: list[str] = []
    for path, blobs in sorted(came.items()):
        now, want = text_files.id_of(history.root, path), others.get(path, base.files.get(path))
        if now is None or now == want:
            continue
        if now in blobs and not keep:
            found.edits[path] = _content(history, want, base.files.get(path))
        else:
            stay.append(path)
    grows = any(lookup.grown(history, history.vector(id)) for id in gone)
    config = model_config.edit_of(history, found.edits, recipe, grows=grows)
    if config and not found.edits.keys() >= config.keys():
        found.notes.append(f"{model_config.CONFIG} has the size and the ties of the weights again")
    if found.edits:
        said, hint = f"came with the vector, and {_put_back(found.edits)}", _way_back(history, found, commits)
        found.notes.append(Note(said, hint))
    found.edits.update(config)
    if stay:
        was = "" if keep else ", and edited since"
        found.notes.append(f"came with the vector{was}, and stay: {listed(stay)}")
    return found


def _way_back(history: History, given: GivenBack, commits: bool) -> Hint | None:
    """How to have the files back, if HEAD's commit holds them all as they are now."""
    held = history.files_of(history.head_commit())
    if any(text_files.id_of(history.root, path) != held.get(path) for path in given.edits):
        return None
    (first, *more) = given.edits
    file = Blank("FILE") if more else WorkFile(first)
    again = Call("restore", file, rev="HEAD~1") if commits else Call("restore", file)
    return (again, " brings one of them back" if more else " brings it back")


def _put_back(edits: Mapping[str, bytes | None]) -> str:
    back = [path for path, data in edits.items() if data is not None]
    removed = [path for path, data in edits.items() if data is None]
    said = [f"put back: {listed(back)}"] if back else []
    said += [f"removed: {listed(removed)}"] if removed else []
    return "; ".join(said)


def _content(history: History, want: str | None, other: str | None) -> bytes | None:
    for id in (want, other):
        try:
            return None if id is None else history.blob(id)
        except PersonaError:  # another vector's file that no commit ever held
            continue
    return None


def _ends_as_one(path: str) -> bool:
    return tracking.is_model_file(path.rpartition("/")[2])


def _modules(checkpoint: Checkpoint) -> set[str]:
    """The directories of a sentence-transformers model's modules."""
    if _MODULES not in checkpoint.text_files:
        return set()
    try:
        modules = json.loads(checkpoint.read_text(_MODULES))
    except (ValueError, RecursionError):
        return set()
    paths = [one.get("path") for one in modules if isinstance(one, dict)] if isinstance(modules, list) else []
    return {Path(path).parts[0] for path in paths if isinstance(path, str) and path}
