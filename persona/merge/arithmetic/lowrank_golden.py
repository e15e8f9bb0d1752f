"""The golden cases of `lowrank_loops` (see `persona.codec.native.golden`).

`tests/merge/arithmetic/test_lowrank.py` computes the same digests with `persona.merge.reference`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from persona.codec.native.golden import Case, table
from persona.merge.arithmetic.layout import LOW_RANK_COLUMNS, LOW_RANK_ROWS
from persona.merge.arithmetic.lowrank import Array

KERNELS: Final = ("low_rank",)
SHAPES: Final = (
    (1, 7, 5),
    (2, 3, 67),
    (3, 5, 64),
    (4, 4, 33),
    (9, 3, 700),
    (16, 2, 100),
    (5, 9, 130),
    (16, 6, 500),
)
"""(rank, rows, columns)."""
FIRST: Final = 3
SCALE: Final = np.float32(0.1)


def factors(rank: int, rows: int, columns: int) -> tuple[Array, Array]:
    """A and B of many magnitudes, so that the order of the operations shows in the last bits."""
    a = np.arange(rank * columns, dtype=np.uint32).reshape(rank, columns)
    b = np.arange(rows * rank, dtype=np.uint32).reshape(rows, rank)
    return _numbers(a * np.uint32(2654435761)), _numbers(b * np.uint32(2246822519) + np.uint32(77))


def _numbers(words: Array) -> Array:
    """Words as numbers of magnitude 2^−8 to 2^8, of both signs."""
    return (words & np.uint32(0x83FFFFFF) | np.uint32(0x3C000000)).view(np.float32)


def cases(kernel: str, wide: int) -> Iterator[Case]:
    """The golden cases of a kernel."""
    digests = iter(_DIGESTS.get(kernel, ()))
    for rank, rows, columns in SHAPES:
        a, b = factors(rank, rows, columns)
        yield _case(kernel, a, b, rows * columns - FIRST - 1, next(digests, ""))


def _case(kernel: str, a: Array, b: Array, size: int, digest: str) -> Case:
    out = np.empty(size, np.float32)
    scratch = np.empty((len(a) + LOW_RANK_ROWS, LOW_RANK_COLUMNS), np.float32)
    return Case(kernel, (a, b, SCALE, FIRST, out, scratch), lambda _: (out,), digest)


_DIGESTS: Final = table(
    """
    low_rank 98bfe8ac1786700b 18467f5a54628455 9c463eab7f7e9b07 1c2e6fd35cf14903
    low_rank 2e49dbd29897ffc2 990e6f8a4031c0d2 e558650699d1c63a d7720f8a3e3108a2
    """
)
