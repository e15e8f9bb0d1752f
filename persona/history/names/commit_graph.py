"""**commit graph** — the parents and times of many commits in one file of `cache/`.

A walk through a long history reads them from there. Reading 100,000 commits one by one takes seconds. The
graph is closed: it has every ancestor of each of its commits. A walk that had to read many commits writes the
graph for the next walk (`walk.py`).

    count (8), links (8), byte order mark (8)
    for each 16 bits with which an id may begin: how many ids begin with less (4 each), and the count (4)
    ids in ascending order (32 each), times (8 each)
    for each commit: how many links are before its own (4 each), and the number of links (4)
    links: the places of parents among the ids (4 each)

Integers have the byte order of the machine, because no other machine reads the file.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Final

from persona.history.history import History
from persona.objects import commit as commits

NAME: Final = "commits-1"
_HEAD: Final = struct.Struct("=QQQ")
_MARK: Final = 0x0102030405060708
_STARTS: Final = 1 << 16

Links = tuple[int, tuple[str, ...]]
"""The time of a commit by its committer's clock, in seconds since 1970 UTC, and the ids of its parents."""


class CommitGraph:
    """Times and parents by the place of a commit. Immutable."""

    def __init__(self, data: bytes) -> None:
        """The graph in `data`. Raises `ValueError` if it has another form."""
        count, links, mark = _HEAD.unpack_from(data)
        view = memoryview(data)
        sizes = (_HEAD.size, 4 * (_STARTS + 1), 32 * count, 8 * count, 4 * (count + 1), 4 * links)
        ends = list(accumulate(sizes))
        if mark != _MARK or ends[-1] != len(data):
            raise ValueError("not a commit graph")
        self._starts = view[ends[0] : ends[1]].cast("I")
        self._ids = view[ends[1] : ends[2]]
        self._times = view[ends[2] : ends[3]].cast("q")
        self._bounds = view[ends[3] : ends[4]].cast("I")
        self._links = view[ends[4] : ends[5]].cast("I")

    def __len__(self) -> int:
        return len(self._times)

    def find(self, id: str) -> int | None:
        """The place of a commit, or None."""
        key = bytes.fromhex(id)
        start = key[0] << 8 | key[1]
        for place in range(self._starts[start], self._starts[start + 1]):
            if self._ids[32 * place : 32 * place + 32] == key:
                return place
        return None

    def id(self, place: int) -> str:
        """The commit at a place."""
        return self._ids[32 * place : 32 * place + 32].hex()

    def time(self, place: int) -> int:
        """Its time."""
        return self._times[place]

    def parents(self, place: int) -> list[int]:
        """The places of its parents, in order."""
        return self._links[self._bounds[place] : self._bounds[place + 1]].tolist()

    def all(self) -> dict[str, Links]:
        """Everything that it holds, by id."""
        ids = [self.id(place) for place in range(len(self))]
        return {
            id: (self.time(place), tuple(ids[parent] for parent in self.parents(place)))
            for place, id in enumerate(ids)
        }


def encode(graph: Mapping[str, Links]) -> bytes:
    """The bytes of a graph. Each parent must be one of the commits."""
    ordered = sorted(graph)
    places = {id: place for place, id in enumerate(ordered)}
    begin = array("I", bytes(4 * (_STARTS + 1)))
    for id in ordered:
        begin[int(id[:4], 16) + 1] += 1
    bounds, links = array("I", [0]), array("I")
    for id in ordered:
        links.extend(places[parent] for parent in graph[id][1])
        bounds.append(len(links))
    return b"".join(
        (
            _HEAD.pack(len(ordered), len(links), _MARK),
            array("I", accumulate(begin)).tobytes(),
            bytes.fromhex("".join(ordered)),
            array("q", (graph[id][0] for id in ordered)).tobytes(),
            bounds.tobytes(),
            links.tobytes(),
        )
    )


def load(history: History) -> CommitGraph | None:
    """The graph of this repository, if it has one that can be read."""
    data = history.store.cache(NAME).read()
    try:
        return None if data is None else CommitGraph(data)
    except (ValueError, struct.error):
        return None


def extend(history: History, graph: CommitGraph | None, known: Mapping[str, Links]) -> CommitGraph:
    """Adds commits and all their ancestors to a graph, and keeps it for the next command.

    `known`: commits that were read already. Raises the errors of reading a commit.
    """
    found = {} if graph is None else graph.all()
    pending = [id for id in known if id not in found]
    while pending:
        id = pending.pop()
        if id in found:
            continue
        found[id] = known[id] if id in known else links_of(history, id)
        pending.extend(parent for parent in found[id][1] if parent not in found)
    data = encode(found)
    history.store.cache(NAME).write(data)
    return CommitGraph(data)


def links_of(history: History, id: str) -> Links:
    """The links of one commit, read from the store; nothing else of it is decoded."""
    data = history.store.objects.get(id, "commit")
    return commits.committer_time(data), tuple(commits.links(data)[1])


def ids_of(graph: CommitGraph, places: Iterable[int]) -> tuple[str, ...]:
    """The commits at some places."""
    return tuple(graph.id(place) for place in places)
