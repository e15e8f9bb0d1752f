"""**element filter** — drops elements of a row, and rescales the others (docs/numerics.md, "Row filters").

It is the numbers that the loops of `draws` need: two cut-offs for |t|, and the numbers that the random word
of a kept element is below. `merge.trim` finds them for breadcrumbs, DARE and DELLA.
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
    """

    identity: str
    low: int = SMALLEST
    high: int = LARGEST
    key: tuple[int, int] = (0, 0)
    bottom: int = 0
    below: npt.NDArray[np.int64] = field(default_factory=_no_draws)
    divisors: npt.NDArray[np.float32] = field(default_factory=_no_divisors)

    def steps(
        self, base: Array, z: Array, first: int, order: npt.NDArray[np.uint32] | None, dtype: str
    ) -> None:
        """See `RowFilter`. A filter with divisors makes numbers of steps, so it has no steps to filter."""
        assert not self.divisors.size
        code, order = element_of(dtype).code, _IN_ORDER if order is None else order
        kernels.filter_steps(base, z, order, first, code, *self._words(), self.below, _scratch())

    def numbers(self, t: npt.NDArray[np.float32], first: int) -> None:
        """See `RowFilter`."""
        words = self._words()
        kernels.filter_numbers(t, t.view(np.uint32), first, *words, self.below, self.divisors, _scratch())

    def _words(self) -> tuple[Any, ...]:
        return (*map(np.uint32, (self.low, self.high, *self.key)), self.bottom)


def _scratch() -> Array:
    """The scratch of this thread: uint32[4, BLOCK]."""
    held: Array | None = getattr(_local, "held", None)
    if held is None:
        held = _local.held = np.empty((_SCRATCH_ROWS, BLOCK), np.uint32)
    return held
