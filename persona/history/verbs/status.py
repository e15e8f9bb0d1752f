"""`status`: where HEAD stands, what the work tree changes, and what its weights are. Reads no chunk."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from persona.errors import InvalidInput
from persona.history.history import History
from persona.history.query_results import LeftOut, Status
from persona.history.recipes.text import RECIPE_FILE
from persona.history.results import Diff, Head
from persona.history.vectors.trimmed import kept_terms
from persona.history.worktree import text_files, tracking, weights
from persona.history.worktree.changes import diff_worktree
from persona.history.worktree.sequence import BISECT, is_sequence_under_way, is_unmerged
from persona.objects.tree import differing
from persona.weights.writer import foreign_weight_files

if TYPE_CHECKING:
    from persona.history.sequence_views import UnderWay


def status(history: History) -> Status:
    """Compares recipe and text files with HEAD, and reports the state of the weights. Reads no chunk."""
    head = history.head()
    id = history.head_commit()
    tree = history.tree_of(id)
    committed = history.files_of_tree(tree)
    known = tracking.tracked(history)
    here = tracking.ids(history, known.paths)
    changed = differing(committed, here)
    recipe = head_recipe = history.recipe(tree.recipe)
    difference: Diff | None = None
    problem: str | None = None
    readable = True
    try:
        if RECIPE_FILE in changed:
            recipe = text_files.recipe(history).recipe
        difference = diff_worktree(history, id, here)
    except InvalidInput as error:
        problem, readable = error.note, False
    found = weights.look(history)
    return Status(
        branch=head.branch,
        head=id,
        recipe_changed=RECIPE_FILE in changed,
        files_changed=tuple(path for path in changed if path != RECIPE_FILE),
        weights=weights.describe(found, id, head_recipe, recipe if readable else None),
        kept=kept_terms(history, recipe, head_recipe) if recipe != head_recipe else (),
        untracked=tuple(tracking.untracked(history, known)),
        left_out=tuple(LeftOut(path, why) for path, why in known.left_out.items()),
        in_the_way=tuple(foreign_weight_files(history.root)),
        diff=difference,
        problem=problem,
        bisect=_bisect(history),
        sequence=_sequence(history),
    )


def _sequence(history: History) -> UnderWay | None:
    """What has stopped, or left conflicts; None if there is nothing."""
    if not (is_sequence_under_way(history) or is_unmerged(history)):
        return None
    from persona.history.sequencing.showing import seen

    return seen(history)


def _bisect(history: History) -> Head | None:
    """Where the bisect began that is under way; None if there is none."""
    if not os.path.lexists(history.store.state(BISECT).path):
        return None
    from persona.history.bisecting.search import read_search

    search = read_search(history)
    return None if search is None else search.begin
