"""`graph`: check, compare with the vectors, show, and exchange patterns with other programs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from persona.behaviour import states
from persona.behaviour.graph import check as checking
from persona.behaviour.graph import nodes
from persona.behaviour.graph.check import GraphCheck
from persona.behaviour.graph.graph import FOLDER, Graph
from persona.behaviour.graph.pattern import Pattern, Trainable
from persona.behaviour.graph.reading import DATA_KEYS, Problem, file_name, pattern_of, written_of
from persona.behaviour.states import GraphStatus, TrainableState
from persona.errors import InvalidInput, Keyword, PersonaError, Refused, listed
from persona.frozen import dataclass
from persona.history.arguments import AnyPath
from persona.history.history import History
from persona.history.results import Result
from persona.history.worktree import text_files
from persona.history.worktree.changing import changing
from persona.history.worktree.locked import LockedTree
from persona.limits import MAX_TEXT_FILE_BYTES
from persona.weights.inputs import read_input

KEPT_BY_FORCE: Final = ("sign", "data", "train", "facets")
"""Keys of the front matter that no field of a node replaces, even one of the same name."""


@dataclass(frozen=True, repr=False)
class LinkView(Result):
    """A link between two patterns, or to a facet."""

    from_: str
    to: str
    relation: str
    strength: float


@dataclass(frozen=True, repr=False)
class PatternView(Result):
    """A pattern with its links, and the state of each vector that it owns."""

    key: str
    kind: str
    file: str
    links: tuple[LinkView, ...]
    trainables: tuple[TrainableState, ...]


@dataclass(frozen=True, repr=False)
class GraphView(Result):
    """The whole graph. `problems`: the files that cannot be read. `without_pattern`: as of `GraphStatus`."""

    patterns: tuple[PatternView, ...]
    problems: tuple[Problem, ...]
    without_pattern: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class DataView(Result):
    """A data file of a trainable. `entries`: its dialogues, turns or probes; None for a prompt.

    `problem`: why it cannot be read.
    """

    name: str
    role: str
    file: str | None
    entries: int | None
    problem: str | None


@dataclass(frozen=True, repr=False)
class PatternDetails(Result):
    """Everything about one pattern. `linked_from`: the links of others to it, or to a facet of it.

    `settings`: those of each trainable, by its name. `extra`: the keys that persona does not read.
    """

    key: str
    kind: str
    file: str
    prose: str
    links: tuple[LinkView, ...]
    linked_from: tuple[LinkView, ...]
    trainables: tuple[TrainableState, ...]
    data: tuple[DataView, ...]
    settings: dict[str, dict[str, Any]]
    extra: dict[str, Any]


@dataclass(frozen=True, repr=False)
class GraphImport(Result):
    """The keys of the nodes that an import added, changed, and found as they were."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class GraphExport(Result):
    """Nodes, in the order in which they were imported, then by key."""

    nodes: tuple[dict[str, Any], ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """Each as a line of JSON."""
        return tuple(map(nodes.line_of_node, self.nodes))

    def to_json(self) -> list[dict[str, Any]]:
        """As printed with `--json`."""
        return list(self.nodes)


def check(history: History, rev: str | None = None) -> GraphCheck:
    """All that is wrong in the graph of the work tree, or of a revision. Raises `UnknownRevision`."""
    return checking.check(Graph.of(history, rev))


def read(history: History, rev: str | None = None) -> Graph:
    """The graph of the work tree, or of a revision: patterns, links and data. Raises `UnknownRevision`."""
    return Graph.of(history, rev)


def status(history: History) -> GraphStatus:
    """The state of each pattern and facet, against its files and recipe.toml as they are."""
    return states.states(history, Graph.of(history))


def view(history: History) -> GraphView:
    """The patterns of the work tree with their links and states."""
    graph = Graph.of(history)
    found = states.states(history, graph)
    by_key: dict[str, list[TrainableState]] = {}
    for state in found.trainables:
        by_key.setdefault(state.key, []).append(state)
    return GraphView(
        patterns=tuple(
            PatternView(one.key, one.kind, one.file, _links(one), tuple(by_key[one.key]))
            for one in graph.patterns.values()
        ),
        problems=found.problems,
        without_pattern=found.without_pattern,
    )


def describe(history: History, key: str) -> PatternDetails:
    """Everything about one pattern of the work tree.

    Raises `UnknownName`, and `InvalidInput` if its file is faulty.
    """
    graph = Graph.of(history)
    pattern = graph.pattern(key)
    own = [state for state in states.states(history, graph).trainables if state.key == key]
    targets = {key, *(one.name for one in pattern.trainables)}
    return PatternDetails(
        key=key,
        kind=pattern.kind,
        file=pattern.file,
        prose=pattern.prose,
        links=_links(pattern),
        linked_from=tuple(
            link for other in graph.patterns.values() for link in _links(other) if link.to in targets
        ),
        trainables=tuple(own),
        data=tuple(
            _data(graph, one, role)
            for one in pattern.trainables
            for role in DATA_KEYS
            if getattr(one.data, role) is not None
        ),
        settings={
            one.name: {item.name: getattr(one.settings, item.name) for item in fields(one.settings)}
            for one in pattern.trainables
        },
        extra=nodes.as_json(pattern.extra),
    )


def _links(pattern: Pattern) -> tuple[LinkView, ...]:
    return tuple(LinkView(pattern.key, link.to, link.relation, link.strength) for link in pattern.links)


def _data(graph: Graph, trainable: Trainable, role: str) -> DataView:
    """A data file, read as far as its entries are counted."""
    file, entries, problem = None, None, None
    try:
        file = graph.path_of(trainable, role)
        if role == "prompt":
            graph.prompt(trainable)
        elif role == "probes":
            probes = graph.probes(trainable.name)
            entries = len(probes.items) if probes else 0
        else:
            said = graph.turns(trainable) if role == "turns" else graph.dialogues(trainable, role)
            entries = len(said)
    except InvalidInput as error:
        problem = error.message
    return DataView(trainable.name, role, file, entries, problem)


# -- exchange ------------------------------------------------------------------------------------------------


def export_lines(history: History, rev: str | None = None) -> GraphExport:
    """The patterns of the work tree, or of a revision, as nodes for other programs.

    A node that was imported comes back as it was, with the edits of its file since. Raises `InvalidInput` if
    the file of a pattern cannot be read.
    """
    graph = Graph.of(history, rev)
    for problems in graph.problems.values():
        raise InvalidInput(f"{problems[0]}; nothing was exported")
    return GraphExport(tuple(nodes.node_of(one) for one in nodes.in_order(graph.patterns.values())))


def import_lines(history: History, path: AnyPath, *, force: bool = False) -> GraphImport:
    """Writes a file `graph/KEY.md` for each node of a file of JSON lines. Nothing is committed.

    A node is an object with `key`, and perhaps `content`, `weight`, `category` and `links`. Fields that
    persona does not use are kept, and `export_lines` gives them back. A file that nobody has edited since
    its import is changed. If somebody has, `Refused` names it, and nothing is imported. `force` takes the
    fields of the node into that file too, and keeps its data, settings and facets, without comments. Raises
    `InvalidInput` with file and line for a line that is no node.
    """
    place = Path(path)
    if place.is_dir():
        raise InvalidInput(f"{path} is a directory; give a file of JSON lines")
    found = nodes.read_nodes(os.fspath(path), read_input(place, limit=MAX_TEXT_FILE_BYTES))
    with changing(history) as tree:
        plan = _Plan(Graph.of(history), force)
        for node in found:
            plan.take(node)
        if plan.edited:
            was = "is" if len(plan.edited) == 1 else "are"
            raise Refused(
                f"{listed(plan.edited)} {was} written or edited by hand, so nothing was imported",
                hint=(Keyword(force=True), " takes the nodes into edited files too; it drops their comments"),
            )
        try:
            tree.apply(plan.edits, plan.seen)
        except PersonaError:
            with suppress(PersonaError):
                _take_back(tree, plan)
            raise
    return GraphImport(tuple(plan.added), tuple(plan.changed), tuple(plan.unchanged))


def _take_back(tree: LockedTree, plan: _Plan) -> None:
    """Puts the files that an import wrote back as they were: it takes all nodes or none."""
    root = tree.history.root
    ids = {path: text_files.blob_id(data) for path, data in plan.edits.items() if data is not None}
    written = [path for path, id in ids.items() if text_files.id_of(root, path) == id]
    tree.apply({path: plan.before.get(path) for path in written}, {path: ids[path] for path in written})


class _Plan:
    """The edits of an import, decided before anything is written."""

    def __init__(self, graph: Graph, force: bool) -> None:
        self.graph = graph
        self.force = force
        self.edits: dict[str, bytes | None] = {}
        self.before: dict[str, bytes] = {}
        """The files that are replaced."""
        self.edited: list[str] = []
        self.added: list[str] = []
        self.changed: list[str] = []
        self.unchanged: list[str] = []
        places = [nodes.position_of(one) for one in graph.patterns.values()]
        self._position = max((place for place in places if place is not None), default=0)

    @property
    def seen(self) -> dict[str, str]:
        """The blob ids of the files that are replaced."""
        return {path: text_files.blob_id(data) for path, data in self.before.items()}

    def take(self, node: nodes.Node) -> None:
        """Plans the file of one node."""
        known = self.graph.patterns.get(node.key)
        path = f"{FOLDER}/{file_name(node.key)}" if known is None else known.file
        before = self.graph.read(path)
        if known is not None and nodes.same(nodes.node_of(known), node.value):
            self.unchanged.append(node.key)
            return
        own, prose = dict[str, Any](), ""
        if before is not None:
            if known is None or not _is_as_imported(known, before):
                self.edited += [] if self.force else [path]
                own, prose = _own(path, before, node.value)
            self.before[path] = before
        data = nodes.file_text(node.value, self._place(known), own, prose).encode()
        _, problems = pattern_of(path, data)
        if problems:
            raise InvalidInput(f"{node.place}: this node makes no pattern: {problems[0].text}")
        if path in self.edits:
            raise InvalidInput(f"{node.place}: {path} is the file of another node already")
        self.edits[path] = data
        (self.added if before is None else self.changed).append(node.key)

    def _place(self, known: Pattern | None) -> int:
        """The position of a node: the one that it has, else the next."""
        place = None if known is None else nodes.position_of(known)
        if place is None:
            self._position += 1
            return self._position
        return place


def _is_as_imported(pattern: Pattern, data: bytes) -> bool:
    """Whether a file is as an import wrote it."""
    place = nodes.position_of(pattern)
    return place is not None and nodes.file_text(nodes.node_of(pattern), place).encode() == data


def _own(path: str, data: bytes, value: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The keys of the front matter that a forced import keeps, and the prose if the node has none."""
    try:
        written = written_of(path, data)
    except InvalidInput:
        return {}, ""
    gone = {"key", nodes.IMPORT, *value} - set(KEPT_BY_FORCE)
    gone |= {name for name, field in (("kind", "category"), ("links", "links")) if field in value}
    return {name: item for name, item in written.document.items() if name not in gone}, written.prose
