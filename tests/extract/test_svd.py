"""The factors of a matrix: how much of it they keep, and that they are the same each time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.extract.svd import Factors, energy_of, of_product, truncated

SHAPES = ((1, 1), (3, 50), (50, 3), (40, 60), (200, 130))


def matrix(rows: int, columns: int, seed: int, decay: float = 0.0) -> np.ndarray:
    """A random matrix whose singular values decay as those of a fine-tune do."""
    random = np.random.default_rng(seed)
    left = np.linalg.qr(random.standard_normal((rows, min(rows, columns))))[0]
    right = np.linalg.qr(random.standard_normal((columns, min(rows, columns))))[0]
    values = (1.0 + np.arange(min(rows, columns))) ** -decay
    made: np.ndarray = (left * values) @ right.T
    return made.astype(np.float32)


def part_kept(found: Factors, change: np.ndarray) -> float:
    rest = change.astype(np.float64) - found.b.astype(np.float64) @ found.a
    return 1 - float((rest**2).sum() / (change.astype(np.float64) ** 2).sum())


@given(st.sampled_from(SHAPES), st.integers(1, 80), st.integers(0, 9), st.sampled_from((0.2, 0.5, 1.5)))
def test_a_rank_keeps_nearly_as_much_as_any_factors_of_that_rank_can(
    shape: tuple[int, int], rank: int, seed: int, decay: float
) -> None:
    change = matrix(*shape, seed, decay)
    squares = np.linalg.svd(change.astype(np.float64), compute_uv=False) ** 2
    best = squares[:rank].sum() / squares.sum()
    found = truncated(change.copy(), rank, seed)
    assert found.kept / found.energy == pytest.approx(part_kept(found, change), abs=1e-5)
    assert found.kept / found.energy >= best * 0.98  # 0.987 was the least over this domain
    assert found.energy == pytest.approx(squares.sum(), rel=1e-5)
    assert found.a.shape == (min(rank, *shape), shape[1])


@given(st.sampled_from(((64, 300), (300, 64), (120, 120))), st.integers(1, 8), st.integers(0, 9))
def test_a_matrix_of_low_rank_is_kept_whole(shape: tuple[int, int], rank: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    change = random.standard_normal((shape[0], rank)) @ random.standard_normal((rank, shape[1]))
    found = truncated(change.astype(np.float32), rank, seed)
    assert part_kept(found, change) > 1 - 1e-9


@pytest.mark.parametrize("exponent", [-120, -60, 60])
def test_the_size_of_a_change_does_not_matter(exponent: int) -> None:
    change = matrix(100, 80, 1, 0.5)
    scaled = np.ldexp(change, exponent).astype(np.float32)
    plain, other = truncated(change.copy(), 5, 1), truncated(scaled.copy(), 5, 1)
    assert other.kept / other.energy == pytest.approx(plain.kept / plain.energy, rel=1e-6)
    assert part_kept(other, np.ldexp(scaled.astype(np.float64), -exponent) * 2.0**exponent) > 0.2


def test_a_change_of_nothing_has_factors_of_zeros() -> None:
    found = truncated(np.zeros((90, 70), np.float32), 3, 1)
    assert not found.a.any() or not found.b.any()
    assert found.energy == found.kept == 0.0


def test_the_same_seed_gives_the_same_factors() -> None:
    change = matrix(200, 130, 3, 0.4)
    one, same, other = (truncated(change.copy(), 6, seed) for seed in (7, 7, 8))
    assert np.array_equal(one.a, same.a)
    assert np.array_equal(one.b, same.b)
    assert not np.array_equal(one.a, other.a)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 9))
def test_joined_factors_are_cut_as_their_product_would_be(rank: int, cut: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    b, a = random.standard_normal((30, rank)), random.standard_normal((rank, 20))
    squares = np.linalg.svd(b @ a, compute_uv=False) ** 2
    found = of_product(b, a, cut)
    assert found.energy == pytest.approx(energy_of(b @ a))
    assert found.kept == pytest.approx(squares[:cut].sum(), rel=1e-6)
    assert part_kept(found, (b @ a)) == pytest.approx(found.kept / found.energy, abs=1e-6)
    assert of_product(b, a).energy == pytest.approx(found.energy)
