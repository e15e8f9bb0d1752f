"""The loops that filter a row, compiled by numba and called through `merge.arithmetic.filters`.

A filter keeps an element if its |t| lies between two cut-offs, and if a draw says so (docs/numerics.md, "Row
filters"). The draw of an element is Philox4x32-10 of its index, so no loop carries a state from one element
to the next, and the compiler vectorises all ten rounds.

Each loop does one step for a block of elements, as in `loops`. Nothing here allocates or raises.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from persona.merge.arithmetic.layout import BLOCK
from persona.merge.arithmetic.loops import F16, F32, magnitudes

_MAGNITUDE = np.uint32(0x7FFFFFFF)
_SIGNIFICAND = np.uint32(0x7FFFFF)
_SIGNIFICAND_BITS = np.uint32(23)
_WORD = np.uint64(32)
_MULTIPLY_0 = np.uint64(0xD2511F53)
_MULTIPLY_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint32(0x9E3779B9)
_WEYL_1 = np.uint32(0xBB67AE85)


def _compiled(function: Any) -> Any:
    return njit(nogil=True, error_model="numpy")(function)


@_compiled
def _draw(indices: Any, n: int, first: Any, key_0: Any, key_1: Any, words: Any) -> None:
    """The first words of Philox4x32-10 for the counters first + indices[i], of 64 bits."""
    for i in range(n):
        index = np.uint64(first + np.uint64(indices[i]))
        c0, c1 = np.uint32(index), np.uint32(index >> _WORD)
        c2, c3 = np.uint32(0), np.uint32(0)
        k0, k1 = np.uint32(key_0), np.uint32(key_1)
        for _ in range(10):
            p0, p1 = np.uint64(c0) * _MULTIPLY_0, np.uint64(c2) * _MULTIPLY_1
            n0 = np.uint32(np.uint32(p1 >> _WORD) ^ c1 ^ k0)
            n2 = np.uint32(np.uint32(p0 >> _WORD) ^ c3 ^ k1)
            c0, c1, c2, c3 = n0, np.uint32(p1), n2, np.uint32(p0)
            k0, k1 = np.uint32(k0 + _WEYL_0), np.uint32(k1 + _WEYL_1)
        words[i] = c0


@_compiled
def _keep_between(bits: Any, n: int, low: Any, high: Any, kept: Any) -> None:
    for i in range(n):
        kept[i] = np.uint32((bits[i] >= low) & (bits[i] <= high))


@_compiled
def _keep_drawn(words: Any, n: int, below: Any, kept: Any) -> None:
    for i in range(n):
        kept[i] &= np.uint32(np.int64(words[i]) < below)


@_compiled
def _keep_drawn_by_size(words: Any, bits: Any, n: int, bottom: int, below: Any, kept: Any) -> None:
    last = below.size - 1
    for i in range(n):
        at = min(max(np.int64(bits[i] >> np.uint32(16)) - bottom, 0), last)
        kept[i] &= np.uint32(np.int64(words[i]) < below[at])


@_compiled
def _divide(t: Any, n: int, divisor: Any) -> None:
    for i in range(n):
        t[i] = t[i] / divisor


@_compiled
def _divide_by_size(t: Any, bits: Any, n: int, bottom: int, divisors: Any) -> None:
    last = divisors.size - 1
    for i in range(n):
        at = min(max(np.int64(bits[i] >> np.uint32(16)) - bottom, 0), last)
        t[i] = t[i] / divisors[at]


@_compiled
def _multiply(t: Any, n: int, factor: Any) -> None:
    for i in range(n):
        t[i] = t[i] * factor


@_compiled
def filter_steps(
    base: Any,
    z: Any,
    order: Any,
    first: int,
    dtype: int,
    low: Any,
    high: Any,
    key_0: Any,
    key_1: Any,
    bottom: int,
    below: Any,
    scratch: Any,
) -> None:
    """Sets z to 0 where the filter drops an element.

    base, z: uint[n], z is changed in place; order: uint32[n], or uint32[0] for elements in their own order.
    Position j is element first + order[j] of its tensor. low, high: the bits of the smallest and the largest
    |t| that are kept. below: int64, numbers that the draw of a kept element is below: none if nothing is
    drawn, one for all elements, or one for each value of the upper 16 bits of |t| from `bottom` on. scratch:
    uint32[4, BLOCK].
    """
    half, shift = dtype == F16, np.uint32(0 if dtype == F32 else 16)
    bits, words, kept, in_order = scratch[0], scratch[1], scratch[2], scratch[3]
    for i in range(BLOCK):
        in_order[i] = np.uint32(i)
    for start in range(0, base.size, BLOCK):
        n = min(BLOCK, base.size - start)
        z_n = z[start : start + n]
        if below.size == 1:
            for i in range(n):
                kept[i] = np.uint32(1)
        else:
            magnitudes(half, shift, base[start : start + n], z_n, n, bits)
            _keep_between(bits, n, low, high, kept)
        if below.size:
            if order.size:
                _draw(order[start : start + n], n, np.uint64(first), key_0, key_1, words)
            else:
                _draw(in_order, n, np.uint64(first + start), key_0, key_1, words)
            if below.size == 1:
                _keep_drawn(words, n, below[0], kept)
            else:
                _keep_drawn_by_size(words, bits, n, bottom, below, kept)
        for i in range(n):
            z_n[i] = z_n[i] if kept[i] else z_n.dtype.type(0)


@_compiled
def filter_numbers(
    t: Any,
    t_bits: Any,
    first: int,
    low: Any,
    high: Any,
    key_0: Any,
    key_1: Any,
    bottom: int,
    below: Any,
    divisors: Any,
    factor: Any,
    scratch: Any,
) -> None:
    """Sets t to 0 where the filter drops an element, and divides or multiplies the others.

    t: float32[n], changed in place; t_bits: uint32[n], the same memory. Position j is element first + j of
    its tensor. divisors: float32, empty or like `below`. factor: float32, 1 changes nothing. The rest as for
    `filter_steps`.
    """
    bits, words, kept, in_order = scratch[0], scratch[1], scratch[2], scratch[3]
    for i in range(BLOCK):
        in_order[i] = np.uint32(i)
    for start in range(0, t.size, BLOCK):
        n = min(BLOCK, t.size - start)
        t_n, t_bits_n = t[start : start + n], t_bits[start : start + n]
        for i in range(n):
            bits[i] = t_bits_n[i] & _MAGNITUDE
        _keep_between(bits, n, low, high, kept)
        if below.size:
            _draw(in_order, n, np.uint64(first + start), key_0, key_1, words)
            if below.size == 1:
                _keep_drawn(words, n, below[0], kept)
            else:
                _keep_drawn_by_size(words, bits, n, bottom, below, kept)
        if divisors.size == 1:
            _divide(t_n, n, divisors[0])
        elif divisors.size:
            _divide_by_size(t_n, bits, n, bottom, divisors)
        elif factor != np.float32(1.0):
            _multiply(t_n, n, factor)
        for i in range(n):
            t_n[i] = t_n[i] if kept[i] else np.float32(0.0)


@_compiled
def sum_magnitudes(t_bits: Any, sums: Any) -> None:
    """Adds |t| of every element to `sums`, exactly: its significand to the sum of its exponent.

    t_bits: uint32[n], the bits of binary32. sums: int64[4, 256]; the four rows are parts of one sum, so that
    elements of one exponent need not wait for each other. A significand has 24 bits, so 2^39 elements fit.
    """
    for i in range(t_bits.size):
        exponent = (t_bits[i] & _MAGNITUDE) >> _SIGNIFICAND_BITS
        significand = np.int64(t_bits[i] & _SIGNIFICAND)
        if exponent:
            significand += np.int64(1) << np.int64(23)
        sums[i & 3, exponent] += significand
