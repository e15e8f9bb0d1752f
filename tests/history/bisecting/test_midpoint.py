"""The counts and the choice of midpoints, against sets."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.history.bisecting.midpoint import choose, counts, steps
from tests.history.graphs import Graph, history


def graphs() -> st.SearchStrategy[Graph]:
    """Random histories of up to 24 commits, with merges."""
    return st.integers(0, 2**32).map(lambda seed: history(random.Random(seed), "ordered"))


def below(graph: Graph, bad: str) -> dict[str, tuple[str, ...]]:
    """All that a commit reaches, children first: in a random history, ids are made parents first."""
    reached = graph.reach(bad)
    return {id: graph.parents[id] for id in reversed(graph.parents) if id in reached}


@given(graphs(), st.data())
def test_a_count_is_the_number_of_candidates_that_a_commit_reaches(graph: Graph, data: st.DataObject) -> None:
    bad, good = (data.draw(st.sampled_from(list(graph.parents))) for _ in range(2))
    hidden = graph.reach(good)
    candidates = {id: parents for id, parents in below(graph, bad).items() if id not in hidden}
    assert counts(candidates) == {id: len(graph.reach(id) - hidden) for id in candidates}


@given(graphs(), st.data())
def test_the_choice_is_a_commit_whose_test_leaves_fewest_in_the_worse_case(
    graph: Graph, data: st.DataObject
) -> None:
    bad = data.draw(st.sampled_from(list(graph.parents)))
    reaches = counts(below(graph, bad))
    chosen = choose(reaches, bad, ())

    def worse(id: str) -> int:
        return max(reaches[id], len(reaches) - reaches[id])

    others = [id for id in reaches if id != bad]
    assert (chosen is None) == (not others)
    if chosen is not None:
        assert chosen != bad
        assert worse(chosen) == min(map(worse, others))


@given(graphs(), st.data())
def test_a_skipped_commit_is_never_chosen_and_any_other_is_chosen_before_giving_up(
    graph: Graph, data: st.DataObject
) -> None:
    bad = data.draw(st.sampled_from(list(graph.parents)))
    reaches = counts(below(graph, bad))
    skipped = data.draw(st.sets(st.sampled_from(list(reaches))))
    chosen = choose(reaches, bad, skipped)
    left = set(reaches) - skipped - {bad}
    assert chosen in left if left else chosen is None


def test_a_skip_in_a_long_line_leads_away_from_the_middle() -> None:
    moved = []
    for length in range(200, 300):
        reaches = {f"c{number}": number for number in range(1, length + 1)}
        first = choose(reaches, f"c{length}", ())
        assert first is not None
        second = choose(reaches, f"c{length}", {first})
        assert second is not None
        moved.append(abs(reaches[second] - reaches[first]) / length)
    assert sum(moved) / len(moved) > 0.1


@pytest.mark.parametrize(
    ("total", "expected"), [(1, 0), (2, 0), (3, 1), (5, 1), (6, 2), (10, 2), (11, 3), (1000, 9), (1024, 9)]
)
def test_the_steps_that_are_promised_are_those_of_git(total: int, expected: int) -> None:
    assert steps(total) == expected
