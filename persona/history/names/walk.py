"""**walk** — commits in order of time, newest first, without recursion, holding no more than the frontier.

A walk gives each commit once, and never before a child that it has seen. Clocks decide the order of work,
never an answer. The commits that a range hides (`A..B` hides everything that A reaches) are painted from A
beside the walk, until no wanted commit waits. Then the commits found are settled by the one certain fact of
history: no commit is its own ancestor (`_reached`). So a range near the tip is exact without a walk to the
root and without numbers kept beside the commits. Of a long history, parents and times come from the commit
graph.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from persona.errors import PersonaError
from persona.history.history import History
from persona.objects.commit import Commit, committer_time
from persona.objects.commit import links as tree_and_parents

if TYPE_CHECKING:
    from persona.history.names.commit_graph import CommitGraph, Links

Onward = Callable[[str, tuple[str, ...], Collection[str] | None], tuple[str, ...]]
"""Chooses the parents that a walk goes on to. It is given a commit, its parents, and the commits that no
hidden one reaches (None: nothing is hidden)."""
_LEFT: Final = 1
_RIGHT: Final = 2
_BOTH: Final = _LEFT | _RIGHT
_STALE: Final = 4
_MANY: Final = 256
"""Commits that a walk reads from the store before it looks for a commit graph."""
_VERY_MANY: Final = 4096
"""Commits that a walk reads from the store before it makes or extends the commit graph."""


class _Graph:
    """Times and parents of commits, each read once: from the store, after many reads from the commit graph.

    After very many reads it makes or extends the commit graph, so that the next walk need not read them.
    """

    def __init__(self, history: History, *, whole: bool = True) -> None:
        self._history = history
        self._whole = whole
        self._known: dict[str, Links] = {}
        self._commits: dict[str, Commit] = {}
        """If `whole` commits are wanted: those that were read, until `take` or `forget`."""
        self._stored: CommitGraph | None = None
        self._places: dict[str, int] = {}
        """Where the commit graph has a commit that was named as a parent."""
        self._reads = 0

    def time(self, id: str) -> int:
        """When a commit was made: seconds since 1970 UTC of its committer's clock."""
        return self._of(id)[0]

    def parents(self, id: str) -> tuple[str, ...]:
        """The ids of a commit's parents."""
        return self._of(id)[1]

    def take(self, id: str) -> Commit:
        """A commit, whole. It is read again if somebody asks again."""
        return self._commits.pop(id, None) or self._history.commit(id)

    def forget(self, id: str) -> None:
        """Lets go of a commit that nobody will take."""
        self._commits.pop(id, None)

    def _of(self, id: str) -> Links:
        links = self._known.get(id)
        if links is None:
            links = self._known[id] = self._in_graph(id) or self._read(id)
        return links

    def _in_graph(self, id: str) -> Links | None:
        stored = self._stored
        if stored is None:
            return None
        place = self._places[id] if id in self._places else stored.find(id)
        if place is None:
            return None
        above = stored.parents(place)
        parents = tuple(stored.id(parent) for parent in above)
        self._places.update(zip(parents, above, strict=True))
        return stored.time(place), parents

    def _read(self, id: str) -> Links:
        self._reads += 1
        if self._reads == _MANY:
            from persona.history.names import commit_graph

            self._stored = commit_graph.load(self._history)
        elif self._reads == _VERY_MANY:
            from persona.history.names import commit_graph

            with suppress(PersonaError):  # this walk may not need the commit that cannot be read
                self._stored = commit_graph.extend(self._history, self._stored, self._known)
                self._places.clear()
        if self._stored is not None and (links := self._in_graph(id)) is not None:
            return links
        if not self._whole:
            data = self._history.store.objects.get(id, "commit")
            return committer_time(data), tuple(tree_and_parents(data)[1])
        commit = self._commits[id] = self._history.commit(id)
        return commit.committer.time, commit.parents


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
        graph = _Graph(history)
        for id in _limited(graph, list(starts), hidden):
            yield id, graph.take(id)
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


def walk_links(
    history: History, starts: Iterable[str], hidden: Iterable[str] = ()
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(id, parents) of the commits that `walk` gives, in its order, without the rest of the commits.

    Of a long history the links are in the commit graph, so this takes a tenth of the time of `walk`.
    """
    graph, hidden = _Graph(history, whole=False), list(hidden)
    for id in _limited(graph, list(starts), hidden) if hidden else _all(graph, starts):
        yield id, graph.parents(id)


def first_parents(history: History, id: str) -> Iterator[str]:
    """The first parent of a commit, the first parent of that one, and so on."""
    graph = _Graph(history, whole=False)
    while above := graph.parents(id):
        id = above[0]
        yield id


def walk_first_parents(
    history: History, starts: Iterable[str], hidden: Iterable[str] = ()
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """As `walk_links`, but only through first parents; each commit with its first parent alone."""
    return walk_onward(history, starts, hidden, lambda id, parents, wanted: parents[:1])


def walk_onward(
    history: History, starts: Iterable[str], hidden: Iterable[str], onward: Onward
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """As `walk_links`, but only through the parents that `onward` chooses; each commit with these parents."""
    starts, hidden = list(starts), list(hidden)
    wanted = {id for id, _ in walk_links(history, starts, hidden)} if hidden else None
    graph, queue = _Graph(history, whole=False), _Queue()
    seen: set[str] = set()
    near: Iterable[str] = starts
    while True:
        for id in near:
            if id not in seen and (wanted is None or id in wanted):
                seen.add(id)
                queue.push(id, graph.time(id))
        if not queue:
            return
        id = queue.pop()
        near = onward(id, graph.parents(id), wanted)
        yield id, near


def _all(graph: _Graph, starts: Iterable[str]) -> Iterator[str]:
    queue = _Queue()
    seen: set[str] = set()

    def see(id: str) -> None:
        if id not in seen:
            seen.add(id)
            queue.push(id, graph.time(id))

    for id in starts:
        see(id)
    while queue:
        id = queue.pop()
        for parent in graph.parents(id):
            see(parent)
        yield id


def _limited(graph: _Graph, starts: list[str], hidden: list[str]) -> Iterator[str]:
    queue = _Queue()
    unwanted: dict[str, bool] = {}
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
            graph.forget(id)
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
            yield id


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
    known = dict(commits)
    for id in in_order({id: commit.parents for id, commit in known.items()}):
        yield id, known[id]


def in_order(parents: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """As `topological`, for the ids of commits with their parents, newest first."""
    children = dict.fromkeys(parents, 0)
    for above in parents.values():
        for parent in above:
            if parent in children:
                children[parent] += 1
    stack = [id for id in reversed(list(parents)) if not children[id]]
    while stack:
        id = stack.pop()
        yield id
        for parent in parents[id]:  # as in git, the line of the last parent comes first
            if parent in children:
                children[parent] -= 1
                if not children[parent]:
                    stack.append(parent)


def merge_bases(history: History, one: str, other: str) -> list[str]:
    """The best common ancestors of two commits, none an ancestor of another, newest first."""
    if one == other:
        return [one]
    graph, queue = _Graph(history, whole=False), _Queue()
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
    return next(walk_links(history, [ancestor], [of]), None) is None
