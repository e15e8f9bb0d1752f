"""The words of a recipe's rules as integers, which the kernels compile in.

They are apart from the other rules, because machine code depends on every module that a kernel imports: a
change here, and not in the rest, makes shipped kernels stale.
"""

from __future__ import annotations

from enum import IntEnum


class Weigh(IntEnum):
    """When α is applied."""

    BEFORE = 0
    AFTER = 1


class Elect(IntEnum):
    """How the sign of a coordinate is elected."""

    MASS = 0
    COUNT = 1
    NONE = 2


class Merge(IntEnum):
    """How the members of a coordinate become one number."""

    MEAN = 0
    SUM = 1
    MAX = 2


class Divide(IntEnum):
    """The divisor of a mean."""

    STRENGTH = 0
    COUNT = 1
    WEIGHT = 2
    MASS = 3
