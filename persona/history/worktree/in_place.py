"""Weights in the work tree that were trained there since persona computed them.

A commit without a path does not hold them. `add . --onto REV` imports them as a vector.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from persona.errors import Blank, Call, Keyword, Note, Refused, UsageError, WorkFile
from persona.history.history import History
from persona.history.names.revisions import resolve
from persona.history.recipes.text import RECIPE_FILE
from persona.history.worktree import text_files, weights
from persona.history.worktree.locked import LockedTree
from persona.objects.ids import abbreviate
from persona.objects.recipe import Recipe
from persona.store.files import resolved

_TAKEN: Final = (
    "the weights here stay as they were trained until the next checkout. The weights that checkout computes"
    " {}; to keep the trained bytes, copy the files first"
)


def is_work_tree(history: History, path: Path) -> bool:
    """Whether a path stands for the weights in the work tree itself."""
    directory = path if path.is_dir() else path.parent
    return path.exists() and resolved(directory) == resolved(history.root)


def check(tree: LockedTree, path: Path, base: str, onto: str | None, name: str | None) -> None:
    """Checks that the work tree's own weights can be imported against the base with the id `base`.

    Raises `UsageError` if there are no weights, or if `onto` or `name` is missing. Raises `Refused` if the
    weights are known to be of another revision than `onto`, because the difference would be of two recipes,
    not of a training.
    """
    history = tree.history
    found = weights.look(history, tree)
    beside = not path.is_dir() and path.name not in found.files  # saved under a name that no reader knows
    if found.state == "absent" and not beside:
        raise UsageError(
            f"{path} is the work tree itself, and no weights lie in it; to track text files, name them"
        )
    if onto is None or name is None:
        raise UsageError(
            f"{path} {'lies in the work tree' if beside else 'is the work tree itself'}",
            hint=(
                "say which revision it was trained from with ",
                Keyword(onto=Blank("REV")),
                " or ",
                Keyword(onto="base"),
                ", and name the vector with ",
                Keyword(name=Blank("NAME")),
                "" if beside else "; to track text files, name them",
            ),
        )
    record = found.record
    if beside or record is None or not record.key or _is_of(history, record, base, onto):
        return
    elsewhere = "if they came from elsewhere, put them into a directory of their own and add that"
    if record.revision is None:
        raise Refused(
            f"the weights here were computed for a recipe that no commit holds, not for {onto}",
            hint=f"commit that recipe first; {elsewhere}",
        )
    right = abbreviate(record.revision)
    raise Refused(
        f"the weights here were computed for {right}, not for {onto}",
        hint=("give ", Keyword(onto=right), f"; {elsewhere}"),
    )


def taken_note(recipe: Recipe, name: str, has_all: bool) -> str:
    """The note on weights that were imported as the vector `name`.

    `has_all`: whether the recipe gives the weights that they were trained from.
    """
    term = recipe.by_name[name]
    is_whole = term.alpha == "1" and not term.only and not term.except_ and has_all
    return _TAKEN.format("may differ from them by a rounding" if is_whole else "are others")


def refuse_losing(history: History) -> None:
    """`Refused` if a checkout after the next commit would overwrite the only copy of weights."""
    recipe = text_files.recipe(history).recipe
    weights.refuse_losing(weights.look(history), recipe, RECIPE_FILE, Call("checkout", force=True))


def edited_notes(tree: LockedTree) -> list[Note]:
    """NoteList on weights that were edited by hand, which a commit does not hold."""
    found = weights.look(tree.history, tree)
    if found.state != "edited":
        return []
    record = found.record
    known = record.revision if record is not None and record.key else None
    onto = abbreviate(known) if known else Blank("REV")
    return [
        Note(
            "the weights here were edited by hand, and a commit without a path does not hold them",
            ("to keep them: ", Call("commit", WorkFile("."), name=Blank("NAME"), onto=onto)),
        )
    ]


def replaced_notes(found: weights.Found, recipe: Recipe, digest: str) -> list[str]:
    """The note on weights that were trained here, where computed ones of the same recipe took their place.

    `found`: the weights before. `digest`: of the weights now.
    """
    record = found.record
    if record is None or record.vector is None or record.digest == digest or found.state != "intact":
        return []
    if all(term.vector != record.vector for term in recipe.terms):
        return []
    return [f"computed weights replaced those that were trained here for {record.name}"]


def _is_of(history: History, record: weights.Record, base: str, onto: str) -> bool:
    """Whether the weights were computed for the revision `onto`, or for the base."""
    if onto != "base":
        recipe = history.recipe_of(resolve(history, onto))
        if record.key == recipe.key:
            return True
        if recipe.terms:
            return False
        base = recipe.base
    return record.digest == history.base(base).digest
