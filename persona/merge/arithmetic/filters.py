"""**element filter** — drops elements of a row, and rescales the others (docs/numerics.md, "Row filters").

It is the numbers that the loops of `draws` need: two cut-offs for |t|, the numbers that the random word of a
kept element is below, and what a kept element is divided or multiplied by. `merge.trim` finds them for
breadcrumbs, DARE and DELLA.
"""

from __future__ import annotations

import threading
from dataclasses import field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from persona.codec.elements import of as element_of
from persona.codec.native import Kernels
from persona.frozen import dataclass
from persona.merge.arithmetic.layout import BLOCK

Array = npt.NDArray[Any]

SMALLEST: Final = 1
"""The bits of the smallest |t| that is a change."""
LARGEST: Final = 0xFFFFFFFF
"""No |t| has larger bits."""
_IN_ORDER: Final = np.empty(0, np.uint32)
_SCRATCH_ROWS: Final = 4
_SUM_ROWS: Final = 4
_EXPONENTS: Final = 256

kernels = Kernels("persona.merge.arithmetic.draws", golden="persona.merge.arithmetic.draws_golden")
_local = threading.local()


def _no_draws() -> npt.NDArray[np.int64]:
    return np.empty(0, np.int64)


def _no_divisors() -> npt.NDArray[np.float32]:
    return np.empty(0, np.float32)


@dataclass(frozen=True)
class ElementFilter:
    """A `RowFilter` of `merge.rows.stored`.

    low, high: the bits of the smallest and the largest |t| that are kept. key: of the draws. below: int64,
    the numbers that the draw of a kept element is below: empty without draws, one for all elements, or one
    for each value of the upper 16 bits of |t| from `bottom` on. divisors: float32, empty, or like `below`.
    factor: a binary32 that a filter without divisors multiplies with; None: nothing is multiplied.
    """

    identity: str
    low: int = SMALLEST
    high: int = LARGEST
    key: tuple[int, int] = (0, 0)
    bottom: int = 0
    below: npt.NDArray[np.int64] = field(default_factory=_no_draws)
    divisors: npt.NDArray[np.float32] = field(default_factory=_no_divisors)
    factor: float | None = None

    def steps(
        self, base: Array, z: Array, first: int, order: npt.NDArray[np.uint32] | None, dtype: str
    ) -> None:
        """See `RowFilter`. A filter that rescales makes numbers of steps, so it has no steps to filter."""
        assert not self.divisors.size
        assert self.factor is None
        code, order = element_of(dtype).code, _IN_ORDER if order is None else order
        kernels.filter_steps(base, z, order, first, code, *self._words(), self.below, _scratch())

    def numbers(self, t: npt.NDArray[np.float32], first: int) -> None:
        """See `RowFilter`."""
        factor = np.float32(1.0 if self.factor is None else self.factor)
        words = (*self._words(), self.below, self.divisors, factor)
        kernels.filter_numbers(t, t.view(np.uint32), first, *words, _scratch())

    def _words(self) -> tuple[Any, ...]:
        return (*map(np.uint32, (self.low, self.high, *self.key)), self.bottom)


class MagnitudeSum:
    """Σ|t| of rows of numbers, exactly, whatever their order. Not thread-safe."""

    def __init__(self) -> None:
        self._sums = np.zeros((_SUM_ROWS, _EXPONENTS), np.int64)

    def add(self, t: npt.NDArray[np.float32]) -> None:
        """Adds the elements of a row: float32[n]."""
        kernels.sum_magnitudes(t.view(np.uint32), self._sums)

    @property
    def units(self) -> int | None:
        """The sum in units of 2^−149, the smallest binary32; None if an element is not finite."""
        *finite, strange = map(int, self._sums.sum(axis=0))
        if strange:
            return None
        return sum(found << max(exponent, 1) - 1 for exponent, found in enumerate(finite))


def _scratch() -> Array:
    """The scratch of this thread: uint32[4, BLOCK]."""
    held: Array | None = getattr(_local, "held", None)
    if held is None:
        held = _local.held = np.empty((_SCRATCH_ROWS, BLOCK), np.uint32)
    return held
