"""The graph as text: problems, states, a tree of patterns, and everything about one of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from click import style

from persona.cli.render import columns, counted, number, shown_path
from persona.cli.terminal import one_line, printable
from persona.cli.verification import effect_text, too_much

if TYPE_CHECKING:
    from persona.behaviour.graph.check import GraphCheck
    from persona.behaviour.graph.reading import Problem
    from persona.behaviour.states import GraphStatus, TrainableState
    from persona.behaviour.verbs.graph import (
        GraphExport,
        GraphImport,
        GraphView,
        LinkView,
        PatternDetails,
        PatternView,
    )
    from persona.cli.invocation import Invocation
    from persona.repository import Repository

COLOURS = {"untrained": "bright_black", "stale": "yellow", "verified": "green", "failing": "red"}
"""The colour of each state that has one."""
_LONGEST = 60
"""Letters of a name in a list."""
OPPOSING = ("oppos", "contra", "inhibit", "conflict", "against", "not-", "anti")
"""How the relation of a link begins that opposes its pattern."""


def opposes(relation: str) -> bool:
    """Whether a link says that two patterns oppose each other."""
    return relation.casefold().startswith(OPPOSING)


def owner(name: str, keys: Container[str]) -> str:
    """The key of the pattern that a link leads to, also by one of its facets."""
    return name if name in keys else name.partition("#")[0]


def roots(after: Mapping[str, Sequence[str]]) -> list[str]:
    """The patterns that no other links to, then one of each cycle that is not reached from these.

    `after`: the keys that each pattern links to. From the roots, every pattern is reached.
    """
    linked = {target for key, targets in after.items() for target in targets if target != key}
    found = dict.fromkeys(key for key in after if key not in linked)
    reached: set[str] = set()
    for start in [*found, *after]:
        if start in reached:
            continue
        seen = {start}
        waiting = [start]
        while waiting:
            new = [key for key in after[waiting.pop()] if key in after and key not in seen]
            seen.update(new)
            waiting += new
        for other in seen & found.keys() - {start}:
            del found[other]  # a part of a cycle that this one leads to
        found[start] = None
        reached |= seen
    return list(found)


# -- check and status ----------------------------------------------------------------------------------------


def check(result: GraphCheck, call: Invocation, repo: Repository) -> Iterator[str]:
    """The problems, the warnings, and a sum."""
    yield from (_problem(one, "error", "red") for one in result.problems)
    yield from (_problem(one, "warning", "yellow") for one in result.warnings)
    if result.unverified:
        names = ", ".join(map(one_line, result.unverified))
        yield f"unverified, because they have no probes: {names}"
    problems = counted(len(result.problems), "problem") if result.problems else "no problem"
    warnings = f", {counted(len(result.warnings), 'warning')}" if result.warnings else ""
    yield f"{counted(result.patterns, 'pattern')}, {problems}{warnings}"


def _problem(problem: Problem, word: str, colour: str) -> str:
    return f"{shown_path(problem.file)}:{problem.line}: {style(word, fg=colour)}: {printable(problem.text)}"


def status(result: GraphStatus, call: Invocation, repo: Repository) -> Iterator[str]:
    """One trainable a line, and a sum."""
    rows = [(_name(one.name), one.state, _alpha(one), _id(one), _remark(one)) for one in result.trainables]
    for line, one in zip(columns(rows), result.trainables, strict=True):
        yield style(line, fg=COLOURS.get(one.state))
    yield from _others(result.problems, result.without_pattern)
    counts = {one.state: 0 for one in result.trainables}
    for one in result.trainables:
        counts[one.state] += 1
    sums = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    yield sums or "graph/ has no pattern"


def _others(problems: Sequence[Problem], without: Sequence[str]) -> Iterator[str]:
    """The files that cannot be read, and the vectors without a pattern."""
    for problem in problems:
        yield _problem(problem, "error", "red")
    if without:
        yield f"vectors without a pattern: {', '.join(map(one_line, without))}"


def _name(name: str) -> str:
    """A key or a vector's name in a list; a long one loses its middle."""
    text = one_line(name)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 20]}…{text[-19:]}"


