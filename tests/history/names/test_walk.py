"""Ranges and merge bases of random histories, whatever the clocks: against sets, and against git."""

from __future__ import annotations

import random
import shutil
import subprocess
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from persona.history.names.walk import is_ancestor, merge_bases, topological, walk
from persona.objects.commit import Commit, Person
from tests.campaign import rounds

CLOCKS = ("equal", "ordered", "skewed", "one broken")


@dataclass
class Graph:
    """A history in memory: parents and times by id. As `History` it counts what is read of it."""

    parents: dict[str, tuple[str, ...]]
    times: dict[str, int]
    read: list[str] = field(default_factory=list)

    def commit(self, id: str) -> Commit:
        """A commit, as `History.commit` gives it."""
        self.read.append(id)
        person = Person("Ada", "ada@example.org", self.times[id], 0)
        return Commit("0" * 64, self.parents[id], person, person, "m\n")

    def reach(self, *ids: str) -> set[str]:
        """All that some commits reach, themselves included: the model."""
        found: set[str] = set()
        pending = list(ids)
        while pending:
            id = pending.pop()
            if id not in found:
                found.add(id)
                pending.extend(self.parents[id])
        return found

    def best(self, one: str, other: str) -> set[str]:
        """The common ancestors that no other common ancestor reaches: the model."""
        common = self.reach(one) & self.reach(other)
        return {id for id in common if not any(id in self.reach(*self.parents[other]) for other in common)}

    def any(self) -> Any:
        return self


def history(rng: random.Random, clock: str, size: int | None = None) -> Graph:
    """A random history: lines, forks, merges of two or three, now and then a second root."""
    size = size or rng.randint(2, 24)
    ids = [f"c{number}" for number in range(size)]
    parents: dict[str, tuple[str, ...]] = {}
    times: dict[str, int] = {}
    width = rng.choice((1, 2, 4, size))
    for number, id in enumerate(ids):
        near = ids[max(0, number - width) : number]
        count = min(len(near), rng.choice((1, 1, 1, 2, 2, 3)))
        root = not near or rng.random() < 0.04
        parents[id] = () if root else tuple(rng.sample(near, count))
        after = max((times[parent] for parent in parents[id]), default=1_000_000)
        times[id] = {
            "equal": 1_000_000 + number // rng.choice((1, 1000)),
            "ordered": after + rng.randint(0, 3),
            "skewed": 1_000_000 + rng.randint(-20, 20),
            "one broken": after + rng.randint(0, 3),
        }[clock]
    if clock == "one broken":
        times[rng.choice(ids)] = rng.choice((0, 5_000_000))
    return Graph(parents, times)


@pytest.mark.parametrize("clock", CLOCKS)
def test_ranges_and_merge_bases_are_those_of_the_sets(clock: str) -> None:
    rng = random.Random(f"sets {clock}")
    for _ in range(rounds(75)):
        graph = history(rng, clock)
        ids = list(graph.parents)
        for _ in range(4):
            one, other, third = (rng.choice(ids) for _ in range(3))
            given = [id for id, _ in walk(graph.any(), [other, third], [one])]
            assert len(given) == len(set(given))
            assert set(given) == graph.reach(other, third) - graph.reach(one)
            given = [id for id, _ in walk(graph.any(), [other], [one, third])]
            assert set(given) == graph.reach(other) - graph.reach(one, third)
            assert set(merge_bases(graph.any(), one, other)) == graph.best(one, other)
            assert is_ancestor(graph.any(), one, other) == (one in graph.reach(other))


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_ranges_and_merge_bases_are_those_of_git(clock: str, tmp_path: Path) -> None:
    rng = random.Random(f"git {clock}")
    graphs = [history(rng, clock) for _ in range(rounds(3))]
    names = import_into_git(tmp_path, graphs)
    for graph, name in zip(graphs, names, strict=True):
        ids = list(graph.parents)
        for _ in range(3):
            one, other = rng.choice(ids), rng.choice(ids)
            bases = [name[id] for id in merge_bases(graph.any(), one, other)]
            plain = ("-c", "core.commitGraph=false")  # with it git's order is by generation
            assert bases == git(tmp_path, *plain, "merge-base", "--all", name[one], name[other])
            here = {name[id] for id, _ in walk(graph.any(), [other], [one])}
            assert here == set(git(tmp_path, "rev-list", "--topo-order", f"{name[one]}..{name[other]}"))
            both = merge_bases(graph.any(), one, other)
            here = {name[id] for id, _ in walk(graph.any(), [one, other], both)}
            assert here == set(git(tmp_path, "rev-list", "--topo-order", f"{name[one]}...{name[other]}"))


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_walk_gives_all_that_is_reached_once_and_the_newest_that_it_has_seen_first(clock: str) -> None:
    rng = random.Random(f"all {clock}")
    for _ in range(rounds(75)):
        graph = history(rng, clock)
        tips = rng.sample(list(graph.parents), rng.randint(1, min(3, len(graph.parents))))
        given = [id for id, _ in walk(graph.any(), [*tips, tips[0]])]
        assert len(given) == len(set(given))
        waiting, done = set(tips), set()
        for id in given:
            assert graph.times[id] == max(graph.times[one] for one in waiting)
            done.add(id)
            waiting = (waiting | set(graph.parents[id])) - done
        assert not waiting
        assert set(given) == graph.reach(*tips)


