"""The loops that multiply the factors of an adapter, compiled by numba and called through `lowrank`.

t[i, j] = s·Σ b[i, r]·a[r, j]: r ascends, each product is rounded and then added, the sum begins with the
product for r = 0, and s comes last. So every element is one fixed sequence of binary32 operations, whatever
the blocks, threads and SIMD width are (docs/numerics.md). No contraction: `fastmath` stays off.

**register block** — COLUMNS elements of each of ROWS rows, whose sums stay in registers from the first r to
the last.
**tile** — some columns of all rows of A, which stay in the L1 cache while the rows of B pass over them.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from persona.codec.simd import sums_of_products
from persona.merge.arithmetic.layout import LOW_RANK_COLUMNS as COLUMNS
from persona.merge.arithmetic.layout import LOW_RANK_ROWS as ROWS

_TILE_BYTES: Final = 24 << 10
_block: Final = sums_of_products(ROWS, COLUMNS)
_one_row: Final = sums_of_products(1, COLUMNS)


def _compiled(function: Any) -> Any:
    return njit(nogil=True, error_model="numpy")(function)


@_compiled
def low_rank(a: Any, b: Any, scale: Any, first: int, out: Any, scratch: Any) -> int:
    """t of some elements of a matrix, row by row, beginning at column `first` of the first row.

    a: float32[rank, columns]; b: float32[rows, rank], a row for each row that out touches; out: float32[n].
    scratch: float32[rank + ROWS, COLUMNS].
    """
    columns, size = a.shape[1], out.size
    begun = min(columns - first, size)
    _rows(a, b, scale, 0, 1, first, begun, out, 0, scratch)
    whole = (size - begun) // columns
    _rows(a, b, scale, 1, 1 + whole, 0, columns, out, begun, scratch)
    done = begun + whole * columns
    _rows(a, b, scale, 1 + whole, 2 + whole, 0, size - done, out, done, scratch)
    return 0


@_compiled
def _rows(
    a: Any, b: Any, scale: Any, top: int, bottom: int, left: int, width: int, out: Any, at: int, scratch: Any
) -> None:
    """`width` columns from `left` on of the rows [top, bottom), into `out` from `at` on."""
    rank = a.shape[0]
    strip, part = scratch[:rank], scratch[rank:]
    whole = width // COLUMNS * COLUMNS
    tile = max(1, _TILE_BYTES // (4 * COLUMNS * rank)) * COLUMNS
    for start in range(0, whole, tile):
        stop, row = min(start + tile, whole), top
        while row < bottom:
            place = at + (row - top) * width
            many = ROWS if row + ROWS <= bottom else 1
            for j in range(start, stop, COLUMNS):
                if many == ROWS:
                    _block(a, left + j, b, row, scale, out, place + j, width)
                else:
                    _one_row(a, left + j, b, row, scale, out, place + j, width)
            row += many
    rest, row = width - whole, top
    if rest and row < bottom:
        for r in range(rank):
            for j in range(COLUMNS):
                strip[r, j] = a[r, left + whole + j] if j < rest else np.float32(0)
    while rest and row < bottom:
        many = ROWS if row + ROWS <= bottom else 1
        if many == ROWS:
            _block(strip, 0, b, row, scale, part, 0, COLUMNS)
        else:
            _one_row(strip, 0, b, row, scale, part, 0, COLUMNS)
        for i in range(many):
            for j in range(rest):
                out[at + (row + i - top) * width + whole + j] = part[i, j]
        row += many
