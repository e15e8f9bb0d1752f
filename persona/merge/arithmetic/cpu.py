"""The merge on the CPU: one chunk at a time, in exponent order, bit-equal to `persona.merge.reference`.

The compiled loops check nothing. So this module checks their arguments, and lends them scratch memory.
"""

from __future__ import annotations

import threading
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from persona.codec import elements
from persona.codec.native import Kernels, has_compress
from persona.merge.arithmetic.arguments import DecodedChunk, MergeArguments
from persona.merge.arithmetic.layout import BLOCK, KEEP_NOTHING_CUT
from persona.merge.codes import Weigh
from persona.merge.rules import MergeRules

Array = npt.NDArray[Any]

MAX_VALUES: Final = 1 << 16
"""Places for distinct magnitudes; three quarters of them are used."""
FEW_VALUES: Final = 1 << 12
"""Places that are tried first: they stay in the caches, and mostly suffice for bf16."""

BF16: Final = elements.BF16.code
F16: Final = elements.F16.code
F32: Final = elements.F32.code

_SCRATCH_ROWS: Final = 6
"""Rows of numbers that the kernels need beside one for each term."""
_WORD_ROWS: Final = 3
kernels = Kernels("persona.merge.arithmetic.loops", golden="persona.merge.arithmetic.golden")
_local = threading.local()


def _check(chunk: DecodedChunk, theta: Array, alpha: Array, dtype: int) -> None:
    """Another type would compile another kernel with other bits; another size would leave the arrays."""
    base, z, numbers = chunk.sorted_base, chunk.z, chunk.numbers
    uint = np.uint32 if dtype == F32 else np.uint16
    if base.dtype != uint or z.dtype != uint:
        raise ValueError("base and z must be of the dtype's unsigned integers")
    if not numbers.dtype == theta.dtype == alpha.dtype == np.float32:
        raise ValueError("numbers, theta and alpha must be of float32")
    for rows in (z, numbers):
        if rows.ndim != 2 or (len(rows) and rows.shape[1] < base.size):
            raise ValueError("z and numbers must have rows as long as the chunk")
    row_of = chunk.rows()
    if row_of.dtype != np.int32 or not row_of.shape == theta.shape == alpha.shape == (alpha.size,):
        raise ValueError("there must be one row, int32, theta and alpha for each term")
    if row_of.size and not -len(numbers) <= row_of.min() <= row_of.max() < len(z):
        raise ValueError("each term must have a row of z or of numbers")


def cuts(theta: Array) -> Array:
    """θ → the smallest kept |t|, as bits: NaN keeps every change, a negative θ nothing."""
    found = np.maximum(theta.view(np.uint32), np.uint32(1))
    found[theta < 0] = KEEP_NOTHING_CUT
    found[np.isnan(theta)] = 1
    return found


def scratch_bytes(terms: int) -> int:
    """Bytes of a thread's scratch once it merged chunks with as many terms."""
    return 4 * BLOCK * (max(1, terms) + _SCRATCH_ROWS + _WORD_ROWS)


def _scratch(terms: int) -> tuple[Array, ...]:
    """This thread's scratch for as many terms: the front of one that is long enough for any that it met."""
    held: tuple[Array, ...] | None = getattr(_local, "held", None)
    if held is None or len(held[-1]) < terms:
        most = max(1, terms)
        held = _local.held = (
            np.empty((most + _SCRATCH_ROWS, BLOCK), np.float32),
            np.empty((_WORD_ROWS, BLOCK), np.uint32),
            np.empty(most, np.int64),
            np.empty(most, np.bool_),
            np.empty(most, np.float32),
            np.empty(most, np.uint32),
        )
    floats, words, acting, *by_term = held
    length = max(1, terms)
    return floats[: length + _SCRATCH_ROWS], words, acting[:length], *(each[:terms] for each in by_term)


def merge_chunk(chunk: DecodedChunk, arguments: MergeArguments, out: Array) -> int:
    """Merges one chunk of n elements; returns how many results are not finite.

    Thread-safe; releases the interpreter's lock. See docs/numerics.md.

    out: uint[≥ n], of the base's type, filled so that out[order[j]] is element j. A term without a change in
    the chunk may be left out. All arrays are C-contiguous. Raises `ValueError` if they do not fit.
    """
    base, order = chunk.sorted_base, chunk.order
    _check(chunk, arguments.theta, arguments.alpha, arguments.dtype)
    if arguments.add.dtype != np.bool_ or arguments.add.shape != arguments.alpha.shape:
        raise ValueError("add must be bool[K]")
    if order.dtype != np.uint32 or out.dtype != base.dtype or min(out.size, order.size) < base.size:
        raise ValueError("out must have the base's type, order uint32, and both the length of the chunk")
    return int(kernels.merge_chunk(*kernel_arguments(chunk, arguments, out)))


