"""Breadcrumbs drops the largest and the smallest changes of a tensor (docs/numerics.md, "Row filters")."""

from __future__ import annotations

import numpy as np

from persona.merge.arithmetic.filters import LARGEST, SMALLEST, ElementFilter
from persona.merge.rules import crumb_ranks
from persona.merge.trim.selection import Selection

Bounds = tuple[int, int]
"""The bits of the smallest and the largest |t| that are kept."""


def search(rank: str, density: float, gamma: float, elements: int) -> Selection:
    """The search for the two magnitudes of a tensor."""
    return Selection(elements, crumb_ranks(rank, density, gamma, elements))


def bounds(found: Selection) -> Bounds:
    """The bounds, when the search is done."""
    low = found.ranks[0]
    low_bits, high_bits = map(int, found.theta().view(np.uint32))
    if low <= 0:
        return LARGEST, SMALLEST
    if low > found.elements:
        low_bits = SMALLEST
    return max(low_bits, SMALLEST), high_bits


def filter_of(identity: str, found: Bounds) -> ElementFilter:
    """The filter of a term at a tensor."""
    return ElementFilter(identity, low=found[0], high=found[1])
