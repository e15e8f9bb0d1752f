"""The commit graph gives what the commits say, and a walk that uses it gives what it gave without."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from persona.errors import IntegrityError
from persona.history.names import commit_graph, walk
from persona.history.names.commit_graph import CommitGraph, Links, encode
from persona.history.names.walk import first_parents, in_order, is_ancestor, merge_bases, walk_first_parents
from persona.history.names.walk import walk_links as links_of
from persona.repository import Repository
from tests.campaign import rounds
from tests.history import planted
from tests.history.bots import Bot
from tests.history.graphs import CLOCKS, history


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Repository, dict[int, str]]]:
    """A history of 500 commits with merges."""
    with planted.repository(tmp_path_factory.mktemp("long")) as repo:
        yield repo, planted.grow(repo, planted.merged(500), 250)


def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes walks look for the graph after 3 reads, and make it after 10."""
    monkeypatch.setattr(walk, "_MANY", 3)
    monkeypatch.setattr(walk, "_VERY_MANY", 10)


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_graph_holds_what_it_was_made_of(clock: str) -> None:
    rng = random.Random(f"graph {clock}")
    for _ in range(rounds(20)):
        graph = history(rng, clock)
        ids = {name: f"{rng.getrandbits(256):064x}" for name in graph.parents}
        commits: dict[str, Links] = {
            ids[name]: (graph.times[name], tuple(ids[parent] for parent in parents))
            for name, parents in graph.parents.items()
        }
        made = CommitGraph(encode(commits))
        assert made.all() == commits
        assert all(made.id(made.find(id) or 0) == id for id in commits)
        assert made.find(f"{rng.getrandbits(256):064x}") is None
        assert CommitGraph(encode({})).all() == {}


def test_bytes_of_another_form_are_no_graph() -> None:
    whole = encode({"ab" * 32: (5, ()), "cd" * 32: (6, ("ab" * 32,))})
    for bad in (whole[:-1], whole + b"\0", whole[8:], whole[:16] + bytes(8) + whole[24:], b""):
        with pytest.raises(Exception):  # noqa: B017, PT011
            CommitGraph(bad)


def test_answers_are_the_same_with_a_graph_and_without(
    long: tuple[Repository, dict[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, ids = long
    rng, made = random.Random("with and without"), repo._history
    pairs = [(ids[rng.randrange(501)], ids[rng.randrange(501)]) for _ in range(12)]

    def answers() -> list[object]:
        found: list[object] = [
            list(first_parents(made, ids[500])),
            in_order(dict(links_of(made, [ids[500]]))),
        ]
        found[1] = list(found[1])  # type: ignore[call-overload]
        for one, other in pairs:
            found += [merge_bases(made, one, other), is_ancestor(made, one, other)]
            found += [list(links_of(made, [one], [other])), list(walk_first_parents(made, [one], [other]))]
            found += [[id for id, _ in walk.walk(made, [one], [other])]]
        return found

    assert commit_graph.load(made) is None
    without = answers()
    small_steps(monkeypatch)
    assert answers() == without
    graph = commit_graph.load(made)
    assert graph is not None
    read: list[str] = []
    whole = made.commit
    monkeypatch.setattr(made, "commit", lambda id: read.append(id) or whole(id))
    reached = list(links_of(made, [ids[500]]))
    assert 300 < len(reached) <= len(graph)
    assert len(read) < 20


def test_a_graph_that_is_damaged_or_of_a_copy_is_not_used(
    long: tuple[Repository, dict[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, ids = long
    made = repo._history
    small_steps(monkeypatch)
    whole = list(links_of(made, [ids[500]]))
    cache = made.store.cache(commit_graph.NAME)
    cache.path.write_bytes(cache.path.read_bytes()[:-1] + b"\xff")
    assert commit_graph.load(made) is None
    assert list(links_of(made, [ids[500]])) == whole
    assert commit_graph.load(made) is not None
    cache.write(b"no graph at all, but whole")
    assert commit_graph.load(made) is None
    assert list(links_of(made, [ids[500]])) == whole


def test_a_missing_commit_far_below_stops_no_walk_that_does_not_need_it(
    grown: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = grown.repo._history
    tip, root = grown.repo.resolve(), grown.repo.resolve("HEAD~3")
    monkeypatch.setattr(walk, "_MANY", 1)
    monkeypatch.setattr(walk, "_VERY_MANY", 2)
    (made.store.root / "objects" / root[:2] / root[2:]).unlink()
    assert grown.repo.resolve("HEAD~2")
    assert is_ancestor(made, grown.repo.resolve("HEAD~1"), tip)
    with pytest.raises(IntegrityError):
        list(links_of(made, [tip]))
