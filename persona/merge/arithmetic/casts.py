"""Element types of a merge: bits of BF16, F16, F32 and F64 as unsigned integers, and their values.

Widening is exact. Narrowing rounds once, to nearest even (docs/numerics.md).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from persona.codec.floats import in_default_environment
from persona.objects.dtypes import DTYPES

Bits = NDArray[Any]
"""uint16 for BF16 and F16, uint32 for F32, uint64 for F64, little-endian."""

_FEW: Final = 4096


def same_bits(one: Bits, other: Bits) -> bool:
    """Whether two arrays are equal. Arrays that differ mostly do so among their first elements."""
    return np.array_equal(one[:_FEW], other[:_FEW]) and np.array_equal(one, other)


def not_finite(bits: Bits, dtype: str) -> NDArray[np.bool_]:
    """Which elements are infinite or NaN."""
    mask = bits.dtype.type(DTYPES[dtype].infinity)
    return np.asarray((bits & mask) == mask)


def has_not_finite(bits: Bits, dtype: str) -> bool:
    """Whether any element is infinite or NaN: two quick passes, since hardly any tensor has one.

    Of the bits as unsigned integers, those of negative elements are the largest; as signed ones, those of
    positive elements.
    """
    infinity = DTYPES[dtype].infinity
    negative = infinity | 1 << 8 * bits.itemsize - 1
    signed = bits.view(f"i{bits.itemsize}")
    return bool(np.max(bits, initial=0) >= negative or np.max(signed, initial=0) >= infinity)


@in_default_environment
def widen(bits: Bits, dtype: str) -> NDArray[np.float64]:
    """The exact values as binary64."""
    if dtype == "BF16":
        values: NDArray[Any] = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    else:
        values = bits.view(f"f{bits.itemsize}")
    with np.errstate(invalid="ignore"):  # a signalling NaN
        return values.astype(np.float64)


@in_default_environment
def widen32(bits: Bits, dtype: str) -> NDArray[np.float32]:
    """The exact values of BF16, F16 or F32 bits as binary32."""
    if dtype == "BF16":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "F32":
        return bits.view(np.float32)
    with np.errstate(invalid="ignore"):
        return bits.view(np.float16).astype(np.float32)


@in_default_environment
def narrow32(values: NDArray[np.float32], dtype: str) -> Bits:
    """Binary32 values rounded to nearest even to BF16, F16 or F32 bits."""
    bits = values.view(np.uint32)
    if dtype == "F32":
        return bits
    if dtype == "F16":
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            return values.astype(np.float16).view(np.uint16)
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits + np.uint32(0x7FFF) + even) >> np.uint32(16)).astype(np.uint16)
    quiet = ((bits >> np.uint32(16)) | np.uint32(0x40)).astype(np.uint16)
    return np.where(nan, quiet, rounded)


@in_default_environment
def narrow(values: NDArray[np.float64], dtype: str) -> Bits:
    """Binary64 values rounded once to BF16, F16 or F32 bits."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if dtype == "F16":
            return values.astype(np.float16).view(np.uint16)
        single = values.astype(np.float32)
        if dtype == "F32":
            return single.view(np.uint32)
        return narrow32(_round_to_odd(values, single), dtype)


def _round_to_odd(values: NDArray[np.float64], single: NDArray[np.float32]) -> NDArray[np.float32]:
    """Binary32 by rounding to odd, which makes a second rounding to BF16 equal to rounding once."""
    back = single.astype(np.float64)
    bits = single.view(np.uint32).copy()
    inexact = (back != values) & np.isfinite(values)
    too_far = inexact & (np.abs(back) > np.abs(values))
    bits[too_far] -= np.uint32(1)
    bits[inexact] |= np.uint32(1)
    return bits.view(np.float32)
