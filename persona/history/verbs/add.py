"""`add`: a fine-tune becomes a vector of `recipe.toml`, or text files are tracked from now on."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from persona.history.arguments import AnyPath
from persona.history.history import History
from persona.history.options import ImportOptions
from persona.history.results import CommitResult
from persona.history.vectors import importing
from persona.history.worktree import tracking
from persona.history.worktree.changing import changing
from persona.history.worktree.sequence import is_sequence_under_way
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
            importing.refuse_without_path({**how, "files": False})
            tree.track(texts)
            if is_sequence_under_way(history):
                from persona.history.sequencing.resolving import settle_named

                settle_named(tree, paths)
            return CommitResult(None, head.branch, parents, (), files=tuple(texts))
        added = importing.add(tree, source, how)
    return CommitResult(None, head.branch, parents, (added.change,), added.notes)
