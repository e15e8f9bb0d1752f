"""Random histories in memory, whatever the clocks, and the same in git."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from persona.objects.commit import Commit, Person

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

    @property
    def store(self) -> Any:
        """Itself: the store of these commits."""
        return self

    @property
    def objects(self) -> Any:
        """The same."""
        return self

    def get(self, id: str, kind: str) -> bytes:
        """The bytes of a commit."""
        return self.commit(id).encode()

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
