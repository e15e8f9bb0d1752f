"""Ranges and merge bases of random histories, whatever the clocks: against sets, and against git."""

from __future__ import annotations

import random
import shutil
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from persona.history.names.walk import is_ancestor, merge_bases, topological, walk
from tests.campaign import rounds
from tests.history.graphs import CLOCKS, Graph, git, history, import_into_git


@st.composite
def small_graphs(draw: st.DrawFn) -> Graph:
    """A history of up to ten commits, merges of up to three, whatever the clocks."""
    parents: dict[str, tuple[str, ...]] = {}
    for number in range(draw(st.integers(2, 10))):
        above = st.lists(st.sampled_from(list(parents)), max_size=3, unique=True) if parents else st.just([])
        parents[f"c{number}"] = tuple(draw(above))
    return Graph(parents, {id: draw(st.integers(1, 4)) for id in parents})


CRISS_CROSS = Graph(
    {
        "root": (),
        "a": ("root",),
        "b": ("root",),
        "ab": ("a", "b"),
        "ba": ("b", "a"),
        "c": ("ab",),
        "d": ("ba",),
    },
    {"root": 1, "a": 2, "b": 2, "ab": 3, "ba": 3, "c": 4, "d": 4},
)


@given(small_graphs())
@example(CRISS_CROSS)
def test_merge_bases_of_any_two_commits_are_those_of_the_sets(graph: Graph) -> None:
    for one in graph.parents:
        for other in graph.parents:
            assert set(merge_bases(graph.any(), one, other)) == graph.best(one, other)


def test_a_criss_cross_has_two_merge_bases() -> None:
    assert set(merge_bases(CRISS_CROSS.any(), "c", "d")) == {"a", "b"}


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
            assert not ready or given[number + 1] == ready[-1]


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
