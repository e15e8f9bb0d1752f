"""The weights of a new commit, computed at once: the setting `commit.checkout`."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from persona.errors import PersonaError
from persona.history.history import History
from persona.history.options import ImportOptions, RunOptions
from persona.history.worktree import in_place
from persona.history.worktree.changing import changing
from persona.objects.ids import abbreviate

if TYPE_CHECKING:
    from persona.history.results import CommitResult


def wanted(
    history: History, path: Path | None = None, given: ImportOptions | None = None
) -> RunOptions | None:
    """The options for computing the weights of a commit of `path` at once; None without `commit.checkout`.

    Wrong settings, missing devices, and weights that would be lost are refused before anything is recorded.
    """
    if not history.config.read("commit.checkout"):
        return None
    shared: RunOptions = {}
    if given is not None:
        shared = {"threads": given["threads"], "progress": given["progress"]}
    options = history.in_force(RunOptions, shared)
    from persona.history.computing import device_choice

    device_choice(options)
    if path is None or not in_place.is_work_tree(history, path):
        in_place.refuse_losing(history)
    return options


def at_once(history: History, made: CommitResult, options: RunOptions | None) -> CommitResult:
    """The result of a commit, with its weights computed if `options` are given.

    If that fails, the commit stands, and the error becomes the result's `failure`.
    """
    if options is None or made.id is None:
        return made
    from persona.history.computing import device_choice
    from persona.history.placing import as_it_stands

    started = time.perf_counter()
    try:
        with changing(history) as tree:
            found = as_it_stands(tree, options, device_choice(options), started)
    except PersonaError as error:
        return replace(made, failure=error)
    except BaseException:  # Ctrl-C, no memory
        history.notes.append(f"commit {abbreviate(made.id)} is made, but its weights were not computed")
        raise
    return replace(made, checkout=found, notes=(*made.notes, *found.notes))
