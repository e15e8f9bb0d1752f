"""The drawings are those of `git log --graph`, for histories of every shape that a recipe can have."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from persona.cli.graph import Graph, within


def drawn(history: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """The drawing of commits of one line each."""
    graph = Graph()
    return [line.rstrip() for id, parents in history for line in graph.draw(id, parents).beside([id])]


def test_a_straight_line_is_a_column_of_stars() -> None:
    assert drawn([("c", ["b"]), ("b", ["a"]), ("a", [])]) == ["* c", "* b", "* a"]


def test_a_branch_stands_beside_and_joins_at_its_root() -> None:
    history = [("warm", ["root"]), ("main", ["root"]), ("root", [])]
    assert drawn(history) == ["* warm", "| * main", "|/", "* root"]


def test_a_merge_parts_and_joins() -> None:
    history = [("merge", ["left", "right"]), ("right", ["root"]), ("left", ["root"]), ("root", [])]
    assert drawn(history) == ["*   merge", "|\\", "| * right", "* | left", "|/", "* root"]


def test_a_line_crosses_those_between_it_and_its_root() -> None:
    history = [("a", ["r"]), ("b", ["s"]), ("c", ["r"]), ("r", ["s"]), ("s", [])]
    assert drawn(history) == ["* a", "| * b", "| | * c", "| |/", "|/|", "* | r", "|/", "* s"]


def test_the_text_of_a_commit_stands_right_of_the_drawing() -> None:
    graph = Graph()
    cell = graph.draw("merge", ["left", "right"])
    assert list(cell.beside(["commit", "", "    text"])) == ["*   commit", "|\\  ", "| |     text"]


def test_unrelated_histories_do_not_join() -> None:
    assert drawn([("b", []), ("a", [])]) == ["* b", "* a"]


def test_commits_left_out_are_stepped_over() -> None:
    parents = {"e": ["d"], "d": ["c", "b"], "c": ["a"], "b": ["a"], "a": ["beyond"]}
    assert within(parents, {"e", "b", "a"}) == {"e": ["a", "b"], "b": ["a"], "a": []}


@pytest.mark.skipif(shutil.which("git") is None, reason="git draws the expected lines")
@pytest.mark.parametrize("seed", range(12))
def test_the_drawing_equals_that_of_git(seed: int, tmp_path: Path) -> None:
    repository = Git(tmp_path)
    repository.grow(random.Random(seed), commits=8 + 3 * seed)
    assert drawn(repository.history()) == repository.drawing()


class Git:
    """A git repository of random shape."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run("init", "-q")

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=self.path, input=stdin, capture_output=True, text=True, check=True
        ).stdout

    def grow(self, rng: random.Random, commits: int) -> None:
        """Commits named c0, c1, … that follow, branch, merge, or start anew."""
        stream = []
        for number in range(commits):
            parents = [rng.choice(range(max(0, number - 4), number))] if number else []
            if number > 1 and rng.random() < 0.35:
                parents.append(rng.choice([other for other in range(number) if other not in parents]))
            if rng.random() < 0.05:
                parents = []
            stream.append(
                f"commit refs/tips/{number}\nmark :{number + 1}\n"
                f"committer a <a@b> {10**9 + 100 * number} +0000\ndata {len(f'c{number}')}\nc{number}\n"
            )
            stream += [f"{'merge' if place else 'from'} :{p + 1}\n" for place, p in enumerate(parents)]
        self.run("fast-import", "--quiet", stdin="".join(stream))

    def history(self) -> list[tuple[str, list[str]]]:
        """(name, names of parents), children before parents, as git sorts them for a drawing."""
        lines = self.run("log", "--all", "--topo-order", "--format=%H %s %P").splitlines()
        names = {line.split()[0]: line.split()[1] for line in lines}
        return [(line.split()[1], [names[id] for id in line.split()[2:]]) for line in lines]

    def drawing(self) -> list[str]:
        return [line.rstrip() for line in self.run("log", "--all", "--graph", "--format=%s").splitlines()]
