"""Everything that is wrong in a graph, or probably is not meant, with the file and the line.

Problems stop training and measuring. Warnings stop nothing: links that stand twice, probes that tell little.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from persona.behaviour.dialogues import Prompt, prompts_of, read_dialogues, read_turns, unpaired
from persona.behaviour.graph.graph import FOLDER, Graph, read_prompt
from persona.behaviour.graph.pattern import COLD, Pattern, Trainable
from persona.behaviour.graph.reading import DATA_KEYS, FACET_KEYS, KNOWN, Problem, problem_of, written_of
from persona.behaviour.probes import SEEN, Probe, ProbeSet, overlap, read_probes
from persona.errors import InvalidInput, listed, quoted
from persona.frozen import dataclass
from persona.history.recipes.text import line_of
from persona.history.results import Result

FEWEST_PROBES: Final = 10
"""Fewer probes than these give intervals that decide nothing."""
LENGTH_RATIO: Final = 2.0
"""Answers of a pair that differ more in length measure length, too."""
UNSEEN_SHARE: Final = 0.25
"""The least share of probes in a surface form that the training data does not use."""
MOST_OF_A_FILE: Final = 50
"""Problems of one data file that are looked for."""


@dataclass(frozen=True, repr=False)
class GraphCheck(Result):
    """The problems and warnings of a graph. `patterns`: how many files could be read.

    `unverified`: trainables with data to train on and without probes, so nothing tells whether they work.
    """

    patterns: int
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    unverified: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no problem. Warnings do not count."""
        return not self.problems


def check(graph: Graph) -> GraphCheck:
    """All problems and warnings of a graph."""
    found = _Check(graph)
    for path, why in graph.left_out.items():
        say = found.fail if path == FOLDER or path.endswith((".md", "/")) else found.warn
        say(path, 1, f"no commit can hold this: {why}")
    for problems in graph.problems.values():
        found.problems += problems
    for pattern in graph.patterns.values():
        found.links(pattern)
        found.keys(pattern)
        found.facets(pattern)
        for trainable in pattern.trainables:
            found.data(trainable)
    found.overlaps()
    unverified = [
        one.name
        for one in graph.trainables.values()
        if one.data.probes is None and (one.data.train or one.data.prompt)
    ]
    return GraphCheck(
        patterns=len(graph.patterns),
        problems=_in_order(found.problems),
        warnings=_in_order(found.warnings),
        unverified=tuple(unverified),
    )


def _in_order(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(dict.fromkeys(problems), key=lambda one: (one.file, one.line)))


