"""Elements of a fine-tune rounded to the base's dtype, or moved from the weights of a revision to the base's.

docs/numerics.md, "Before any arithmetic" and "A vector trained on top of a revision".
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from persona.intake.pairs import Match
from persona.merge.arithmetic import casts
from persona.objects.tensors import TensorSpec

_BLOCK: Final = 1 << 15
"""Elements that are computed with in binary64 at a time."""


def round_into(
    given: NDArray[Any], dtype: str, out: NDArray[Any], to: str, before: NDArray[Any] | None = None
) -> float:
    """Rounds `given` into `out`; returns the largest |difference| over finite elements.

    `before`: the elements before the training. One that is `given` when it is rounded to `dtype` stays.
    """
    largest = 0.0
    for start in range(0, out.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        values = casts.widen(given[part], dtype)
        out[part] = casts.narrow(values, to)
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.abs(casts.widen(out[part], to) - values)
        if before is not None:
            same = _is_rounded(before[part], to, given[part], dtype)
            out[part] = np.where(same, before[part], out[part])
        largest = max(largest, _largest(difference))
    return largest


def shift_into(
    base: NDArray[Any],
    materialised: NDArray[Any],
    trained: NDArray[Any],
    source: TensorSpec,
    out: NDArray[Any],
    spec: TensorSpec,
) -> float:
    """f = round(b + (a − w)) into `out`, b's bits if a and w are equal (docs/numerics.md).

    Returns the largest rounding.
    """
    dtype, largest = spec.dtype, 0.0
    narrowed = Match(spec, source).narrowed
    for start in range(0, out.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        b, w, a = base[part], materialised[part], trained[part]
        if source.dtype != dtype:
            same = _is_rounded(w, dtype, a, source.dtype) if narrowed else None
            a = casts.narrow(casts.widen(a, source.dtype), dtype)
            a = a if same is None else np.where(same, w, a)
        with np.errstate(invalid="ignore", over="ignore"):
            change = casts.widen32(a, dtype) - casts.widen32(w, dtype)
            shifted = casts.narrow32(casts.widen32(b, dtype) + change, dtype)
            out[part] = np.where(a == w, b, shifted)
            exact = casts.widen(b, dtype) + (casts.widen(a, dtype) - casts.widen(w, dtype))
            difference = np.abs(casts.widen(out[part], dtype) - exact)
        largest = max(largest, _largest(difference))
    return largest


def _is_rounded(bits: NDArray[Any], dtype: str, given: NDArray[Any], to: str) -> NDArray[np.bool_]:
    """Which elements are the given ones when they are rounded to another dtype."""
    return np.asarray(casts.narrow(casts.widen(bits, dtype), to) == given)


def _largest(values: NDArray[np.float64]) -> float:
    """The largest of the finite ones, at least 0."""
    return float(np.max(values, initial=0.0, where=np.isfinite(values)))
