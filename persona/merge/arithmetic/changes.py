"""t of the terms of a decoded chunk, for measures that need the numbers themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.codec.delta import restore
from persona.merge.arithmetic.arguments import DecodedChunk
from persona.merge.arithmetic.casts import widen32


def changes(chunk: DecodedChunk, k: int, dtype: str, part: slice) -> NDArray[np.float32]:
    """t of the k-th present term for a part of a chunk, float32[n], in the order of its rows.

    dtype: BF16, F16 or F32, the type of the base's elements. The array of a row of numbers is the row itself.
    The caller turns off numpy's warnings about numbers that are not finite.
    """
    row = chunk.row(k)[part]
    if row.dtype == np.float32:
        return row
    base = chunk.sorted_base[part]
    after: NDArray[Any] = np.empty_like(base)
    restore(base, row, np.arange(base.size, dtype=np.uint32), after)
    t: NDArray[np.float32] = widen32(after, dtype) - widen32(base, dtype)
    if not np.isfinite(t).all():
        t[row == 0] = 0
    return t
