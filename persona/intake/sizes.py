"""**size of a change** — its Euclidean norm beside that of the base, estimated while a vector is encoded."""

from __future__ import annotations

import math
import threading
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from persona.merge.arithmetic import casts
from persona.objects.tensors import TensorSpec

_SAMPLE: Final = 1024
"""Elements of each chunk that are looked at."""
_LARGE: Final = 0.8
"""The size of a change from which it is remarked on.

The weights of two models that were trained apart differ by 1 or more. A fine-tune changes by a tenth, and a
long training by half.
"""


class Sizes:
    """The sizes of the base and of the changes to it. Many threads may add chunks at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = {True: [0.0, 0.0], False: [0.0, 0.0]}

    def add(self, spec: TensorSpec, base: NDArray[Any], after: NDArray[Any]) -> None:
        """Adds a chunk of a tensor: its bits in the base, and after the training."""
        both = casts.widen(np.concatenate((base[:_SAMPLE], after[:_SAMPLE])), spec.dtype)
        before, trained = both[: both.size // 2], both[both.size // 2 :]
        with np.errstate(invalid="ignore", over="ignore"):
            change = trained - before
            found = float(np.dot(before, before)), float(np.dot(change, change))
        if not all(map(math.isfinite, found)):
            return
        if not found[1] and bool(np.isin(before, (0.0, 1.0)).all()):  # a mask, which is no weight
            return
        with self._lock:
            sums = self._sums[len(spec.shape) > 1]
            sums[0] += found[0]
            sums[1] += found[1]

    @property
    def relative(self) -> float:
        """The size of the change, where the base has 1.

        Only matrices count, if there are any: the vectors of norms are large and hardly change.
        """
        base, change = self._sums[self._sums[True][0] > 0]
        return math.sqrt(change / base) if base > 0 else 0.0

    def remarks(self) -> list[str]:
        """A sentence on a change as large as the base."""
        if self.relative < _LARGE:
            return []
        return [
            f"the changes are as large as the weights of the base ({self.relative:.2g} of their size):"
            " is it a fine-tune of this base?"
        ]
