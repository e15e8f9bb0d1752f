"""DARE keeps every change with the same probability (docs/numerics.md, "Row filters")."""

from __future__ import annotations

import numpy as np

from persona.merge.arithmetic.filters import ElementFilter
from persona.merge.rules import keep_below


def filter_of(identity: str, density: float, *, rescale: bool, key: tuple[int, int]) -> ElementFilter:
    """The filter of a term at a tensor. `key`: of its draws there."""
    below = np.array([keep_below(density)], np.int64)
    divisors = np.array([density] if rescale else [], np.float32)
    return ElementFilter(identity, key=key, below=below, divisors=divisors)
