"""**walk** — commits in order of time, newest first, without recursion and without holding more than the
frontier.

A commit is given once and never before a child of it that the walk has seen. What one may not see (`A..B`:
nothing that A reaches) is painted down from A beside the walk, as far as times demand.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import Final

from persona.history.history import History
from persona.objects.commit import Commit

_LEFT: Final = 1
_RIGHT: Final = 2
_STALE: Final = 4


class _Queue:
    """Commits by committer time, newest first; equal times in the order they came."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._heap: list[tuple[int, int, str]] = []
        self._count = 0
        self.commits: dict[str, Commit] = {}

    def push(self, id: str) -> None:
        if id not in self.commits:
            self.commits[id] = self._history.commit(id)
        self._count += 1
        heapq.heappush(self._heap, (-self.commits[id].committer.time, self._count, id))

    def pop(self) -> tuple[str, Commit]:
        id = heapq.heappop(self._heap)[2]
        return id, self.commits.pop(id)

    def newest(self) -> int:
        return -self._heap[0][0]

    def ids(self) -> Iterable[str]:
        return (id for _, _, id in self._heap)

    def __len__(self) -> int:
        return len(self._heap)


def walk(history: History, starts: Iterable[str], hidden: Iterable[str] = ()) -> Iterator[tuple[str, Commit]]:
    """(id, commit) of all that `starts` reach and `hidden` do not, newest first."""
    hidden = list(hidden)
    if hidden:
        yield from _limited(history, list(starts), hidden)
        return
    queue = _Queue(history)
    seen: set[str] = set()
    for id in starts:
        if id not in seen:
            seen.add(id)
            queue.push(id)
    while queue:
        id, commit = queue.pop()
        for parent in commit.parents:
            if parent not in seen:
                seen.add(parent)
                queue.push(parent)
        yield id, commit


def _limited(history: History, starts: list[str], hidden: list[str]) -> Iterator[tuple[str, Commit]]:
    queue = _Queue(history)
    unwanted: dict[str, bool] = {}
    parents: dict[str, tuple[str, ...]] = {}
    found: list[tuple[str, Commit]] = []
    oldest: int | None = None
    waiting = 0

    def reach(id: str, hide: bool) -> None:
        nonlocal waiting
        if id not in unwanted:
            unwanted[id] = hide
            waiting += not hide
            queue.push(id)
        elif hide and not unwanted[id]:
            stack = [id]
            while stack:
                one = stack.pop()
                if one in unwanted and not unwanted[one]:
                    unwanted[one] = True
                    waiting -= one not in parents
                    stack.extend(parents.get(one, ()))

    for id in hidden:
        reach(id, True)
    for id in starts:
        reach(id, False)
    while queue and (waiting or (oldest is not None and queue.newest() >= oldest)):
        id, commit = queue.pop()
        parents[id] = commit.parents
        hide = unwanted[id]
        if not hide:
            waiting -= 1
            found.append((id, commit))
            time = commit.committer.time
            oldest = time if oldest is None else min(oldest, time)
        for parent in commit.parents:
            reach(parent, hide)
    for id, commit in found:
        if not unwanted[id]:
            yield id, commit


def topological(commits: Iterable[tuple[str, Commit]]) -> Iterator[tuple[str, Commit]]:
    """The same commits, none before all its children, lines of history kept together."""
    ordered = list(commits)
    known = dict(ordered)
    children = dict.fromkeys(known, 0)
    for _, commit in ordered:
        for parent in commit.parents:
            if parent in children:
                children[parent] += 1
    stack = [id for id, _ in reversed(ordered) if not children[id]]
    while stack:
        id = stack.pop()
        yield id, known[id]
        for parent in reversed(known[id].parents):
            if parent in children:
                children[parent] -= 1
                if not children[parent]:
                    stack.append(parent)


def merge_bases(history: History, one: str, other: str) -> list[str]:
    """The best common ancestors of two commits, newest first."""
    if one == other:
        return [one]
    queue = _Queue(history)
    marks: dict[str, int] = {}

    def mark(id: str, bits: int) -> None:
        if marks.get(id, 0) | bits != marks.get(id, 0):
            marks[id] = marks.get(id, 0) | bits
            queue.push(id)

    mark(one, _LEFT)
    mark(other, _RIGHT)
    found: list[tuple[int, str]] = []
    done: set[tuple[str, int]] = set()
    while queue and any(not marks[id] & _STALE for id in queue.ids()):
        id = heapq.heappop(queue._heap)[2]
        commit = queue.commits[id]
        bits = marks[id]
        if (id, bits) in done:
            continue
        done.add((id, bits))
        if bits & (_LEFT | _RIGHT) == _LEFT | _RIGHT and not bits & _STALE:
            found.append((-commit.committer.time, id))
            bits |= _STALE
        for parent in commit.parents:
            mark(parent, bits)
    return [id for _, id in sorted(found) if not marks[id] & _STALE]


def is_ancestor(history: History, ancestor: str, of: str) -> bool:
    """Whether `of` reaches `ancestor`; a commit reaches itself."""
    return any(id == ancestor for id, _ in walk(history, [of]))
