"""**cut-off** (θ) — an order statistic of |t|: an element is kept where |t| ≥ θ (docs/numerics.md, "Trim").

The bits of |t| as a binary32 number order like |t| itself, so the r-th largest is found exactly by radix
selection, in two passes over the chunks: one counts the upper 16 bits, the next the lower 16 bits of the few
upper values in which a wanted rank falls. Counts of several chunks, threads or vectors add up. Elements with
t = 0 are not counted: they are the rest of the `elements` given.

This module holds the numbers; `plan` walks the chunks and keeps what is found in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from persona.merge.rules import KEEP_NOTHING, NO_TRIM

Counts = npt.NDArray[np.int64]

BINS: Final = 1 << 16
NO_ROW: Final = -1


@dataclass
class Selection:
    """The search for the ranks-th largest of `elements` magnitudes.

    First `cpu.count_high(…, selection.high)` for every chunk, then `open_bins()`, then, if that says so,
    `cpu.count_low(…, selection.row_of, selection.low)` for every chunk, then `theta()`. high: int64[65536];
    row_of: int32[65536]; low: int64[rows, 65536]. Several threads may count into arrays of their own and add
    them up.
    """

    elements: int
    ranks: Sequence[int]
    high: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))
    row_of: npt.NDArray[np.int32] = field(default_factory=lambda: np.full(BINS, NO_ROW, np.int32))
    low: Counts = field(default_factory=lambda: np.zeros((0, BINS), np.int64))

    def open_bins(self) -> bool:
        """Decides which upper values need their lower bits counted; False if none does: no second pass."""
        bins = sorted({found[0] for rank in self.ranks if (found := self._bin(rank)) is not None})
        self.row_of[bins] = np.arange(len(bins), dtype=np.int32)
        self.low = np.zeros((len(bins), BINS), np.int64)
        return bool(bins)

    def theta(self) -> npt.NDArray[np.float32]:
        """θ for each rank: float32[ranks]. 0 (every change is kept) where the rank reaches the zeros,
        `NO_TRIM` beyond all elements, `KEEP_NOTHING` for rank 0."""
        return np.array([self._theta(rank) for rank in self.ranks], np.float32)

    def _bin(self, rank: int) -> tuple[int, int] | None:
        """(upper value, rank within it) of the rank-th largest; None where it is a zero or no element."""
        above = np.cumsum(self.high[::-1])
        if rank <= 0 or rank > above[-1]:
            return None
        position = int(np.searchsorted(above, rank))
        within = rank - int(above[position - 1]) if position else rank
        return BINS - 1 - position, within

    def _theta(self, rank: int) -> float:
        if rank <= 0:
            return KEEP_NOTHING
        if rank > self.elements:
            return NO_TRIM
        found = self._bin(rank)
        if found is None:
            return 0.0
        upper, within = found
        above = np.cumsum(self.low[self.row_of[upper]][::-1])
        bits = upper << 16 | BINS - 1 - int(np.searchsorted(above, within))
        return float(np.uint32(bits).view(np.float32))


def kept(theta: npt.NDArray[np.float32] | Any, magnitudes: npt.NDArray[np.float32]) -> int:
    """How many of the magnitudes a cut-off keeps."""
    if np.isnan(theta):
        return int(np.count_nonzero(magnitudes))
    if theta < 0:
        return 0
    return int(np.count_nonzero((magnitudes != 0) & (magnitudes >= theta)))
