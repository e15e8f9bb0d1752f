"""`log`: the commits of a range, newest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from persona.errors import Blank, Call, InvalidInput, UnknownName, UnknownRevision, quoted
from persona.history.history import History
from persona.history.names.revisions import resolve_range
from persona.history.names.walk import topological, walk
from persona.objects.commit import Commit
from persona.objects.recipe import Term
from persona.objects.tree import differing
from persona.store.refs import HEADS, TAGS, Told

if TYPE_CHECKING:
    from persona.history.query_results import CommitEntry
from persona.history.names.entries import Entries


def log(
    history: History,
    revs: Sequence[str],
    *,
    all: bool,
    n: int | None,
    since: str | None,
    until: str | None,
    vector: str | None,
    paths: Sequence[str] | None,
    in_topological_order: bool,
    now: int,
    told: Told,
) -> Iterator[CommitEntry]:
    """See `Repository.log`."""
    selected = resolve_range(history, revs, told)
    starts = list(selected.starts)
    entries = Entries(history, told)
    if all:
        starts += [history.peeled(id)[0] for id in history.names(HEADS, told).values()]
        starts += [history.peeled(id)[0] for id in history.names(TAGS, told).values()]
    after = _date(since, now, at_end=False) if since is not None else None
    before = _date(until, now, at_end=True) if until is not None else None
    commits = walk(history, starts, selected.hidden)
    if in_topological_order:
        commits = topological(commits)
    left = n
    if left is not None and left < 0:
        raise InvalidInput(f"a number of commits cannot be {n}")
    nothing = True
    for id, commit in commits:
        if left == 0:
            return
        time = commit.committer.time
        if (after is not None and time < after) or (before is not None and time > before):
            continue
        if vector is not None and not _touches(history, commit, vector):
            continue
        if paths is not None and not _touches_files(history, commit, paths):
            continue
        if left is not None:
            left -= 1
        nothing = False
        yield entries.of(id, commit)
    if vector is not None and nothing and not (selected.hidden or since or until or left == 0):
        raise UnknownName(
            f"no commit there has ever had a vector named {quoted(vector)}",
            hint=(Call("log"), " lists the commits, and ", Call("show", Blank("REV")), " what each changed"),
        )


def _date(text: str, now: int, *, at_end: bool) -> int:
    from persona.history.names.dates import parse_date

    found = parse_date(text, now, at_end=at_end)
    if found is None:
        raise UnknownRevision(f"{text!r:.60} is not a date; write 2026-11-15 or '2 days ago'")
    return found[0]


def _touches(history: History, commit: Commit, name: str) -> bool:
    """Whether a commit's term of that name differs from its first parent's."""
    recipe = history.tree(commit.tree).recipe
    before: Term | None = None
    if commit.parents:
        parent = history.tree(history.commit(commit.parents[0]).tree).recipe
        if parent == recipe:
            return False
        before = history.recipe(parent).by_name.get(name)
    return history.recipe(recipe).by_name.get(name) != before


def _touches_files(history: History, commit: Commit, paths: Sequence[str]) -> bool:
    """Whether a commit changes one of the files against its first parent; the first commit against none."""
    from persona.history.worktree.tracking import is_among  # imports weights, which log does not need

    after = history.files_of_tree(history.tree(commit.tree))
    before = history.files_of(commit.parents[0]) if commit.parents else {}
    return any(is_among(path, paths) for path in differing(before, after))
