"""The product of an adapter's factors has the bits of the reference, wherever its blocks begin and end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from persona.codec.native.golden import digest_of
from persona.merge import reference
from persona.merge.arithmetic import lowrank_golden
from persona.merge.arithmetic.lowrank import Array, low_rank

RANKS = (1, 2, 3, 5, 16, 70)
ROWS = (1, 2, 4, 5, 7, 9)
COLUMNS = (1, 5, 47, 48, 49, 96, 130, 500)


def by_reference(a: Array, b: Array, scale: float) -> Array:
    t: Array = reference.low_rank(torch.from_numpy(a), torch.from_numpy(b), scale).numpy().reshape(-1)
    return t


@given(
    st.sampled_from(RANKS), st.sampled_from(ROWS), st.sampled_from(COLUMNS), st.floats(0, 1), st.floats(0, 1)
)
def test_any_part_of_the_product_equals_the_reference(
    rank: int, rows: int, columns: int, begin: float, end: float
) -> None:
    a, b = lowrank_golden.factors(rank, rows, columns)
    want = by_reference(a, b, 0.3)
    start = round(begin * (want.size - 1))
    stop = start + round(end * (want.size - start))
    out = np.full(stop - start + 2, 7, np.float32)
    first = start // columns
    low_rank(a, b[first:], float(np.float32(0.3)), start - first * columns, out[1:-1])
    np.testing.assert_array_equal(out[1:-1].view(np.uint32), want[start:stop].view(np.uint32))
    assert out[0] == out[-1] == 7


def test_a_sum_begins_with_its_first_product() -> None:
    zero = np.zeros((1, 60), np.float32)
    out = np.empty(300, np.float32)
    low_rank(zero, np.full((5, 1), -1, np.float32), 1.0, 0, out)
    assert np.signbit(out).all()


@pytest.mark.parametrize("place", range(len(lowrank_golden.SHAPES)))
def test_the_golden_digests_are_those_of_the_reference(place: int) -> None:
    a, b = lowrank_golden.factors(*lowrank_golden.SHAPES[place])
    case = list(lowrank_golden.cases("low_rank", 0))[place]
    first = lowrank_golden.FIRST
    want = by_reference(a, b, float(lowrank_golden.SCALE))
    part = want[first : first + case.results(0)[0].size]
    assert digest_of(0, [np.ascontiguousarray(part)]) == case.digest
