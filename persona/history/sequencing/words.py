"""Conflicts and commits in sentences and messages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from persona.errors import Blank, Call
from persona.history.history import History
from persona.history.names.revisions import branch_named
from persona.history.recipes.conflicts import Conflict, is_new, keys_of
from persona.history.recipes.pairs import path_of
from persona.history.recipes.text import RECIPE_FILE
from persona.history.sequencing.state import Verb
from persona.objects.ids import abbreviate, is_id
from persona.store.refs import HEADS, TAGS

_EARLY: Final = re.compile(r"([^~^@]+)(?:\^+|~\d+)")
"""A commit before the tip of a branch, as git recognises it in the message of a merge."""
_SHARED: Final = {
    "binary": "changed on both sides, and not a text that can be merged",
    "json": "changed on both sides; both changes together are no valid JSON",
    "directory": "a file on one side, and on the other a directory that holds ",
    "style": "the changes go together, but not in the text of recipe.toml; change it by hand",
}
_REMOVED: Final = object()
_ABSENT: Final = object()
"""A vector that is not there any more, or not yet."""
_WORDS: Final = {
    "merge": {**_SHARED, "lines": "the same lines, or lines beside them, were changed on both sides"},
    "revert": {
        "lines": "lines that it changed, or lines beside them, were changed again since",
        "binary": "changed again since, and not a text that can be merged",
        "json": "changed again since; taking the change back would make it invalid JSON",
        "directory": "a file in one, and now a directory that holds ",
        "style": "written in a way that no command can edit; change it by hand",
    },
}


def sentences(verb: Verb, conflicts: Iterable[Conflict], labels: tuple[str, str]) -> Iterator[str]:
    """Each conflict with its values: in ours, in theirs, and before."""
    for conflict in conflicts:
        yield from _of_revert(conflict) if verb == "revert" else _of_merge(conflict, labels)


def _of_merge(conflict: Conflict, labels: tuple[str, str]) -> Iterator[str]:
    here, there = labels
    if conflict.problem in ("values", "term"):
        for key, values in _values(conflict):
            before, come, now = map(shown, values)
            yield f"{key}: {now} in {here}, {come} in {there}, {before} before"
        yield from _of_taken_name(conflict, f"in {there}")
    elif conflict.problem == "name":
        yield _of_name(conflict, f"in {here}", f"in {there}")
    elif conflict.problem in ("together", "base"):
        yield conflict.detail
    elif conflict.problem == "presence":
        now, come = ("removed" if side is None else "changed" for side in (conflict.ours, conflict.theirs))
        if conflict.base is None:
            now = come = "added"
        yield f"{conflict.path}: {now} in {here}, {come} in {there}"
    elif conflict.problem == "lines" and is_new(conflict):
        yield f"{conflict.path}: added in {here}, added in {there}, with different lines"
    elif conflict.problem == "style" and conflict.detail:
        yield f"{conflict.path}: {conflict.detail}"
    else:
        yield f"{conflict.path}: {_WORDS['merge'][conflict.problem]}{conflict.detail}"


def _values(conflict: Conflict) -> Iterator[tuple[str, Iterable[Any]]]:
    """The keys of a conflict with the values before, in theirs, and in ours."""
    if conflict.problem != "term":
        yield conflict.key, (conflict.base, conflict.theirs, conflict.ours)
        return
    sides = conflict.base, conflict.theirs, conflict.ours
    gone = _ABSENT if conflict.base is None else _REMOVED
    if conflict.base is None:
        yield conflict.key, (gone if side is None else "there" for side in sides)
        return
    for key, values in keys_of(conflict):
        pairs = zip(sides, values, strict=True)
        yield key, (gone if side is None else value for side, value in pairs)


def _of_name(conflict: Conflict, here: str, there: str) -> str:
    """The sentence of two vectors with one name."""
    ours, theirs = (abbreviate(id) for id in (conflict.holder, conflict.vector))
    return f"two vectors are named {conflict.theirs}: {ours} {here}, {theirs} {there}"


def _of_taken_name(conflict: Conflict, there: str) -> Iterator[str]:
    """The sentence of a vector that is not in ours, where another vector has its name."""
    term = conflict.theirs
    if conflict.problem == "term" and conflict.ours is None and term.name != path_of(conflict)[1]:
        yield f"{conflict.key} is {abbreviate(term.vector)}, which is named {term.name} {there}"


def way_to_name(conflicts: Iterable[Conflict]) -> tuple[str | Call, ...]:
    """The hint on the first vector of theirs that stands under another name."""
    for one in conflicts:
        if one.problem == "name":
            call = Call("recipe.rename", path_of(one)[1], Blank("NAME"))
            return "; ", call, f" names {abbreviate(one.vector)}"
    return ()


def _of_revert(conflict: Conflict) -> Iterator[str]:
    if conflict.problem in ("values", "term"):
        for key, values in _values(conflict):
            after, before, now = map(shown, values)
            yield f"{key}: {after} by that commit, {now} now, {before} before"
        yield from _of_taken_name(conflict, "before")
    elif conflict.problem == "name":
        yield _of_name(conflict, "now", "before")
    elif conflict.problem in ("together", "base"):
        yield conflict.detail
    elif conflict.problem == "presence" or is_new(conflict):
        sides = conflict.base, conflict.ours, conflict.theirs
        after, now, before = ("not there" if side is None else "there" for side in sides)
        yield f"{conflict.path}: {after} in that commit, {now} now and changed, {before} before"
    else:
        yield f"{conflict.path}: {_WORDS['revert'][conflict.problem]}{conflict.detail}"


def shown(value: Any) -> str:
    """A value of the recipe in a sentence."""
    if value is _REMOVED or value is _ABSENT:
        return "removed" if value is _REMOVED else "not there"
    if isinstance(value, tuple):
        return "[" + ", ".join(value) + "]" if value else "unset"
    if value is None:
        return "unset"
    return abbreviate(value) if is_id(value) else f"{value:.60}"


def merge_message(history: History, rev: str, ref: str | None, into: str | None) -> str:
    """The message of a merge, in git's words. `ref`: the full name of `rev`; `into`: the current branch."""
    if ref is not None and ref.startswith(HEADS):
        what = f"branch '{ref.removeprefix(HEADS)}'"
    elif ref is not None and ref.startswith(TAGS):
        what = f"tag '{ref.removeprefix(TAGS)}'"
    elif (early := _EARLY.fullmatch(rev)) and branch_named(history, early[1]) == HEADS + early[1]:
        what = f"branch '{early[1]}' (early part)"
    else:
        what = f"commit '{rev}'"
    return f"Merge {what}" + ("" if into in ("main", "master") else f" into {into or 'HEAD'}") + "\n"


