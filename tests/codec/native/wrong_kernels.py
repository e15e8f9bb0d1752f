"""A kernel that takes what `persona.codec.kernels` has under its name, and computes something else."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np


@numba.njit(nogil=True)
def rotate_split_16(raw: Any, high: Any, low: Any) -> None:
    for i in range(raw.size):
        high[i] = np.uint8(raw[i] >> np.uint16(8))
