"""Rows that are kept: within their room, and given back as they were."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from persona.merge.rows.cache import RowCache

SIZE = 8
ONE = SIZE * 2  # bytes of a row


def ordered(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A row in another order than that of its elements, and that order."""
    random = np.random.default_rng(seed)
    row = random.integers(0, 1 << 16, SIZE).astype(np.uint16)
    return row, random.permutation(SIZE).astype(np.uint32)


def holds(kept: RowCache, seed: int) -> bool:
    """Whether a row is kept; what is kept is what it was, in the order of its elements."""
    found, (row, order) = kept.find((str(seed),)), ordered(seed)
    if found is None:
        return False
    assert np.array_equal(found[order], row)
    return True


def keep(kept: RowCache, seed: int) -> None:
    row, order = ordered(seed)
    kept.keep((str(seed),), row, order)
    row[:] = 0  # as the next chunk in its workspace would
    order[:] = 0


@given(st.integers(0, 5 * ONE), st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=6))
def test_it_never_takes_more_than_its_room(limit: int, merges: list[list[int]]) -> None:
    kept = RowCache(limit)
    for merge in merges:
        kept.begin()
        for seed in merge:
            if not holds(kept, seed):
                keep(kept, seed)
            assert kept.nbytes <= limit
        assert kept.nbytes == ONE * sum(holds(kept, seed) for seed in range(10))


def test_a_walk_over_more_than_fits_finds_what_fits() -> None:
    kept = RowCache(3 * ONE)
    for _ in range(3):
        kept.begin()
        for seed in range(10):
            if not holds(kept, seed):
                keep(kept, seed)
    kept.begin()
    assert [holds(kept, seed) for seed in range(10)] == [True] * 3 + [False] * 7


def test_what_the_last_merge_did_not_use_makes_place() -> None:
    kept = RowCache(2 * ONE)
    for seeds in ((1, 2), (2, 3)):
        kept.begin()
        for seed in seeds:
            if not holds(kept, seed):
                keep(kept, seed)
    assert [holds(kept, seed) for seed in (1, 2, 3)] == [False, True, True]
