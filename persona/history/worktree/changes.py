"""Differences between two sets of tracked files, of commits or of the work tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from persona.history.history import History
from persona.history.recipes.diff import diff_recipes
from persona.history.recipes.text import RECIPE_FILE
from persona.history.results import Diff, FileChange
from persona.history.worktree import text_files, tracking
from persona.objects.recipe import Recipe
from persona.objects.tree import differing

Content = Callable[[str], bytes | None]


def diff_files(
    before: Mapping[str, str], after: Mapping[str, str], read_before: Content, read_after: Content
) -> list[FileChange]:
    """The files whose blobs differ, in order of paths."""
    changes: list[FileChange] = []
    for path in differing(before, after):
        change = "changed" if path in before and path in after else "added" if path in after else "removed"
        changes.append(FileChange(path, change, partial(read_before, path), partial(read_after, path)))
    return changes


def make_diff(
    from_: str | None,
    to: str | None,
    recipes: tuple[Recipe | None, Recipe | None],
    changes: list[FileChange],
) -> Diff:
    """A `Diff`. `recipe.toml` is among the files only if nothing but its text differs."""
    rules, terms = diff_recipes(*recipes)
    if rules or terms:
        changes = [change for change in changes if change.path != RECIPE_FILE]
    return Diff(
        from_=from_,
        to=to,
        rules=rules,
        vectors=tuple(terms),
        files=tuple(change.path for change in changes),
        file_changes=tuple(changes),
    )


def diff_commits(history: History, before: str | None, after: str) -> Diff:
    """The difference from one commit to another; None is an empty commit."""
    after_tree = history.tree_of(after)
    after_files = history.files_of_tree(after_tree)
    if before is None:
        nothing: dict[str, str] = {
            path: after_files[path] for path in after_files if path not in after_tree.files
        }
        changes = diff_files(nothing, after_files, lambda _: None, _blob_reader(history, after_files))
        return make_diff(None, after, (None, history.recipe(after_tree.recipe)), changes)
    before_tree = history.tree_of(before)
    before_files = history.files_of_tree(before_tree)
    changes = diff_files(
        before_files, after_files, _blob_reader(history, before_files), _blob_reader(history, after_files)
    )
    recipes = history.recipe(before_tree.recipe), history.recipe(after_tree.recipe)
    return make_diff(before, after, recipes, changes)


def diff_worktree(history: History, before: str, here: Mapping[str, str] | None = None) -> Diff:
    """The difference from a commit to the work tree.

    `here`: the work tree's snapshot, if it is known. Raises `InvalidInput` if recipe.toml cannot be read.
    """
    tree = history.tree_of(before)
    committed = history.files_of_tree(tree)
    here = tracking.snapshot(history) if here is None else here
    old = history.recipe(tree.recipe)
    new = old
    if here.get(RECIPE_FILE) != committed.get(RECIPE_FILE):
        new = text_files.recipe(history).recipe
    changes = diff_files(
        committed, here, _blob_reader(history, committed), lambda path: text_files.read(history.root, path)
    )
    return make_diff(before, None, (old, new), changes)


def of_paths(diff: Diff, paths: str | Sequence[str] | None) -> Diff:
    """The part of a difference in these files or directories; None for all of it.

    Rules and vectors belong to `recipe.toml`.
    """
    if paths is None:
        return diff
    paths = [paths] if isinstance(paths, str) else paths
    changes = tuple(change for change in diff.file_changes if tracking.is_among(change.path, paths))
    files = tuple(change.path for change in changes)
    if tracking.is_among(RECIPE_FILE, paths):
        return replace(diff, files=files, file_changes=changes)
    return replace(diff, rules={}, vectors=(), files=files, file_changes=changes)


def _blob_reader(history: History, blobs: Mapping[str, str]) -> Content:
    def content(path: str) -> bytes | None:
        return history.blob(blobs[path]) if path in blobs else None

    return content