def kernel_arguments(chunk: DecodedChunk, arguments: MergeArguments, out: Array) -> tuple[Any, ...]:
    """The arguments of the kernel `merge_chunk`, from those of this module's `merge_chunk`, unchecked."""
    rules, alpha, order = arguments.rules, arguments.alpha, chunk.order
    if chunk.in_order and order.size:
        out, order = out[order[0] :], order[:0]
    return (
        chunk.sorted_base,
        chunk.z,
        chunk.numbers,
        chunk.rows(),
        order,
        out,
        cuts(arguments.theta),
        alpha,
        arguments.add,
        np.float32(rules.lambda_),
        np.float32(rules.tie(arguments.majority)),
        *rules.codes(),
        arguments.dtype,
        *_scratch(alpha.size),
    )


def scatter(values: Array, order: Array, out: Array) -> None:
    """out[order[j]] = values[j].

    values: uint[n], order: uint32[n], out: uint[≥ n], of one type. Raises `ValueError` if they do not fit.
    """
    if out.dtype != values.dtype or order.dtype != np.uint32:
        raise ValueError("values and out must have one type, and order uint32")
    if min(order.size, out.size) < values.size:
        raise ValueError("out and order must be as long as values")
    kernels.scatter(values, order, values.size, out)


def sum_of_signs(chunk: DecodedChunk, theta: Array, alpha: Array, rules: MergeRules, dtype: int) -> int:
    """Σ sign(e) over one chunk of voting terms only, an exact integer; the rest as in `MergeArguments`."""
    _check(chunk, theta, alpha, dtype)
    weigh, elect, _, _ = rules.codes()
    scratch, words, *_ = _scratch(alpha.size)
    smallest = cuts(theta)
    if weigh == Weigh.BEFORE:
        smallest[alpha == 0] = KEEP_NOTHING_CUT  # its w is 0 even if t is infinite
    rows = chunk.sorted_base, chunk.z, chunk.numbers, chunk.rows()
    return int(kernels.sum_of_signs(*rows, smallest, alpha, weigh, elect, dtype, scratch, words))


def add_differences(
    base: Array, z: Array, coefficient: float, dtype: int, out: Array, *, first: bool
) -> None:
    """out = coefficient · t if `first`, else out + coefficient · t, each product and sum rounded to binary32.

    t = f − b, 0 where z is 0. base, z: uint[n], in one order; out: float32[n]. Raises `ValueError` if they do
    not fit.
    """
    uint = np.uint32 if dtype == F32 else np.uint16
    if base.dtype != uint or z.dtype != uint or out.dtype != np.float32:
        raise ValueError("base and z must be of the dtype's unsigned integers, and out of float32")
    if not base.size == z.size == out.size:
        raise ValueError("base, z and out must have one length")
    kernels.add_differences(base, z, np.float32(coefficient), int(first), dtype, out)


def count_high(base: Array, z: Array, dtype: int, histogram: Array) -> None:
    """Counts the upper 16 bits of every |t| ≠ 0 of a chunk in histogram: int64[65536]; base, z: uint[n]."""
    kernels.count_high(base, z, dtype, histogram)


def count_low(base: Array, z: Array, dtype: int, row_of: Array, histograms: Array) -> None:
    """Counts the lower 16 bits of every |t| whose upper bits have a row.

    The histograms are int64[rows, 65536], or uint32 if no count can reach 2^32. row_of: int32[65536], the row
    of each value of the upper 16 bits, −1 for none.
    """
    kernels.count_low(base, z, dtype, row_of, histograms)


def count_numbers_high(t: Array, histogram: Array) -> None:
    """`count_high` for a row of numbers, t: float32[n]."""
    kernels.count_numbers_high(t, histogram)


def count_numbers_low(t: Array, row_of: Array, histograms: Array) -> None:
    """`count_low` for a row of numbers, t: float32[n]."""
    kernels.count_numbers_low(t, row_of, histograms)


def count_values(base: Array, z: Array, dtype: int) -> tuple[Array, Array] | None:
    """The distinct |t| ≠ 0 of a chunk as bits, uint32[m], and their counts, int64[m].

    base, z: uint[n], in one order. None if there are too many distinct values, as there mostly are in fp32.
    """
    most = 1 << max(6, min(MAX_VALUES.bit_length() - 1, (2 * base.size).bit_length()))
    scratch = np.empty((2, BLOCK + 64), np.uint32)
    for size in sorted({min(FEW_VALUES, most), most}):
        keys, counts = np.zeros(size, np.uint32), np.zeros(size, np.int64)
        if kernels.count_values(base, z, dtype, has_compress(), keys, counts, scratch) >= 0:
            taken = np.flatnonzero(keys)
            return keys[taken], counts[taken]
    return None
