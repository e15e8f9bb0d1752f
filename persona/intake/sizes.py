"""**size of a change** — its Euclidean norm beside that of the base, estimated while a vector is encoded."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from persona.merge.arithmetic import casts
from persona.objects.tensors import TensorSpec

_SAMPLE: Final = 1024
"""Elements of each chunk that are looked at."""
_TOGETHER: Final = 64
"""How many chunks are computed together. Alone, a chunk takes about 70 µs, mostly for calls of numpy."""
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
        self._waiting: dict[tuple[str, bool], list[tuple[NDArray[Any], NDArray[Any]]]] = {}

    def add(self, spec: TensorSpec, base: NDArray[Any], after: NDArray[Any]) -> None:
        """Adds a chunk of a tensor: its bits in the base, and after the training."""
        if not base.size:
            return
        kind = spec.dtype, len(spec.shape) > 1
        sample = base[:_SAMPLE].copy(), after[:_SAMPLE].copy()
        with self._lock:
            waiting = self._waiting.setdefault(kind, [])
            waiting.append(sample)
            if len(waiting) < _TOGETHER:
                return
            del self._waiting[kind]
        self._count(*kind, waiting)

    def _count(self, dtype: str, matrix: bool, samples: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> None:
        starts = np.cumsum([0, *(base.size for base, _ in samples[:-1])])
        before = casts.widen(np.concatenate([base for base, _ in samples]), dtype)
        trained = casts.widen(np.concatenate([after for _, after in samples]), dtype)
        with np.errstate(invalid="ignore", over="ignore"):
            sizes = np.add.reduceat(before**2, starts)
            changes = np.add.reduceat((trained - before) ** 2, starts)
        mask = (changes == 0) & np.logical_and.reduceat((before == 0) | (before == 1), starts)
        counted = np.isfinite(sizes) & np.isfinite(changes) & ~mask  # masks are not weights
        with self._lock:
            sums = self._sums[matrix]
            sums[0] += float(sizes[counted].sum())
            sums[1] += float(changes[counted].sum())

    @property
    def relative(self) -> float:
        """The size of the change, where the base has 1.

        Only matrices count, if there are any: the vectors of norms are large and hardly change.
        """
        while self._waiting:
            kind, samples = self._waiting.popitem()
            self._count(*kind, samples)
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
