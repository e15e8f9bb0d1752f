"""The best factors of a given rank: a truncated singular value decomposition.

**energy** — the sum of the squares of a change's elements. The singular values of a matrix, squared, add up
to its energy, so the energy that a rank keeps says how well factors of that rank describe the change.

A matrix is decomposed by the randomised method of Halko, Martinsson and Tropp (arXiv 0909.4061, algorithms
4.4 and 5.1): the product with a few random columns, `_POWERS` power iterations with an orthonormal basis
after each product, and the decomposition of the small matrix that is left. The random numbers come from a
seed, so one machine computes the same factors each time. Another machine may round differently.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from persona.frozen import dataclass

Matrix = NDArray[np.float32]

_POWERS: Final = 3
_COPIES: Final = 9
"""Arrays of a matrix's rows or columns that are alive at once: LAPACK copies what it is given."""
_BLOCK: Final = 1 << 18
"""Elements whose squares are added at a time."""


@dataclass(frozen=True)
class Factors:
    """Factors of one matrix: B·A, with A float32[rank, columns] and B float32[rows, rank].

    `energy` is that of the matrix, `kept` the part of it that the factors have (float64 both).
    """

    a: Matrix
    b: Matrix
    energy: float
    kept: float


def scratch_bytes(rows: int, columns: int, rank: int) -> int:
    """Bytes that `truncated` takes for a matrix, the matrix itself included."""
    width = min(_width(rank), rows, columns)
    return 4 * (rows * columns + _COPIES * (rows + columns) * width)


def truncated(change: Matrix, rank: int, seed: int) -> Factors:
    """The factors of `rank` that keep most energy of a finite matrix float32[rows, columns].

    Overwrites `change`. If the matrix has fewer rows or columns than `rank`, the factors have that many.
    """
    rank = min(rank, *change.shape)
    unit = _power_of_two(change)  # squares of tiny changes would otherwise underflow
    change *= np.float32(unit)
    energy = energy_of(change)
    width = _width(rank)
    if 2 * width >= min(change.shape):
        left, values, right = np.linalg.svd(change, full_matrices=False)
    else:
        basis = _basis(change, width, seed)
        left, values, right = np.linalg.svd(basis.T @ change, full_matrices=False)
        left = basis @ left[:, :rank]
    return _balanced(left[:, :rank], values[:rank], right[:rank], energy, unit)


def of_product(b: NDArray[np.float64], a: NDArray[np.float64], rank: int | None = None) -> Factors:
    """The factors of b·a (float64[rows, r] and float64[r, columns]), cut to `rank`; None: its energy only.

    Nothing of the size of the product is computed.
    """
    if rank is None:
        energy = float(np.sum((b.T @ b) * (a @ a.T)))
        return Factors(a.astype(np.float32), b.astype(np.float32), energy, energy)
    basis_b, inner_b = np.linalg.qr(b)
    basis_a, inner_a = np.linalg.qr(a.T)
    left, values, right = np.linalg.svd(inner_b @ inner_a.T, full_matrices=False)
    energy = float(np.sum(values * values))
    return _balanced(basis_b @ left[:, :rank], values[:rank], right[:rank] @ basis_a.T, energy, 1.0)


def energy_of(change: NDArray[Any]) -> float:
    """The sum of the squares of an array's elements, added in float64."""
    flat = change.reshape(-1)
    parts = (flat[start : start + _BLOCK].astype(np.float64) for start in range(0, flat.size, _BLOCK))
    return float(sum(float(np.dot(part, part)) for part in parts))


def _width(rank: int) -> int:
    """The random columns for a rank: some more than it, because the spectra of fine-tunes decay slowly."""
    return rank + rank // 2 + 16


def _basis(change: Matrix, width: int, seed: int) -> Matrix:
    """Orthonormal columns, float32[rows, width], that span most of the range of a matrix."""
    start = np.random.default_rng(seed).standard_normal((change.shape[1], width), dtype=np.float32)
    basis: Matrix = np.linalg.qr(change @ start)[0]
    for _ in range(_POWERS):
        across = np.linalg.qr(change.T @ basis)[0]
        basis = np.linalg.qr(change @ across)[0]
    return basis


def _power_of_two(change: Matrix) -> float:
    """The power of two that makes the largest magnitude about 1; 1 for a matrix of zeros."""
    largest = max(float(change.max(initial=0.0)), -float(change.min(initial=0.0)))
    return float(np.ldexp(1.0, -int(np.frexp(largest)[1]))) if largest else 1.0


def _balanced(
    left: NDArray[Any], values: NDArray[Any], right: NDArray[Any], energy: float, unit: float
) -> Factors:
    """The factors of left·values·right ÷ unit, with half of each singular value in A and half in B."""
    root = np.sqrt(values.astype(np.float64) / unit)
    kept = float(np.sum(values.astype(np.float64) ** 2))
    a, b = root[:, None] * right, left * root
    return Factors(
        np.ascontiguousarray(a, np.float32),
        np.ascontiguousarray(b, np.float32),
        energy / unit**2,
        min(energy, kept) / unit**2,
    )