class _Check:
    """One check of a graph, which collects problems and warnings."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.trained: dict[Prompt, str] = {}
        """The place of each prompt of any training data."""
        self.probes: dict[str, tuple[Probe, ...]] = {}
        """The probes by the path of their file."""
        self._read: dict[tuple[str, str], Any] = {}
        """The content of each data file by its role and path: facets may share one."""

    def fail(self, file: str, line: int, text: str) -> None:
        self.problems.append(Problem(file, line, text))

    def warn(self, file: str, line: int, text: str) -> None:
        self.warnings.append(Problem(file, line, text))

    # -- one pattern

    def links(self, pattern: Pattern) -> None:
        """Links to nothing, to the pattern itself, or twice to the same."""
        targets = {*self.graph.patterns, *self.graph.trainables}
        faulty = {path.rpartition("/")[2].removesuffix(".md") for path in self.graph.problems}
        seen: dict[tuple[str, str], int] = {}
        for link in pattern.links:
            if link.to == pattern.key:
                self.fail(pattern.file, link.line, f"links: {quoted(link.to)} links to itself")
            elif link.to not in targets and link.to.partition("#")[0] not in faulty:
                from difflib import get_close_matches

                near = get_close_matches(link.to, targets, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                self.fail(pattern.file, link.line, f"links: no pattern has the key {quoted(link.to)}{hint}")
            first = seen.setdefault((link.to, link.relation), link.line)
            if first != link.line:
                what = f"{quoted(link.relation)} to {quoted(link.to)}"
                self.warn(pattern.file, link.line, f"links: the link {what} stands in line {first} already")

    def keys(self, pattern: Pattern) -> None:
        """Keys that persona does not read, but that look like keys that it reads."""
        from difflib import get_close_matches

        facets: Any = pattern.extra.get("facets", {})
        unread: list[tuple[tuple[str, ...], Sequence[str]]]
        unread = [((name,), KNOWN) for name in pattern.extra if name not in KNOWN]
        unread += [(("facets", facet, name), FACET_KEYS) for facet in facets for name in facets[facet]]
        for path, known in unread:
            if near := get_close_matches(path[-1], known, 1, 0.75):
                front = written_of(pattern.file, self.graph.read(pattern.file) or b"").front
                text = f"{'.'.join(path)}: persona does not read this key; did you mean {near[0]}?"
                self.warn(pattern.file, line_of(front, path), text)

    def facets(self, pattern: Pattern) -> None:
        """Facets that train the same vector."""
        seen: dict[Any, str] = {}
        for one in pattern.trainables:
            if one.data.train is None and one.data.prompt is None:
                continue
            other = seen.setdefault((one.data, one.settings), one.name)
            if other != one.name:
                front = written_of(pattern.file, self.graph.read(pattern.file) or b"").front
                text = f"{one.name} has the data and settings of {other}, so both get the same vector"
                self.warn(pattern.file, line_of(front, ("facets", str(one.facet))), text)

    # -- data

    def data(self, trainable: Trainable) -> None:
        """The data files of a trainable: there, inside, tracked, readable, and of use."""
        read: dict[str, Callable[[str, bytes], Any]] = {
            "prompt": read_prompt,
            "turns": read_turns,
            "probes": lambda file, data: read_probes(trainable.name, file, data),
        }
        found = {role: self._file(trainable, role, read.get(role, read_dialogues)) for role in DATA_KEYS}
        for role in ("train", "opposite", "turns", "demos"):
            for prompt, place in prompts_of(found[role] or ()).items():
                self.trained.setdefault(prompt, place)
        if trainable.settings.warm != COLD and trainable.data.demos is None:
            place = self.graph.place_of(trainable, "demos")
            self.fail(*_split(place), f"the warm start of {trainable.name} needs demos in [data]")
        if found["train"] and found["opposite"] and (fault := unpaired(found["train"], found["opposite"])):
            place, problem = fault
            self.fail(*_split(place), f"opposite of {trainable.name}: {problem}")

    def _file(self, trainable: Trainable, role: str, read: Callable[[str, bytes], Any]) -> Any:
        """The content of one data file as far as it can be read; None if the trainable has none."""
        try:
            entry = self.graph.data(trainable, role)
        except InvalidInput as error:
            self.problems.append(problem_of(error))
            return None
        if entry is None:
            return None
        path, data = entry
        if (role, path) in self._read:
            return self._read[role, path]
        if path not in self.graph.paths:
            text = f"{role}: {path} is not tracked, so no commit holds it; move it below {FOLDER}/, or add it"
            self.warn(*_split(self.graph.place_of(trainable, role)), text)
        content = self._read[role, path] = self._content(path, data, read)
        if role == "probes" and content is not None:
            self.probes[path] = content.items
            self._judge(path, content)
        elif content == ():
            self.fail(path, 1, f"{role}: this file has no dialogue; a line is an object with messages")
        return content

    def _content(self, path: str, data: bytes, read: Callable[[str, bytes], Any]) -> Any:
        """The content of a file, without its faulty lines, which are noted; None if nothing is left."""
        lines = data.split(b"\n")
        for count in range(MOST_OF_A_FILE):
            try:
                return read(path, b"\n".join(lines)) or (None if count else ())
            except InvalidInput as error:
                place = re.match(re.escape(path) + r":(\d+): ", error.message)
                number = int(place[1]) if place else 0
                if not number and not count:
                    self.fail(path, 1, error.message.removeprefix(f"{path}: "))
                if not number or (count and not lines[number - 1]):
                    return None  # the lines were named
                self.problems.append(problem_of(error))
                lines[number - 1] = b""
        return None

    def _judge(self, path: str, probes: ProbeSet) -> None:
        """Whether probes can tell something."""
        items = probes.items
        if len(items) < FEWEST_PROBES:
            text = f"{len(items)} probe{'s' * (len(items) != 1)}; with fewer than {FEWEST_PROBES}, intervals"
            self.warn(path, 1, f"{text} are too wide to decide anything")
        unseen = sum(item.split != SEEN for item in items)
        if unseen < UNSEEN_SHARE * len(items):
            self.warn(
                path,
                1,
                f"{unseen} of {len(items)} probes are in a surface form that the training data does not use"
                f' (a "split" other than "{SEEN}"); half of them should be',
            )
        uneven = [
            item
            for item in items
            if item.chosen is not None
            and item.rejected is not None
            and max(len(item.chosen), len(item.rejected))
            > LENGTH_RATIO * min(len(item.chosen), len(item.rejected))
        ]
        if uneven:
            lines = [item.place.rpartition(":")[2] for item in uneven]
            where = f"line{'s' * (len(lines) > 1)} {listed(lines)}"
            text = f"chosen and rejected differ more than {LENGTH_RATIO:g} times in length ({where}), so that"
            self.warn(path, int(lines[0]), f"{text} their margin measures length too")

    # -- all patterns together

    def overlaps(self) -> None:
        """Probes whose prompt is trained on by any pattern. Spill is measured with the probes of all."""
        for items in self.probes.values():
            for item, place in overlap(items, self.trained):
                text = f"the prompt of probe {quoted(item.id, 40)} is a training prompt: it stands in {place}"
                self.fail(*_split(item.place), text)


def _split(place: str) -> tuple[str, int]:
    file, _, line = place.rpartition(":")
    return file, int(line)
