"""**model file** — a text file that a model loads with: its config, its tokenizer, its chat template.

`--files` takes the model files of a fine-tune along. A note says which files came with which vector. So if
the vector is dropped, its files can be, too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from persona.errors import (
    Blank,
    Call,
    Hint,
    IntegrityError,
    Keyword,
    Note,
    PersonaError,
    Refused,
    WorkFile,
    listed,
)
from persona.history import note_refs
from persona.history.history import History
from persona.history.vectors import lookup, model_config
from persona.history.worktree import text_files, tracking
from persona.objects import note
from persona.objects.base import Base
from persona.objects.ids import is_id
from persona.objects.recipe import Recipe
from persona.weights.checkpoint import Checkpoint

_MODULES = "modules.json"
"""The list of the modules of a sentence-transformers model, each in a directory of its own."""

_LOADED = (".py", ".model", ".spm", ".tiktoken")
"""The ends of names of files that a model may load with: code of its own, and tokenizers."""

Texts = dict[str, bytes]
"""Path → content of model files."""
Edits = Mapping[str, bytes | None]
"""Path → new content of a file; None removes it."""


def of_checkpoint(checkpoint: Checkpoint, base: Base) -> Texts:
    """The model files of a fine-tune.

    Code and tokenizers under names of their own are model files if the base has them. In a subdirectory, they
    are those of a module, additional chat templates, and files that the base has.
    """
    folders = {path.split("/")[0] for path in base.files if "/" in path} | _modules(checkpoint)
    return {
        path: checkpoint.read_text(path)
        for path in checkpoint.text_files
        if tracking.is_model_file(path)
        or (path in base.files and path.endswith(_LOADED))
        or (path.split("/")[0] in folders and (path in base.files or _ends_as_one(path)))
    }


def differing(history: History, texts: Texts) -> Texts:
    """Those that differ from the work tree's."""
    return {path: data for path, data in texts.items() if text_files.read(history.root, path) != data}


def replaceable(history: History, texts: Collection[str], *, asked: bool) -> dict[str, str]:
    """The blob ids of the work tree's files of these names.

    `asked`: with `files`. Raises `Refused` for an uncommitted edit that the imported files would overwrite. A
    file whose bytes are stored is none, and neither is a config.json that only follows the recipe.
    """
    committed = history.files_of(history.head_commit())
    found = {file: id for file in texts if (id := text_files.id_of(history.root, file)) is not None}
    origins = Origins(history)
    edited = [
        file
        for file, id in found.items()
        if not origins.alike(file, id, committed.get(file)) and not _is_stored(history, id)
    ]
    if edited:
        paths = [WorkFile(file) for file in edited]
        it, back = ("them", Call("restore", paths)) if len(paths) > 1 else ("it", Call("restore", *paths))
        without = (", or leave out ", Keyword(files=True)) if asked else ()
        hint: Hint = (f"commit first, or put {it} back with ", back, *without)
        raise Refused(f"uncommitted edits would be overwritten: {', '.join(edited)}", hint=hint)
    return found


def _is_stored(history: History, id: str) -> bool:
    return is_id(id) and history.store.objects.kind_of(id) == "blob"


def notes(history: History, texts: Texts, taken: Collection[str]) -> list[str]:
    """The sentences on the files that differ, of which some were imported."""
    found: list[str] = [f"imported too: {listed(list(taken))}"] if taken else []
    left = [path for path in texts if path not in taken]
    ours = text_files.read(history.root, model_config.CONFIG) if model_config.CONFIG in left else None
    if ours is not None and (keys := model_config.computing(ours, texts[model_config.CONFIG])):
        left.remove(model_config.CONFIG)
        said = f"not imported: {model_config.CONFIG}, with which the model computes something else"
        found.append(Note(f"{said} ({listed(keys)})", (Keyword(files=True), " imports it too")))
    if left:
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


def carry_over(history: History, ids: Mapping[str, str], base: Base, edits: Edits) -> None:
    """Keeps notes on the files of vectors for the vectors that take their place on a base: old id → new id.

    `edits`: of the work tree's files. A config.json that came with a vector is edited for the base.
    """
    origins, now = Origins(history), text_files.id_of(history.root, model_config.CONFIG)
    edited = edits.get(model_config.CONFIG)
    for old, new in ids.items():
        files = {path: set(blobs) for path, blobs in origins.of.get(old, {}).items()}
        if now is not None and edited is not None and origins.brought(model_config.CONFIG, now, [old]):
            files[model_config.CONFIG] = {text_files.blob_id(edited)}
        for path, blobs in files.items():
            for blob in blobs - {base.files.get(path)}:
                note_refs.keep(history, note.Note(new, "vector", "provenance", {"files": {path: blob}}))


def here(history: History) -> Texts:
    """The model files of the work tree."""
    paths = filter(tracking.is_model_file, tracking.tracked(history).paths)
    read = {path: text_files.read(history.root, path) for path in paths}
    return {path: data for path, data in read.items() if data is not None}


def grows(history: History, vectors: Iterable[str]) -> bool:
    """Whether one of some vectors has rows of its own, or a part of it has."""
    for id in vectors:
        with suppress(PersonaError):  # a damaged one can still be dropped
            if lookup.grown(history, history.vector(id)):
                return True
    return False


def unedited(history: History, vector: str) -> set[str]:
    """The files that came with a vector, and are in the work tree as they came."""
    origins = Origins(history)
    now = {path: text_files.id_of(history.root, path) for path in origins.of.get(vector, ())}
    return {path for path, id in now.items() if id and origins.brought(path, id, [vector])}


# -- when the vector is dropped ------------------------------------------------------------------------------