def lost_notes(lost: Iterable[str], there: str) -> Iterator[str]:
    """The note on comments that both sides have written in one place."""
    found = [one.strip() for one in lost]
    if found:
        said = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        yield f"comments of recipe.toml in {there} that did not fit beside those of HEAD: {said}"


def why_nothing(verb: Verb, commit: str, changed: bool, rewritten: bool) -> str:
    """Why making a commit's change, or taking it back, would change nothing.

    `changed`: whether it changed a file. `rewritten`: whether lines of it were written again since.
    """
    id = abbreviate(commit)
    if not changed:
        return f"{id} changed no file"
    if rewritten:
        before = "as before it" if verb == "revert" else "as in it"
        return (
            f"the values that {id} changed are {before} already, and the lines of {RECIPE_FILE} that it wrote"
            " were written again since"
        )
    return f"what {id} changed is {'undone' if verb == 'revert' else 'there'} already"


def revert_message(history: History, id: str, mainline: int | None) -> str:
    """The message of a revert, in git's words."""
    commit = history.commit(id)
    against = "" if mainline is None else f", reversing\nchanges made to {commit.parents[mainline - 1]}"
    return f'Revert "{commit.subject}"\n\nThis reverts commit {id}{against}.\n'


def origin_line(message: str, id: str) -> str:
    """A message that names the commit that it was picked from."""
    return f"{message.rstrip()}\n\n(cherry picked from commit {id})\n"
