"""Bits: which are not finite, and which are equal."""

from __future__ import annotations

import numpy as np
import pytest

from persona.merge.arithmetic import casts
from persona.objects.dtypes import DTYPES, uint

FLOATS = ("BF16", "F16", "F32", "F64")


@pytest.mark.parametrize("dtype", FLOATS)
def test_one_element_that_is_not_finite_is_found(dtype: str) -> None:
    bits = DTYPES[dtype].bits
    infinity, sign = DTYPES[dtype].infinity, 1 << bits - 1
    finite = np.array([0, sign, 1, sign | 1, infinity - 1, sign | infinity - 1], uint(bits // 8))
    assert not casts.has_not_finite(finite, dtype)
    assert not casts.has_not_finite(finite[:0], dtype)
    for odd in (infinity, infinity + 1, sign - 1, sign | infinity, sign | infinity + 1, 2 * sign - 1):
        for place in range(finite.size):
            one = finite.copy()
            one[place] = odd
            assert casts.has_not_finite(one, dtype)
            assert casts.not_finite(one, dtype).tolist() == [k == place for k in range(finite.size)]


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 10_000])
def test_arrays_with_one_other_bit_are_not_equal(size: int) -> None:
    one = np.arange(size, dtype=np.uint16)
    assert casts.same_bits(one, one.copy())
    for place in {0, size // 2, size - 1} if size else ():
        other = one.copy()
        other[place] ^= 1
        assert not casts.same_bits(one, other)
    assert not casts.same_bits(one, np.arange(size + 1, dtype=np.uint16))
