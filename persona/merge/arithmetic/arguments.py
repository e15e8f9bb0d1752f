"""The arguments of a merge of one chunk, the same for the CPU and a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from persona.merge.rules import MergeRules


@dataclass(frozen=True)
class MergeArguments:
    """How the terms of a chunk are merged, without their changes.

    theta, alpha: float32[K] and add: bool[K], in the order of the rows, as in `cpu.merge_chunk`; dtype: its
    code; majority: Σ sign(e) over the model, if the rules ask for it.
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
