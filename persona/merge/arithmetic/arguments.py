"""The arguments of a merge of one chunk, the same for the CPU and a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.frozen import dataclass
from persona.merge.rules import MergeRules


@dataclass(frozen=True)
class DecodedChunk:
    """One chunk of n elements with the changes of some terms.

    `present`: the indices of the terms that changed it, in canonical order. sorted_base: uint[n], uint16 for
    BF16 and F16, uint32 for F32. z: uint[present, ≥ n], the ulp differences of these terms. Both have one
    order: exponent order, or element order if the chunk comes from a row cache. order: uint32[≥ n], the
    element at each position.
    """

    present: list[int]
    sorted_base: NDArray[Any]
    z: NDArray[Any]
    order: NDArray[np.uint32]


@dataclass(frozen=True)
class MergeArguments:
    """How the terms of a chunk are merged, without their changes.

    In the order of the rows, theta: float32[K], `NO_TRIM`, `KEEP_NOTHING` or the smallest |t| kept, not used
    for terms that join by adding; alpha: float32[K]; add: bool[K]. dtype: the code of BF16, F16 or F32;
    majority: Σ sign(e) over the model, if the rules ask for it.
    """

    theta: NDArray[np.float32]
    alpha: NDArray[np.float32]
    add: NDArray[np.bool_]
    rules: MergeRules
    dtype: int
    majority: int = 0

    def votes_first(self) -> tuple[NDArray[np.intp], MergeArguments]:
        """(rows, arguments) with the voting terms first, then those that add.

        Each kind keeps its order; row j of the new arguments is row `rows[j]` of these.
        """
        rows = np.argsort(self.add, kind="stable")
        return rows, replace(self, theta=self.theta[rows], alpha=self.alpha[rows], add=self.add[rows])
