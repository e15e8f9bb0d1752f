"""Whole bisects of random histories: against the planted commit, and against git."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from persona.errors import Refused
from persona.history.bisecting.search import BAD, GOOD, SKIP, Search
from persona.history.bisecting.stepping import Step, next_step
from persona.history.results import Head
from tests.campaign import rounds
from tests.history.graphs import CLOCKS, Graph, git, history, import_into_git

START = Search(Head("main", None))


@dataclass
class Planted:
    """A history, the commit that brought the fault, and marks to begin with."""

    graph: Graph
    first: str
    bad: str
    good: list[str]

    def is_bad(self, id: str) -> bool:
        return self.first in self.graph.reach(id)

    def search(self) -> Search:
        return START.marked(BAD, [self.bad]).marked(GOOD, self.good)

    def finish(self, search: Search, skips: Callable[[str], bool] = lambda id: False) -> tuple[Step, int]:
        """Answers until the end; returns the last step and the number of tests."""
        for tests in range(len(self.graph.parents) + 1):
            step = next_step(self.graph.any(), search)
            if step.state != "testing":
                return step, tests
            assert step.commit is not None
            assert step.commit not in (search.bad, *search.good, *search.skipped)
            mark = SKIP if skips(step.commit) else BAD if self.is_bad(step.commit) else GOOD
            search = search.marked(mark, [step.commit])
        raise AssertionError("the bisect does not end")


def planted(rng: random.Random, clock: str, size: int | None = None) -> Planted:
    """A fault in a random history, one bad commit, and some good ones, ancestors of it or not."""
    while True:
        graph = history(rng, clock, size)
        ids = list(graph.parents)
        found = Planted(graph, rng.choice(ids), "", [])
        good = [id for id in ids if not found.is_bad(id)]
        if good:
            found.bad = rng.choice([id for id in ids if found.is_bad(id)])
            found.good = rng.sample(good, rng.randint(1, min(3, len(good))))
            return found


@pytest.mark.parametrize("clock", CLOCKS)
def test_the_planted_commit_is_found(clock: str) -> None:
    rng = random.Random(f"found {clock}")
    for _ in range(rounds(150)):
        case = planted(rng, clock)
        step, _ = case.finish(case.search())
        assert (step.state, step.commit, step.candidates) == ("found", case.first, (case.first,))


@pytest.mark.parametrize("clock", CLOCKS)
def test_with_skips_the_planted_commit_is_found_or_among_those_that_are_left(clock: str) -> None:
    rng = random.Random(f"skips {clock}")
    undecided = 0
    for _ in range(rounds(150)):
        case = planted(rng, clock)
        untestable = {id for id in case.graph.parents if rng.random() < 0.4} - {*case.good, case.bad}
        step, _ = case.finish(case.search(), untestable.__contains__)
        if step.state == "found":
            assert step.commit == case.first or step.told
        else:
            undecided += 1
            assert step.state == "undecided"
            assert case.first in step.candidates or step.told
            assert sum(id not in untestable for id in step.candidates) == 1
    assert undecided


def test_the_first_parents_alone_lead_to_the_merge_that_brought_the_fault() -> None:
    graph = Graph(
        {"a": (), "b": ("a",), "side": ("a",), "worse": ("side",), "m": ("b", "worse"), "tip": ("m",)},
        {id: 100 + place for place, id in enumerate(("a", "b", "side", "worse", "m", "tip"))},
    )
    case = Planted(graph, "worse", "tip", ["a"])
    assert case.finish(case.search())[0].commit == "worse"
    search = Search(Head("main", None), first_parent=True).marked(BAD, ["tip"]).marked(GOOD, ["a"])
    assert case.finish(search)[0].commit == "m"


def fork() -> Graph:
    """A base, and two lines from it."""
    parents: dict[str, tuple[str, ...]] = {"root": (), "base": ("root",), "l": ("base",), "r": ("base",)}
    return Graph(parents, {id: place for place, id in enumerate(parents)})


def test_a_good_commit_beside_the_bad_one_has_the_merge_base_tested_first() -> None:
    graph = fork()
    search = START.marked(BAD, ["l"]).marked(GOOD, ["r"])
    step = next_step(graph.any(), search)
    assert (step.state, step.commit, step.merge_base) == ("testing", "base", True)
    assert next_step(graph.any(), search.marked(GOOD, ["base"])).commit == "l"
    skipped = next_step(graph.any(), search.marked(SKIP, ["base"]))
    assert (skipped.commit, skipped.told) == ("l", ("base",))


def test_a_merge_base_that_a_good_ancestor_comes_from_needs_no_test() -> None:
    graph = fork()
    graph.parents |= {"old": ("root",)}
    graph.times |= {"old": 9}
    search = START.marked(BAD, ["l"]).marked(GOOD, ["old"])
    assert next_step(graph.any(), search).commit == "root"
    assert next_step(graph.any(), search.marked(GOOD, ["base"])).state == "found"


def test_a_bad_merge_base_says_that_the_fault_was_removed() -> None:
    from dataclasses import replace

    search = START.marked(BAD, ["l"]).marked(GOOD, ["r"])
    asked = replace(search, asked="base").marked(BAD, ["base"])
    with pytest.raises(
        Refused, match="the merge base base is bad: it was changed to good between there and r"
    ):
        next_step(fork().any(), asked)


def test_a_bad_ancestor_of_a_good_commit_is_refused() -> None:
    search = START.marked(BAD, ["root"]).marked(GOOD, ["l"])
    with pytest.raises(Refused, match="root, which is bad, is an ancestor of a commit that is good"):
        next_step(fork().any(), search)


def test_a_commit_cannot_be_good_and_bad() -> None:
    search = START.marked(BAD, ["l"])
    with pytest.raises(Refused, match="l was marked bad already"):
        search.marked(GOOD, ["l"])


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_finds_the_same_commit_in_about_as_many_tests(tmp_path: Path) -> None:
    rng = random.Random("git bisect")
    cases = [planted(rng, "ordered", size) for size in (12, 25, 40, 60) for _ in range(rounds(2))]
    names = import_into_git(tmp_path, [case.graph for case in cases])
    git(tmp_path, "symbolic-ref", "HEAD", "refs/heads/g0-c0")
    more: list[int] = []
    for case, name in zip(cases, names, strict=True):
        ids = {theirs: id for id, theirs in name.items()}
        marks = [name[case.bad], *(name[id] for id in case.good)]
        said = git(tmp_path, "bisect", "start", "--no-checkout", *marks)
        tests = 0
        while not any(line.endswith("is the first bad commit") for line in said):
            (here,) = git(tmp_path, "rev-parse", "BISECT_HEAD")
            said = git(tmp_path, "bisect", "bad" if case.is_bad(ids[here]) else "good", here)
            tests += 1
        git(tmp_path, "bisect", "reset")
        found = next(line.split()[0] for line in said if line.endswith("is the first bad commit"))
        step, ours = case.finish(case.search())
        assert step.commit == ids[found] == case.first
        assert abs(ours - tests) <= 2  # of equally good midpoints, git may take another
        more.append(ours - tests)
    assert abs(sum(more)) <= len(more)