def _alpha(state: TrainableState) -> str:
    return "" if state.alpha is None else f"α {number(state.alpha)}"


def _id(state: TrainableState) -> str:
    return "" if state.vector is None else state.vector[:8]


def _remark(state: TrainableState) -> str:
    """Why a trainable is in its state, if its name does not say it."""
    if state.state == "stale":
        return f"changed since it was trained: {', '.join(state.changed)}"
    if state.vector is None:
        return "" if state.has_data else "no data to train on"
    words = []
    if state.effect is not None:
        words.append(f"effect {effect_text(state.effect)}")
    if state.damage is not None and (reason := too_much(state.damage)):
        words.append(reason)
    if state.state == "trained":
        undecided = "inconclusive" if state.effect is not None else "not measured"
        words.append(undecided if state.has_probes else "no probes, so unverified")
    if not state.trained_here:
        words.append("imported")
    if state.alpha is None:
        words.append("not in the recipe")
    return ", ".join(words)


# -- the tree ------------------------------------------------------------------------------------------------


def view(result: GraphView, call: Invocation, repo: Repository) -> Iterator[str]:
    """Patterns under those that link to them, each printed in full once; its facets come before its links."""
    tree = _Tree(result)
    for root in tree.roots:
        yield from tree.lines(tree.by_key[root])
    if not result.patterns:
        yield "graph/ has no pattern"
    yield from _others(result.problems, result.without_pattern)


class _Tree:
    """The patterns as a tree that is as flat as their links allow.

    A pattern stands under the first of those that link to it and are nearest to a root. Elsewhere, it is only
    named.
    """

    def __init__(self, result: GraphView) -> None:
        self.by_key = {one.key: one for one in result.patterns}
        self.printed: set[str] = set()
        after = {key: [owner(link.to, self.by_key) for link in one.links] for key, one in self.by_key.items()}
        self.roots = roots(after)
        self.parents: dict[str, str | None] = dict.fromkeys(self.roots)
        waiting = deque(self.roots)
        while waiting:
            parent = waiting.popleft()
            for key in after[parent]:
                if key in after and key not in self.parents:
                    self.parents[key] = parent
                    waiting.append(key)

    def lines(self, root: PatternView) -> Iterator[str]:
        """A root and all below it, without recursion: a chain of links may be long."""
        waiting: list[tuple[str, str, str, str | None, PatternView | str | TrainableState]]
        waiting = [("", "", "", None, root)]
        while waiting:
            begin, indent, link, parent, item = waiting.pop()
            if isinstance(item, str):
                yield f"{begin}{link}{item}"
                continue
            if not hasattr(item, "links"):
                yield f"{begin}{_facet_line(item)}"
                continue
            pattern: PatternView = item  # type: ignore[assignment]
            is_printed = pattern.key in self.printed
            if is_printed or self.parents[pattern.key] != parent:
                yield f"{begin}{link}{_name(pattern.key)} ({'above' if is_printed else 'below'})"
                continue
            self.printed.add(pattern.key)
            yield f"{begin}{link}{_pattern_line(pattern)}"
            below = self.below(pattern)
            for place in range(len(below) - 1, -1, -1):
                words, child = below[place]
                last = place == len(below) - 1
                corner, bar = ("└─ ", "   ") if last else ("├─ ", "│  ")
                waiting.append((indent + corner, indent + bar, words, pattern.key, child))

    def below(self, pattern: PatternView) -> list[tuple[str, PatternView | str | TrainableState]]:
        """The facets of a pattern, and what it links to with the words of the link."""
        found: list[tuple[str, PatternView | str | TrainableState]] = [
            ("", one) for one in pattern.trainables if one.facet is not None
        ]
        for link in pattern.links:
            key = owner(link.to, self.by_key)
            facet = f"(#{one_line(link.to[len(key) + 1 :])}) " if key != link.to else ""
            found.append(
                (_link_words(link) + facet, self.by_key.get(key) or f"{one_line(key)} (no such pattern)")
            )
        return found


