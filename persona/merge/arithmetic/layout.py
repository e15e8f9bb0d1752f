"""Sizes and bit patterns that several modules of a merge have in common."""

from __future__ import annotations

from typing import Final

BLOCK: Final = 2048
"""Elements that the CPU's kernels take at a time: their scratch stays in the L1 and L2 caches."""
ORDER_BYTES: Final = 4
"""Bytes of a place in exponent order."""
SHORTEST_SLICE: Final = 1 << 14
"""Elements of the shortest slice of a chunk, on the CPU and on a GPU."""
KEEP_NOTHING_CUT: Final = 0xFFFFFFFF
"""The cut, as bits of |t|, that keeps no element."""
LOW_RANK_ROWS: Final = 4
LOW_RANK_COLUMNS: Final = 48
"""Rows and columns of a product of factors that the CPU computes at a time: their sums fill the registers."""
_ALIGNMENT: Final = 64
"""Elements: arrays in one piece of a device's memory begin at multiples of these, so at 128 bytes or more."""


def aligned(elements: int) -> int:
    """This many elements, rounded up to the alignment of arrays on a device."""
    return -(-elements // _ALIGNMENT) * _ALIGNMENT


def aligned_down(elements: int) -> int:
    """This many elements, rounded down to that alignment."""
    return elements // _ALIGNMENT * _ALIGNMENT
