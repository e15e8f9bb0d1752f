"""`log`: the commits of a range, newest first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from persona.errors import Blank, Call, InvalidInput, UnknownName, UnknownRevision, quoted
from persona.history.history import History
from persona.history.names.revisions import resolve_range
from persona.history.names.walk import topological as in_order
from persona.history.names.walk import walk
from persona.objects.commit import Commit
from persona.objects.recipe import Term
from persona.objects.tree import differing
from persona.store.refs import HEADS, TAGS

if TYPE_CHECKING:
    from persona.history.query_results import CommitEntry
from persona.history.names.entries import Entries


def log(
    history: History,
    revs: str | Sequence[str] = ("HEAD",),
    *,
    all: bool = False,
    n: int | None = None,
    since: str | None = None,
    until: str | None = None,
    vector: str | None = None,
    paths: str | Sequence[str] | None = None,
    topological: bool = False,
) -> Iterator[CommitEntry]:
    """Commits reachable from `revs`, newest first, one at a time.

    Each of `revs` is a revision, `A..B`, `A...B` or `^A`. `all` starts from every ref. `n`: at most this
    many. `since` and `until` are dates. `vector`: only commits that change the term of that name. `paths`:
    only commits that change one of these files, or a file in one of these directories. `topological`: no
    commit before all its children, for drawing a graph; that reads all of it first.
    """
    notes = history.notes
    selected = resolve_range(history, [revs] if isinstance(revs, str) else list(revs), notes)
    starts = list(selected.starts)
    entries = Entries(history, notes)
    now = int(time.time())
    if all:
        starts += [history.peeled(id)[0] for id in history.names(HEADS, notes).values()]
        starts += [history.peeled(id)[0] for id in history.names(TAGS, notes).values()]
    after = _date(since, now, at_end=False) if since is not None else None
    before = _date(until, now, at_end=True) if until is not None else None
    if n is not None and n < 0:
        raise InvalidInput(f"the number of commits must be 0 or more, not {n}")
    files = [paths] if isinstance(paths, str) else paths

    def wanted(commit: Commit) -> bool:
        when = commit.committer.time
        if (after is not None and when < after) or (before is not None and when > before):
            return False
        if vector is not None and not _touches(history, commit, vector):
            return False
        return files is None or _touches_files(history, commit, files)

    commits = walk(history, starts, selected.hidden)
    chosen = _chosen(history, in_order(commits) if topological else commits, entries, wanted, n)
    everything = not (selected.hidden or since or until or n == 0)
    return chosen if vector is None or not everything else _some(chosen, vector)


def _chosen(
    history: History,
    commits: Iterable[tuple[str, Commit]],
    entries: Entries,
    wanted: Callable[[Commit], bool],
    n: int | None,
) -> Iterator[CommitEntry]:
    """The entries of the commits that are wanted, `n` at most, while the repository is open."""
    for id, commit in commits if n != 0 else ():
        history.require_open()
        if wanted(commit):
            yield entries.of(id, commit)
            n = None if n is None else n - 1
            if n == 0:
                return


def _some(chosen: Iterator[CommitEntry], vector: str) -> Iterator[CommitEntry]:
    """The entries. Raises `UnknownName` at the end if there was none."""
    nothing = True
    for entry in chosen:
        nothing = False
        yield entry
    if nothing:
        raise UnknownName(
            f"no commit in this history has a vector named {quoted(vector)}",
            hint=(Call("log"), " lists the commits, and ", Call("show", Blank("REV")), " shows its changes"),
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
