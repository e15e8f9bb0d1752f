"""**walk** — commits in order of time, newest first, without recursion, holding no more than the frontier.

A walk gives each commit once, and never before a child that it has seen. Clocks decide the order of work,
never an answer. The commits that a range hides (`A..B` hides everything that A reaches) are painted from A
beside the walk, until no wanted commit waits. Then the commits found are settled by the one certain fact of
history: no commit is its own ancestor (`_reached`). So a range near the tip is exact without a walk to the
root and without numbers kept beside the commits.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from persona.history.history import History
from persona.objects.commit import Commit

_LEFT: Final = 1
_RIGHT: Final = 2
_BOTH: Final = _LEFT | _RIGHT
_STALE: Final = 4


class _Graph:
    """Times and parents of commits, each read once."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._known: dict[str, tuple[int, tuple[str, ...]]] = {}

    def commit(self, id: str) -> Commit:
        """A commit, whole."""
        commit = self._history.commit(id)
        self._known[id] = commit.committer.time, commit.parents
        return commit

    def time(self, id: str) -> int:
        """When a commit was made: seconds since 1970 UTC of its committer's clock."""
        return self._of(id)[0]

    def parents(self, id: str) -> tuple[str, ...]:
        """The ids of a commit's parents."""
        return self._of(id)[1]

    def _of(self, id: str) -> tuple[int, tuple[str, ...]]:
        if id not in self._known:
            self.commit(id)
        return self._known[id]


class _Queue:
    """Ids by time, newest first; equal times in the order they came."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, str]] = []
        self._count = 0

    def push(self, id: str, time: int) -> None:
        """Adds an id."""
        self._count += 1
        heapq.heappush(self._heap, (-time, self._count, id))

    def pop(self) -> str:
        """Takes the newest."""
        return heapq.heappop(self._heap)[2]

    def ids(self) -> list[str]:
        """All that wait."""
        return [id for _, _, id in self._heap]

    def __len__(self) -> int:
        return len(self._heap)


def walk(history: History, starts: Iterable[str], hidden: Iterable[str] = ()) -> Iterator[tuple[str, Commit]]:
    """(id, commit) of all that `starts` reach and `hidden` do not, newest first."""
    hidden = list(hidden)
    if hidden:
        yield from _limited(history, list(starts), hidden)
        return
    queue = _Queue()
    commits: dict[str, Commit] = {}
    seen: set[str] = set()

    def see(id: str) -> None:
        if id not in seen:
            seen.add(id)
            commits[id] = history.commit(id)
            queue.push(id, commits[id].committer.time)

    for id in starts:
        see(id)
    while queue:
        id = queue.pop()
        commit = commits.pop(id)
        for parent in commit.parents:
            see(parent)
        yield id, commit


def _limited(history: History, starts: list[str], hidden: list[str]) -> Iterator[tuple[str, Commit]]:
    graph, queue = _Graph(history), _Queue()
    unwanted: dict[str, bool] = {}
    commits: dict[str, Commit] = {}
    found: list[str] = []
    walked: set[str] = set()
    waiting: set[str] = set()
    """Wanted commits in the queue."""

    def reach(id: str, hide: bool) -> None:
        pending = [id]
        while pending:
            id = pending.pop()
            if id not in unwanted:
                unwanted[id] = hide
                commits[id] = graph.commit(id)
                queue.push(id, graph.time(id))
                if not hide:
                    waiting.add(id)
            elif hide and not unwanted[id]:
                unwanted[id] = True
                waiting.discard(id)
                if id in walked:
                    pending.extend(graph.parents(id))

    for id in hidden:
        reach(id, True)
    for id in starts:
        reach(id, False)
    while waiting:
        id = queue.pop()
        waiting.discard(id)
        walked.add(id)
        if unwanted[id]:
            del commits[id]
        else:
            found.append(id)
        for parent in graph.parents(id):
            reach(parent, unwanted[id])
    found = [id for id in found if not unwanted[id]]
    wanted = set(found)
    floor = [id for id in found if wanted.isdisjoint(graph.parents(id))]
    wanted -= _reached(graph, queue.ids(), wanted, floor)
    for id in found:
        if id in wanted:
            yield id, commits[id]


def _reached(
    graph: _Graph, starts: Iterable[str], targets: Collection[str], floor: Collection[str]
) -> set[str]:
    """The `targets` that `starts` reach. Each target is in `floor` or a descendant of a commit there.

    If a commit is an ancestor of all of `floor`, it reaches no target, because it would be its own ancestor.
    So the walk ends when only these ancestors wait. Times decide only which commit is looked at next.
    """
    above = {id: 1 << place for place, id in enumerate(floor)}
    """Walked or waiting commit → a bit for each of `floor` that it is, or is an ancestor of."""
    every = (1 << len(above)) - 1
    reached = set(starts)
    queue = _Queue()
    walked: set[str] = set()
    waiting: set[str] = set()
    """Commits in the queue that are reached and may reach a target."""

    def look(id: str) -> None:
        if id in reached and above.get(id, 0) != every:
            waiting.add(id)
        else:
            waiting.discard(id)

    def step(id: str) -> None:
        waiting.discard(id)
        walked.add(id)
        pending = [id]
        while pending:
            id = pending.pop()
            for parent in graph.parents(id):
                bits, come = above.get(parent), parent in reached
                new = (bits or 0) | above.get(id, 0)
                if new == bits and (come or id not in reached):
                    continue
                if bits is None and not come:
                    queue.push(parent, graph.time(parent))
                above[parent] = new
                if id in reached:
                    reached.add(parent)
                if parent in walked:
                    pending.append(parent)
                else:
                    look(parent)

    for id in reached:
        queue.push(id, graph.time(id))
        above.setdefault(id, 0)
    for id in floor:
        step(id)
    for id in reached - walked:
        look(id)
    while waiting:
        id = queue.pop()
        if id not in walked:
            step(id)
    return reached.intersection(targets)


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
    """The best common ancestors of two commits, none an ancestor of another, newest first."""
    if one == other:
        return [one]
    graph, queue = _Graph(history), _Queue()
    marks: dict[str, int] = {}
    fresh: set[str] = set()
    """Commits in the queue that are not known to be ancestors of a common ancestor."""
    found: list[str] = []

    def mark(id: str, bits: int) -> None:
        before = marks.get(id, 0)
        if before | bits != before:
            marks[id] = before | bits
            queue.push(id, graph.time(id))
            if marks[id] & _STALE:
                fresh.discard(id)
            else:
                fresh.add(id)

    mark(one, _LEFT)
    mark(other, _RIGHT)
    while fresh:
        id = queue.pop()
        fresh.discard(id)
        bits = marks[id]
        if bits & _BOTH == _BOTH and not bits & _STALE:
            if id not in found:
                found.append(id)
            bits |= _STALE
        for parent in graph.parents(id):
            mark(parent, bits)
    best = [id for id in found if not marks[id] & _STALE]
    if len(best) > 1:
        above = [parent for id in best for parent in graph.parents(id)]
        worse = _reached(graph, above, best, best)
        best = [id for id in best if id not in worse]
    return sorted(best, key=graph.time, reverse=True)


def is_ancestor(history: History, ancestor: str, of: str) -> bool:
    """Whether `of` reaches `ancestor`; a commit reaches itself."""
    return next(walk(history, [ancestor], [of]), None) is None
