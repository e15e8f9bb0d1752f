"""`add`: a fine-tune becomes a vector of `recipe.toml`, or text files are tracked from now on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from persona.history.arguments import AnyPath, refuse_without_path
from persona.history.history import History
from persona.history.options import ImportOptions
from persona.history.recipes.text import RECIPE_FILE
from persona.history.results import CommitResult
from persona.history.vectors import importing
from persona.history.worktree import text_files, tracking
from persona.history.worktree.changing import changing
from persona.history.worktree.sequence import is_sequence_under_way, is_unmerged
from persona.weights.hub import located


def add(history: History, path: AnyPath, *more: AnyPath, **options: Unpack[ImportOptions]) -> CommitResult:
    """Imports a fine-tune as a vector and names it in `recipe.toml`; `id` of the result is None.

    `path` may also be a model of the Hugging Face hub, "org/name": it is taken from the hub's cache, or
    downloaded into it.

    `name`: by default PATH's last part (the run's for `checkpoint-N`). A vector of that name gets the new
    content. Without `name`, this raises `Refused` if the old vector is known to come from another place,
    unless `replace`. `only` and `except_`: globs of tensor names, or one glob. Raises `InvalidInput` for a
    filter that matches no tensor, and for a checkpoint that cannot be imported.

    If the paths are text files of the work tree, or directories of them, they are tracked from now on;
    `files` of the result has their names. Raises `InvalidInput` for a file that no commit can hold.
    """
    paths = [Path(path), *map(Path, more)]
    how = history.in_force(ImportOptions, options)
    source = located(paths[0], how["progress"]) if not more else paths[0]  # a download takes no lock
    with changing(history) as tree:
        head = history.head()
        parents = (head.id,) if head.id else ()
        texts = tracking.named_files(history, paths)
        if texts is not None:
            refuse_without_path({**how, "files": False})
            named = tracking.names_of(history, paths)
            marked = _with_markers(history, named)
            tree.track([*texts, *marked])
            if is_sequence_under_way(history) or is_unmerged(history):
                from persona.history.sequencing.unmerged import settle_named

                settle_named(tree, named)
            notes = tuple(
                f"markers of a conflict stand in {path}, and the next commit takes them" for path in marked
            )
            return CommitResult(None, head.branch, parents, (), notes, files=tuple(texts))
        added = importing.add(tree, source, how)
    return CommitResult(None, head.branch, parents, (added.change,), added.notes)


def _with_markers(history: History, names: Sequence[str]) -> list[str]:
    """The tracked files among `names` in which markers of a conflict stand. `Refused` for `recipe.toml`."""
    found: list[str] = []
    for path in tracking.tracked(history).paths:
        data = text_files.read(history.root, path) if tracking.is_among(path, names) else None
        if data is None or (b"<<<<<<< " not in data and b">>>>>>> " not in data):
            continue
        if path == RECIPE_FILE:
            from persona.history.commit_builder import refuse_pairs

            refuse_pairs(data)
        else:
            from persona.history.recipes.line_conflicts import marked_lines

            if marked_lines(data.decode("utf-8", "replace")):
                found.append(path)
    return found
