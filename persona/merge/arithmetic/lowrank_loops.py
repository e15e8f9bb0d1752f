"""The loops that multiply the factors of an adapter, compiled by numba and called through `lowrank`.

t[i, j] = s·Σ b[i, r]·a[r, j]: r ascends, each product is rounded and then added, the sum begins with the
product for r = 0, and s comes last. So every element is one fixed sequence of binary32 operations, whatever
the tiles, threads and SIMD width are (docs/numerics.md). No contraction: `fastmath` stays off.

**tile** — some columns of all rows of A, which stay in the L2 cache while the rows of B pass over them.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

_TILE_BYTES: Final = 96 << 10
_SHORTEST: Final = 256
"""Columns of a tile at least: shorter loops cost more than a larger tile."""
_ONE = np.float32(1.0)


def _compiled(function: Any) -> Any:
    return njit(nogil=True, error_model="numpy")(function)


@_compiled
def low_rank(a: Any, b: Any, scale: Any, first: int, out: Any) -> int:
    """t of some elements of a matrix, row by row, beginning at column `first` of the first row.

    a: float32[rank, columns]; b: float32[rows, rank], a row for each row that out touches; out: float32[n].
    """
    columns, size = a.shape[1], out.size
    begun = min(columns - first, size)
    _rows(a, b, scale, 0, 1, first, first + begun, out, 0)
    whole = (size - begun) // columns
    _rows(a, b, scale, 1, 1 + whole, 0, columns, out, begun)
    done = begun + whole * columns
    if done < size:
        _rows(a, b, scale, 1 + whole, 2 + whole, 0, size - done, out, done)
    return 0


@_compiled
def _rows(
    a: Any, b: Any, scale: Any, top: int, bottom: int, left: int, right: int, out: Any, at: int
) -> None:
    """The columns [left, right) of the rows [top, bottom) into `out` from `at` on."""
    rank, width = a.shape[0], right - left
    tile = max(_SHORTEST, _TILE_BYTES // (4 * rank) // _SHORTEST * _SHORTEST)
    for start in range(0, width, tile):
        length = min(tile, width - start)
        for row in range(top, bottom):
            _tile(a, b, scale, row, left + start, length, out, at + (row - top) * width + start)


@_compiled
def _tile(a: Any, b: Any, scale: Any, row: int, left: int, length: int, out: Any, at: int) -> None:
    """One row of a tile. A sum is multiplied by s with its last product, and by 1 before, which is exact."""
    rank = a.shape[0]
    begun = (rank - 1) % 4 + 1
    factor = scale if begun == rank else _ONE
    t, right = out[at : at + length], left + length
    a0, b0 = a[0, left:right], b[row, 0]
    if begun == 1:
        for j in range(length):
            t[j] = b0 * a0[j] * factor
    elif begun == 2:
        a1, b1 = a[1, left:right], b[row, 1]
        for j in range(length):
            t[j] = (b0 * a0[j] + b1 * a1[j]) * factor
    elif begun == 3:
        a1, a2, b1, b2 = a[1, left:right], a[2, left:right], b[row, 1], b[row, 2]
        for j in range(length):
            t[j] = (b0 * a0[j] + b1 * a1[j] + b2 * a2[j]) * factor
    else:
        a1, a2, a3 = a[1, left:right], a[2, left:right], a[3, left:right]
        b1, b2, b3 = b[row, 1], b[row, 2], b[row, 3]
        for j in range(length):
            t[j] = (b0 * a0[j] + b1 * a1[j] + b2 * a2[j] + b3 * a3[j]) * factor
    for r in range(begun, rank, 4):
        factor = scale if r + 4 == rank else _ONE
        a0, a1, a2, a3 = a[r, left:right], a[r + 1, left:right], a[r + 2, left:right], a[r + 3, left:right]
        b0, b1, b2, b3 = b[row, r], b[row, r + 1], b[row, r + 2], b[row, r + 3]
        for j in range(length):
            t[j] = (t[j] + b0 * a0[j] + b1 * a1[j] + b2 * a2[j] + b3 * a3[j]) * factor
