"""Radix selection finds exactly what sorting finds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona.merge.arithmetic import cpu
from persona.merge.rules import KEEP_NOTHING, cut_rank, joint_rank
from persona.merge.trim.selection import Selection
from tests.merge.chunks import CODE, Chunk, tensor
from tests.merge.strategies import elements

SETTINGS = settings(deadline=None, max_examples=40)
STYLES = ["bits", "steps", "subnormal", "integers", "weights", "huge"]


def magnitudes(base: Any, after: Any, dtype: str) -> np.ndarray[Any, Any]:
    """|t| in binary32."""
    t = (tensor(after, dtype).float() - tensor(base, dtype).float()).numpy()
    return np.where(base == after, np.float32(0), np.abs(t))


def select(chunks: list[Chunk], dtype: str, total: int, ranks: list[int]) -> list[float]:
    """θ for each rank over every row of the chunks."""
    selection = Selection(total, ranks)
    for chunk in chunks:
        for z in chunk.z:
            cpu.count_high(chunk.base, z, CODE[dtype], selection.high)
    if selection.open_bins():
        for chunk in chunks:
            for z in chunk.z:
                cpu.count_low(chunk.base, z, CODE[dtype], selection.row_of, selection.low)
    return selection.theta().tolist()


@SETTINGS
@given(st.integers(0, 1 << 32), st.sampled_from(STYLES), st.integers(1, 300), st.integers(1, 3), st.data())
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_selection_equals_sorting(
    dtype: str, seed: int, style: str, n: int, count: int, data: st.DataObject
) -> None:
    base, afters = elements(seed, dtype, count, style, n)
    with np.errstate(over="ignore"):
        ordered = np.sort(np.concatenate([magnitudes(base, after, dtype) for after in afters]))[::-1]
    ranks = data.draw(st.lists(st.integers(1, ordered.size), min_size=1, max_size=5))
    found = select([Chunk.of(base, afters, dtype)], dtype, ordered.size, ranks)
    assert found == [float(ordered[rank - 1]) for rank in ranks]


def test_counts_of_chunks_add_up() -> None:
    base, afters = elements(7, "BF16", 1, "weights", 1000)
    parts = [Chunk.of(base[i : i + 300], [afters[0][i : i + 300]], "BF16") for i in range(0, 1000, 300)]
    whole = [Chunk.of(base, afters, "BF16")]
    ranks = [1, 10, 200, 500]
    assert select(parts, "BF16", 1000, ranks) == select(whole, "BF16", 1000, ranks)


def test_ranks_beyond_what_there_is_keep_everything_or_nothing() -> None:
    base, afters = elements(8, "F32", 1, "weights", 50)
    nothing, zero, beyond = select([Chunk.of(base, afters, "F32")], "F32", 60, [0, 60, 61])
    assert nothing == KEEP_NOTHING
    assert zero == 0.0
    assert math.isnan(beyond)


def test_a_zero_that_changes_its_sign_is_counted_as_a_zero() -> None:
    base = np.array([0.0, 0.0, 1.0], np.float32).view(np.uint32)
    after = np.array([-0.0, 2.0, 1.0], np.float32).view(np.uint32)
    assert select([Chunk.of(base, [after], "F32")], "F32", 3, [1, 2, 3]) == [2.0, 0.0, 0.0]


def test_one_pass_is_enough_where_no_rank_meets_a_change() -> None:
    assert Selection(10, [0, 10, 11]).open_bins() is False


@pytest.mark.parametrize(
    ("rank", "density", "elements", "r"),
    [
        ("floor1", 0.29, 100, 28),
        ("floor1", 0.001, 100, 1),
        ("floor", 0.001, 100, 0),
        ("plus1", 0.2, 10, 3),
        ("plus1", 1.0, 10, 11),
    ],
)
def test_ranks(rank: str, density: float, elements: int, r: int) -> None:
    assert cut_rank(rank, density, elements) == r


@pytest.mark.parametrize(
    ("density", "elements", "index"),
    [
        (0.2, 24, 19),
        (0.5, 24, 12),
        (1.0, 24, 0),
        (0.2, 1, 0),
        (0.7, 11, 4),  # 1.0 - 0.7 is above 3 ÷ 10
    ],
)
def test_a_joint_rank_is_an_ascending_index(density: float, elements: int, index: int) -> None:
    assert joint_rank(density, elements) == elements - index
