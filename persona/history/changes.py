"""What differs between two recipes, and between two sets of tracked files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from persona.errors import UnknownRevision, UsageError
from persona.history import tracking, worktree
from persona.history.history import History
from persona.history.recipe_text import RECIPE_FILE
from persona.history.results import Diff, FileChange, TermChange
from persona.history.revisions import resolve, resolve_range
from persona.history.views import rules_view, term_keys
from persona.objects.recipe import Recipe


def diff_recipes(
    before: Recipe | None, after: Recipe | None
) -> tuple[dict[str, dict[str, Any]], list[TermChange]]:
    """The rules and the terms that differ; None stands for no recipe at all."""
    return _rules(before, after), _terms(before, after)


def _rules(before: Recipe | None, after: Recipe | None) -> dict[str, dict[str, Any]]:
    old: dict[str, Any] = {"base": before.base, **rules_view(before.rules)} if before else {}
    new: dict[str, Any] = {"base": after.base, **rules_view(after.rules)} if after else {}
    keys = dict.fromkeys([*old, *new])
    return {key: {"from": old.get(key), "to": new.get(key)} for key in keys if old.get(key) != new.get(key)}


def _terms(before: Recipe | None, after: Recipe | None) -> list[TermChange]:
    old = before.by_name if before else {}
    new = after.by_name if after else {}
    changes: list[TermChange] = []
    for name in dict.fromkeys([*new, *old]):
        was = term_keys(old[name]) if name in old else {}
        now = term_keys(new[name]) if name in new else {}
        if was == now and (name in old) == (name in new) and (not was or old[name] == new[name]):
            continue
        change = "changed" if was and now else "added" if now else "removed"
        if change == "changed":
            differing = [key for key in now if was[key] != now[key]]
            was = {key: was[key] for key in differing}
            now = {key: now[key] for key in differing}
        changes.append(TermChange(name, change, was, now))
    return changes


Content = Callable[[str], bytes | None]


def diff_files(
    before: Mapping[str, str], after: Mapping[str, str], read_before: Content, read_after: Content
) -> list[FileChange]:
    """The files whose blobs differ, in order of paths."""
    changes: list[FileChange] = []
    for path in sorted({*before, *after}):
        if before.get(path) == after.get(path):
            continue
        change = "changed" if path in before and path in after else "added" if path in after else "removed"
        changes.append(FileChange(path, change, partial(read_before, path), partial(read_after, path)))
    return changes


def make_diff(
    from_: str | None,
    to: str | None,
    recipes: tuple[Recipe | None, Recipe | None],
    changes: list[FileChange],
) -> Diff:
    """A `Diff`; `recipe.toml` counts among the files only when its text alone differs."""
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
    """What differs from one commit to another; None stands for nothing at all."""
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
    """What differs from a commit to the work tree, whose snapshot `here` may be known already. Raises
    `InvalidInput` when recipe.toml cannot be read.
    """
    tree = history.tree_of(before)
    committed = history.files_of_tree(tree)
    here = tracking.snapshot(history) if here is None else here
    old = history.recipe(tree.recipe)
    new = old
    if here.get(RECIPE_FILE) != committed.get(RECIPE_FILE):
        new = history.read_recipe(worktree.read_recipe_text(history.root))
    changes = diff_files(
        committed, here, _blob_reader(history, committed), lambda path: worktree.read(history.root, path)
    )
    return make_diff(before, None, (old, new), changes)


def sides(history: History, a: str | None, b: str | None) -> tuple[str | None, str | None]:
    """The commits that `Repository.diff` compares; None stands for the work tree on the second side, and for
    no commit at all on the first.
    """
    if a is not None and b is None and ".." in a and not a.startswith(":/"):
        chosen = resolve_range(history, [a])
        if "..." in a:
            if not chosen.hidden:
                raise UnknownRevision(
                    f"{a}: the two have no commit in common; `persona diff A B` compares them"
                )
            return chosen.hidden[0], chosen.starts[1]
        return chosen.hidden[0], chosen.starts[0]
    if b is not None:
        if a is None:
            raise UsageError("a second revision without a first one")
        return resolve(history, a), resolve(history, b)
    return resolve(history, a) if a is not None else history.head_commit(), None


def diff(history: History, a: str | None, b: str | None) -> Diff:
    """See `Repository.diff`."""
    before, after = sides(history, a, b)
    if after is not None:
        return diff_commits(history, before, after)
    assert before is not None
    return diff_worktree(history, before)


def of_paths(diff: Diff, paths: str | Sequence[str] | None) -> Diff:
    """The part of a difference that lies in these files or directories, None for all of it; rules and vectors
    are of `recipe.toml`.
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
