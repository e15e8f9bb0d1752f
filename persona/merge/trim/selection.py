"""**cut-off** — an order statistic θ of |t|: an element is kept if |t| ≥ θ (docs/numerics.md, "Trim").

The bits of |t| as binary32 have the same order as |t|. So the r-th largest is found exactly by radix
selection, in two passes over the chunks. The first pass counts the upper 16 bits. The second counts the lower
16 bits of the few upper values in which a wanted rank falls. Counts of several chunks, threads or vectors add
up. Elements with t = 0 are not counted: they are the rest of the `elements` given.

This module has the numbers; `cutoffs` walks the chunks and keeps the result in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from persona.frozen import dataclass
from persona.merge.rules import KEEP_NOTHING, NO_TRIM

Counts = npt.NDArray[np.int64]

BINS: Final = 1 << 16
NO_ROW: Final = -1


@dataclass
class Selection:
    """The search for the ranks-th largest of `elements` magnitudes.

    First `cpu.count_high(…, selection.high)` for every chunk, then `open_bins()`. If that returns True,
    `cpu.count_low(…, selection.row_of, selection.low)` for every chunk. Then `theta()`. high: int64[65536];
    row_of: int32[65536]; low: int64[rows, 65536], or uint32 if no count can reach 2^32. Several threads may
    count into arrays of their own and add them up.
    """

    elements: int
    ranks: Sequence[int] | Counts
    high: Counts = field(default_factory=lambda: np.zeros(BINS, np.int64))
    row_of: npt.NDArray[np.int32] = field(default_factory=lambda: np.full(BINS, NO_ROW, np.int32))
    low: npt.NDArray[Any] = field(default_factory=lambda: np.zeros((0, BINS), np.int64))

    def open_bins(self, others: Counts | None = None) -> bool:
        """Chooses the upper values whose lower bits must be counted, `others` among them; False if none."""
        _, upper, _ = self._bins()
        bins = np.unique(upper if others is None else np.concatenate([upper, others]))
        self.row_of[bins] = np.arange(bins.size, dtype=np.int32)
        self.low = np.zeros((bins.size, BINS), np.uint32 if self.elements < 1 << 32 else np.int64)
        return bool(bins.size)

    def add_high(self, known: Magnitudes) -> None:
        """Adds earlier counts to `high`."""
        np.add.at(self.high, known.bits >> np.uint32(16), known.counts)

    def add_low(self, known: Magnitudes) -> None:
        """Adds earlier counts to `low`."""
        rows = self.row_of[known.bits >> np.uint32(16)]
        bits, counts = known.bits[rows >= 0], known.counts[rows >= 0]
        np.add.at(self.low, (rows[rows >= 0], bits & np.uint32(BINS - 1)), counts.astype(self.low.dtype))

    def theta(self) -> npt.NDArray[np.float32]:
        """θ for each rank, float32[ranks].

        0 (every change is kept) if the rank reaches the zeros, `NO_TRIM` beyond all elements, `KEEP_NOTHING`
        for rank 0.
        """
        return self.cut()[0]

    def cut(self) -> tuple[npt.NDArray[np.float32], Counts]:
        """θ for each rank, and how many elements it keeps, ties included: float32[ranks], int64[ranks]."""
        ranks = np.asarray(self.ranks, np.int64)
        theta = np.zeros(ranks.size, np.float32)
        kept = np.full(ranks.size, self.high.sum(), np.int64)
        inside, upper, within = self._bins()
        larger = np.cumsum(self.high[::-1])[::-1]
        for value in np.unique(upper):
            above = np.cumsum(self.low[self.row_of[value]][::-1], dtype=np.int64)
            here = np.flatnonzero(upper == value)
            at = np.searchsorted(above, within[here])
            bits = (np.uint32(value) << np.uint32(16)) | (BINS - 1 - at).astype(np.uint32)
            theta[inside[here]] = bits.view(np.float32)
            kept[inside[here]] = larger[value] - self.high[value] + above[at]
        theta[ranks > self.elements] = NO_TRIM
        theta[ranks <= 0] = KEEP_NOTHING
        kept[ranks <= 0] = 0
        return theta, kept

    def _bins(self) -> tuple[Counts, Counts, Counts]:
        """Of the ranks that fall on a change: their indices, upper values, and ranks within these."""
        ranks = np.asarray(self.ranks, np.int64)
        above = np.cumsum(self.high[::-1])
        inside = np.flatnonzero((ranks > 0) & (ranks <= above[-1]))
        position = np.searchsorted(above, ranks[inside])
        before = np.where(position > 0, above[position - 1], 0)
        return inside, BINS - 1 - position, ranks[inside] - before


def kept(theta: npt.NDArray[np.float32] | Any, magnitudes: npt.NDArray[np.float32]) -> int:
    """How many of the magnitudes a cut-off keeps."""
    if np.isnan(theta):
        return int(np.count_nonzero(magnitudes))
    if theta < 0:
        return 0
    return int(np.count_nonzero((magnitudes != 0) & (magnitudes >= theta)))


@dataclass(frozen=True)
class Magnitudes:
    """Every |t| ≠ 0 of a scope of `elements`.

    `bits` of binary32 are uint32[m], rising; their `counts` are int64[m].
    """

    elements: int
    bits: npt.NDArray[np.uint32]
    counts: Counts

    @classmethod
    def join(cls, elements: int, parts: Sequence[tuple[npt.NDArray[np.uint32], Counts]]) -> Magnitudes:
        """The sum of the counts of several parts of one scope."""
        if not parts:
            return cls(elements, np.zeros(0, np.uint32), np.zeros(0, np.int64))
        bits, where = np.unique(np.concatenate([bits for bits, _ in parts]), return_inverse=True)
        counts = np.zeros(bits.size, np.int64)
        np.add.at(counts, where, np.concatenate([counts for _, counts in parts]))
        return cls(elements, bits, counts)

    def cut(self, ranks: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float32], Counts]:
        """θ for each rank, see `Selection.theta`, and how many elements it keeps.

        float32[r], int64[r].
        """
        above = np.cumsum(self.counts[::-1])
        total = int(above[-1]) if above.size else 0
        theta = np.zeros(ranks.size, np.float32)
        kept = np.full(ranks.size, total, np.int64)
        inside = np.flatnonzero((ranks > 0) & (ranks <= total))
        at = np.searchsorted(above, ranks[inside])
        theta[inside] = self.bits[::-1][at].view(np.float32)
        kept[inside] = above[at]
        theta[ranks > self.elements] = NO_TRIM
        theta[ranks <= 0] = KEEP_NOTHING
        kept[ranks <= 0] = 0
        return theta, kept
