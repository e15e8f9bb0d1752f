"""The change of a low rank vector on the CPU: rows of t from the factors A and B."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from persona.codec.native import Kernels
from persona.merge.arithmetic.layout import LOW_RANK_COLUMNS, LOW_RANK_ROWS

Array = npt.NDArray[Any]

kernels: Final = Kernels(
    "persona.merge.arithmetic.lowrank_loops", golden="persona.merge.arithmetic.lowrank_golden"
)


def scratch_bytes(rank: int) -> int:
    """Bytes of scratch memory of `low_rank`."""
    return 4 * (rank + LOW_RANK_ROWS) * LOW_RANK_COLUMNS


def low_rank(a: Array, b: Array, scale: float, first: int, out: Array) -> None:
    """t[i, j] = s·Σ b[i, r]·a[r, j] of consecutive elements, row by row, from column `first` of row 0 on.

    a: float32[rank, columns]; b: float32[rows, rank]; out: float32[n], within these rows. `scale`: s, a
    binary32. Raises `ValueError` if they do not fit.
    """
    if not a.dtype == b.dtype == out.dtype == np.float32:
        raise ValueError("a, b and out must be of float32")
    if a.ndim != 2 or b.ndim != 2 or not 0 < a.shape[0] == b.shape[1]:
        raise ValueError("a must be [rank, columns] and b [rows, rank]")
    if not 0 <= first < a.shape[1] or first + out.size > b.shape[0] * a.shape[1]:
        raise ValueError("b must have a row for each row that out touches")
    if out.size:
        scratch = np.empty((a.shape[0] + LOW_RANK_ROWS, LOW_RANK_COLUMNS), np.float32)
        kernels.low_rank(a, b, np.float32(scale), first, out, scratch)