class Origins:
    """Which files came with which vectors. `of`: vector → path → the ids of blobs."""

    def __init__(self, history: History) -> None:
        self._history = history
        self.of: dict[str, dict[str, set[str]]] = {}
        for one in note_refs.all_of(history, "provenance"):
            files = one.data.get("files")
            for path, blob in files.items() if isinstance(files, dict) else ():
                self.of.setdefault(one.about, {}).setdefault(path, set()).add(blob)

    def brought(self, path: str, id: str, vectors: Iterable[str]) -> bool:
        """Whether a file of this id came with one of some vectors."""
        known = {blob for vector in vectors for blob in self.of.get(vector, {}).get(path, ())}
        return any(self.alike(path, id, blob) for blob in known)

    def alike(self, path: str, id: str, other: str | None) -> bool:
        """Whether two versions of a file are equal, but for keys of config.json that follow the recipe."""
        if id == other or other is None or path != model_config.CONFIG:
            return id == other
        one, two = self._config(id), self._config(other)
        return one is not None and two is not None and model_config.alike(one, two)

    def before(self, path: str, recipe: Recipe, head: str | None = None) -> str | None:
        """The id of the last version of a file in the history that came with no vector that is gone.

        A version came with a vector only if its commit's recipe has the vector. `recipe` has those that are
        not gone. `head`: where the history ends, by default at HEAD. None if there was no file.
        """
        history, rest = self._history, {term.vector for term in recipe.terms}
        commit = head or history.head_commit()
        with suppress(IntegrityError):
            while commit:
                held = history.recipe_of(commit)
                if held.base != recipe.base:
                    break
                id, vectors = history.files_of(commit).get(path), {term.vector for term in held.terms}
                if id is None or self.brought(path, id, rest) or not self.brought(path, id, vectors - rest):
                    return id
                commit = next(iter(history.commit(commit).parents), "")
        return history.base(recipe.base).files.get(path)

    def _config(self, id: str) -> bytes | None:
        """The text of a config.json of this id, from the store or the work tree."""
        with suppress(PersonaError):
            return self._history.blob(id)
        if text_files.id_of(self._history.root, model_config.CONFIG) == id:
            return text_files.read(self._history.root, model_config.CONFIG)
        return None


class GivenBack(NamedTuple):
    """Edits that put files back (None removes one), and sentences on them."""

    edits: dict[str, bytes | None]
    notes: list[str]


def given_back(
    history: History,
    dropped: Iterable[str],
    recipe: Recipe,
    *,
    keep: bool = False,
    commits: bool = False,
    taken: Collection[str] = (),
    head: str | None = None,
) -> GivenBack:
    """The edits that undo the files of vectors that `recipe` has no more.

    `dropped`: the ids of the vectors. A file becomes the version before them (`Origins.before`). One that was
    edited since stays, and so does one that came with a vector of `recipe`, too. With `keep`, all stay.
    `commits`: whether the command makes a commit. `taken`: files of the vector that takes their place.
    `head`: the commit before the command, by default HEAD's.
    """
    origins, rest = Origins(history), {term.vector for term in recipe.terms}
    gone = set(dropped) - rest
    base, held = history.base(recipe.base), history.files_of(head or history.head_commit())
    found = GivenBack({}, [])
    stay: list[str] = []
    for path in sorted({path for id in gone for path in origins.of.get(id, ())} - {*taken}):
        now = text_files.id_of(history.root, path)
        if now is None or origins.brought(path, now, rest):
            continue
        want = origins.before(path, recipe, head)
        if now == want and (now != held.get(path) or now == base.files.get(path)):
            continue  # it is as it was before
        if origins.brought(path, now, gone) and not keep:
            found.edits[path] = None if want is None else history.blob(want)
        elif keep or now == want or not origins.alike(path, now, want):
            stay.append(path)
    own = set(found.edits)
    if model_config.CONFIG not in taken:
        more = grows(history, [*gone, *rest])
        found.edits.update(model_config.edit_of(history, found.edits, recipe, grows=more))
    config = model_config.CONFIG
    if config in found.edits and found.edits[config] == text_files.read(history.root, config):
        del found.edits[config]
    own &= found.edits.keys()
    if config in found.edits.keys() - own:
        rest_of_it = f"; the rest of it {'' if keep else 'was edited and '}stays"
        found.notes.append(model_config.FITTED + (rest_of_it if config in stay else ""))
        stay = [path for path in stay if path != config]
    if own:
        back = {path: found.edits[path] for path in own}
        said = f"came with the vector, and {_put_back(back)}"
        found.notes.append(Note(said, _way_back(history, back, commits)))
    if stay:
        was = "" if keep else ", and edited since"
        found.notes.append(f"came with the vector{was}, and stay: {listed(stay)}")
    return found


def _way_back(history: History, edits: Collection[str], commits: bool) -> Hint | None:
    """How to have the files back, if HEAD's commit holds them all as they are now."""
    held = history.files_of(history.head_commit())
    if any(text_files.id_of(history.root, path) != held.get(path) for path in edits):
        return None
    (first, *more) = sorted(edits)
    file = Blank("FILE") if more else WorkFile(first)
    again = Call("restore", file, rev="HEAD~1") if commits else Call("restore", file)
    return (again, " brings one of them back" if more else " brings it back")


def _put_back(edits: Mapping[str, bytes | None]) -> str:
    back = [path for path, data in sorted(edits.items()) if data is not None]
    removed = [path for path, data in sorted(edits.items()) if data is None]
    said = [f"put back: {listed(back)}"] if back else []
    said += [f"removed: {listed(removed)}"] if removed else []
    return "; ".join(said)


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
