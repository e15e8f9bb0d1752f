"""`add`: a fine-tune becomes a vector of `recipe.toml`, or text files are tracked from now on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from persona.history.history import History
from persona.history.options import ImportOptions
from persona.history.results import CommitResult
from persona.history.vectors import importing
from persona.history.worktree import tracking
from persona.history.worktree.changing import changing


def add(history: History, paths: Sequence[Path], options: ImportOptions) -> CommitResult:
    """See `Repository.add`."""
    with changing(history) as tree:
        head = history.head()
        parents = (head.id,) if head.id else ()
        texts = tracking.named_files(history, paths)
        if texts is not None:
            importing.refuse_without_path({**options, "files": False})
            tree.track(texts)
            return CommitResult(None, head.branch, parents, (), files=tuple(texts))
        added = importing.add(tree, paths[0], options)
    return CommitResult(None, head.branch, parents, (added.change,), added.notes)