@pytest.mark.parametrize("clock", CLOCKS)
def test_in_topological_order_no_commit_is_before_a_child_and_lines_stay_together(clock: str) -> None:
    rng = random.Random(f"topological {clock}")
    for _ in range(rounds(75)):
        graph = history(rng, clock)
        ids = list(graph.parents)
        walked = list(walk(graph.any(), rng.sample(ids, min(3, len(ids))), [rng.choice(ids)]))
        given = [id for id, _ in topological(walked)]
        assert sorted(given) == sorted(id for id, _ in walked)
        place = {id: number for number, id in enumerate(given)}
        for id in given:
            assert all(place[id] < place[one] for one in graph.parents[id] if one in place)
        for number, id in enumerate(given[:-1]):
            done = set(given[: number + 1])
            children = {one: {child for child in given if one in graph.parents[child]} for one in given}
            ready = [one for one in graph.parents[id] if one in place and children[one] <= done]
            assert not ready or given[number + 1] == ready[0]


def line(length: int) -> Graph:
    """A history without forks, a second between commits."""
    ids = [f"c{number}" for number in range(length)]
    parents = dict(zip(ids, [(), *((id,) for id in ids)], strict=False))
    return Graph(parents, {id: number for number, id in enumerate(ids)})


def test_what_lies_near_the_tip_is_answered_there() -> None:
    graph = line(20_000)
    tip, near = "c19999", "c19990"
    assert len(list(islice(walk(graph.any(), [tip]), 20))) == 20
    assert len(list(walk(graph.any(), [tip], [near]))) == 9
    assert list(walk(graph.any(), [near], [tip])) == []
    assert merge_bases(graph.any(), tip, near) == [near]
    assert is_ancestor(graph.any(), near, tip)
    assert not is_ancestor(graph.any(), tip, near)
    assert len(graph.read) < 100


def test_a_fork_beside_a_long_history_is_answered_at_the_fork() -> None:
    graph = line(20_000)
    graph.parents |= {"f0": ("c19980",), "f1": ("f0",), "merged": ("c19999", "f0")}
    graph.times |= {"f0": 19_985, "f1": 19_995, "merged": 20_000}
    assert [id for id, _ in walk(graph.any(), ["f1"], ["merged"])] == ["f1"]
    assert len(list(walk(graph.any(), ["merged"], ["f1"]))) == 20
    assert merge_bases(graph.any(), "f1", "c19999") == ["c19980"]
    assert len(graph.read) < 300


def import_into_git(place: Path, graphs: list[Graph]) -> list[dict[str, str]]:
    """Makes these commits in a bare repository, generation numbers beside them; returns git's ids."""
    git(place, "init", "--bare", "--quiet", ".")
    stream: list[str] = []
    marks: list[dict[str, int]] = []
    count = 0
    for place_of, graph in enumerate(graphs):
        mark: dict[str, int] = {}
        for id, parents in graph.parents.items():
            count += 1
            mark[id] = count
            message = f"{place_of} {id}\n"
            stream += [
                f"commit refs/heads/g{place_of}-{id}",
                f"mark :{count}",
                f"committer Ada <ada@example.org> {graph.times[id]} +0000",
                f"data {len(message)}",
                message,
            ]
            stream += [f"{'merge' if number else 'from'} :{mark[one]}" for number, one in enumerate(parents)]
            stream.append("")
        marks.append(mark)
    command = ["git", "-C", str(place), "fast-import", "--quiet", "--export-marks=marks"]
    subprocess.run(command, input="\n".join(stream) + "\n", text=True, check=True)
    git(place, "commit-graph", "write", "--reachable")
    lines = (line.split() for line in (place / "marks").read_text().splitlines())
    names = {int(mark[1:]): id for mark, id in lines}
    return [{id: names[number] for id, number in mark.items()} for mark in marks]


def git(place: Path, *words: str) -> list[str]:
    """The lines that a command of git's prints; exit 1 with none is no failure."""
    done = subprocess.run(["git", "-C", str(place), *words], capture_output=True, text=True, check=False)
    assert (done.returncode in (0, 1), done.stderr) == (True, "")
    return done.stdout.splitlines()