def _pattern_line(pattern: PatternView) -> str:
    own = [one for one in pattern.trainables if one.facet is None]
    kind = "" if pattern.kind == "pattern" else f"{pattern.kind}  "
    facts = f"{kind}{_state_words(own[0])}" if own else kind.strip()
    return f"{style(_name(pattern.key), bold=True)}  {facts}".rstrip()


def _facet_line(state: TrainableState) -> str:
    return f"#{one_line(state.facet or '')}  {_state_words(state)}"


def _state_words(state: TrainableState) -> str:
    words = [style(state.state, fg=COLOURS.get(state.state)), _alpha(state), _id(state)]
    if state.state == "stale":
        words.append(f"({', '.join(state.changed)})")
    return "  ".join(word for word in words if word)


def _link_words(link: LinkView) -> str:
    """A link before the pattern that it leads to."""
    strength = "" if link.strength == 1 else f" {link.strength:g}"
    words = f"{one_line(link.relation)}{strength} → "
    return style(words, fg="red") if opposes(link.relation) else words


# -- one pattern ---------------------------------------------------------------------------------------------


def details(result: PatternDetails, call: Invocation, repo: Repository) -> Iterator[str]:
    """Everything about one pattern."""
    yield style(f"pattern {one_line(result.key)}", fg="yellow")
    yield f"Kind:      {result.kind}"
    yield f"File:      {shown_path(result.file)}"
    for state in result.trainables:
        name = "Vector" if state.facet is None else f"#{one_line(state.facet)}"
        remark = _remark(state)
        yield f"{name + ':':<10} {_state_words(state)}{f'  {remark}' if remark and not state.changed else ''}"
    for link in result.links:
        yield f"Link:      {_link_words(link)}{one_line(link.to)}"
    for link in result.linked_from:
        yield f"Linked:    {one_line(link.from_)} {_link_words(link)}{one_line(link.to)}"
    several = len(result.trainables) > 1
    for data in result.data:
        whose = f"{one_line(data.name)} " if several else ""
        entries = "" if data.entries is None else f", {counted(data.entries, _entry(data.role))}"
        problem = "" if data.problem is None else style(f" ({printable(data.problem)})", fg="red")
        yield f"Data:      {whose}{data.role} {shown_path(data.file or '')}{entries}{problem}"
    for name, settings in result.settings.items():
        if any(data.name == name and data.role in ("train", "prompt") for data in result.data):
            whose = f"{one_line(name)} " if several else ""
            words = ", ".join(f"{key} {_setting(value)}" for key, value in _chosen(settings))
            yield f"Training:  {whose}{words}"
    if result.extra:
        yield f"Other:     {', '.join(map(one_line, result.extra))}"
    if result.prose.strip():
        yield ""
        yield from (f"    {printable(line)}".rstrip() for line in result.prose.strip().split("\n"))


def _chosen(settings: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """The settings that matter most, and those with unusual values."""
    from persona.behaviour.graph.pattern import TrainSettings

    for key, value in settings.items():
        if key in ("method", "optimizer", "steps") or value != getattr(TrainSettings, key, None):
            yield key, value


def _entry(role: str) -> str:
    return {"probes": "probe", "turns": "turn"}.get(role, "dialogue")


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(one_line, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


# -- exchange ------------------------------------------------------------------------------------------------


def imported(result: GraphImport, call: Invocation, repo: Repository) -> list[str]:
    """How many nodes an import took in."""
    counts = (("added", result.added), ("changed", result.changed), ("unchanged", result.unchanged))
    words = ", ".join(f"{len(keys):,} {word}" for word, keys in counts if keys)
    return [f"{words or 'no node'} in graph/"]


def exported(result: GraphExport, call: Invocation, repo: Repository) -> Iterator[str]:
    """Nodes as JSON lines."""
    from persona.cli.terminal import json_line

    return map(json_line, result.lines)
