"""DELLA keeps a change with a probability that grows with its rank (docs/numerics.md, "Row filters").

The counts of the upper 16 bits of |t|, which the search for any cut-off begins with, give the ranks.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from persona.codec.floats import in_default_environment
from persona.merge.arithmetic.filters import ElementFilter

_WORDS: Final = 4294967296.0

Sizes = tuple[NDArray[np.uint16], NDArray[np.int64]]
"""The upper 16 bits of every |t| ≠ 0 of a tensor, rising, and how many elements have them."""


@in_default_environment
def filter_of(
    identity: str,
    sizes: Sizes,
    elements: int,
    density: float,
    epsilon: float,
    *,
    rescale: bool,
    key: tuple[int, int],
) -> ElementFilter:
    """The filter of a term at a tensor of `elements`. `key`: of its draws there."""
    upper = sizes[0]
    bottom = int(upper[0]) if upper.size else 0
    table = np.zeros(int(upper[-1]) - bottom + 1 if upper.size else 1)
    table[upper.astype(np.int64) - bottom] = _probabilities(sizes, elements, density, epsilon)
    below = np.floor(table * _WORDS).astype(np.int64)
    divisors = table.astype(np.float32) if rescale else np.empty(0, np.float32)
    return ElementFilter(identity, key=key, bottom=bottom, below=below, divisors=divisors)


def _probabilities(sizes: Sizes, elements: int, density: float, epsilon: float) -> NDArray[np.float64]:
    """p of each of the sizes."""
    upper, counts = sizes
    if elements < 2:
        return np.full(upper.size, density)
    counts = counts.copy()
    zeros = elements - int(counts.sum())
    if upper.size and upper[0] == 0:
        counts[0] += zeros
        zeros = 0
    smaller = zeros + np.cumsum(counts) - counts
    rank = (2 * smaller + counts - 1) / (2 * (elements - 1))
    return np.clip((density - epsilon) + rank * (2 * epsilon), 0.0, 1.0)
