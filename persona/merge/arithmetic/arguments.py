"""The arguments of a merge of one chunk, the same for the CPU and a GPU.

**row** — the change of one term at the elements of a chunk, as steps or as numbers.
**steps** — a row of ulp differences z, from which the fine-tune's own elements follow.
**numbers** — a row of binary32 numbers, t itself; there are no elements of a fine-tune.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.frozen import dataclass
from persona.merge.rules import MergeRules


def _no_numbers() -> NDArray[np.float32]:
    return np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class DecodedChunk:
    """One chunk of n elements with the changes of some terms.

    `present`: the indices of the terms that may change it, in canonical order. sorted_base: uint[n], uint16
    for BF16 and F16, uint32 for F32. z: uint[Kz, ≥ n], the rows of steps. numbers: float32[Kt, ≥ n], the rows
    of numbers. row_of: int32[present], the row of each term: r ≥ 0 is row r of z, r < 0 is row −1 − r of
    numbers; None: row k of z is that of the k-th term. Base and rows have one order: exponent order, or
    element order if a row cannot be read in exponent order or the chunk comes from a row cache. order:
    uint32[≥ n], the element at each position. `in_order`: the elements follow each other from order[0] on.
    """

    present: list[int]
    sorted_base: NDArray[Any]
    z: NDArray[Any]
    order: NDArray[np.uint32]
    numbers: NDArray[np.float32] = field(default_factory=_no_numbers)
    row_of: NDArray[np.int32] | None = None
    in_order: bool = False

    def rows(self) -> NDArray[np.int32]:
        """`row_of`, written out."""
        return np.arange(len(self.z), dtype=np.int32) if self.row_of is None else self.row_of

    def row(self, place: int) -> NDArray[Any]:
        """The row of `present[place]`: steps uint[n], or numbers float32[n]."""
        row = place if self.row_of is None else int(self.row_of[place])
        found: NDArray[Any] = self.z[row] if row >= 0 else self.numbers[~row]
        return found[: self.sorted_base.size]


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
