"""The size of a change, beside the base's."""

from __future__ import annotations

import numpy as np
import pytest

from persona.intake.sizes import Sizes
from persona.objects.tensors import TensorSpec

MATRIX, VECTOR = TensorSpec("w", "F32", (64, 64)), TensorSpec("norm", "F32", (64,))


def bits(seed: int, spec: TensorSpec, scale: float = 0.02) -> np.ndarray:
    """Random elements as bits."""
    random = np.random.default_rng(seed)
    return (random.normal(0, scale, spec.elements).astype(np.float32)).view(np.uint32)


def moved(base: np.ndarray, by: float) -> np.ndarray:
    return (base.view(np.float32) * np.float32(1 + by)).view(np.uint32)


@pytest.mark.parametrize(("by", "large"), [(0.1, False), (0.5, False), (1.0, True), (-2.0, True)])
def test_a_change_as_large_as_the_base_is_remarked_on(by: float, large: bool) -> None:
    sizes = Sizes()
    base = bits(0, MATRIX)
    sizes.add(MATRIX, base, moved(base, by))
    assert sizes.relative == pytest.approx(abs(by), rel=1e-5)
    assert bool(sizes.remarks()) == large


def test_weights_that_were_trained_apart_are_strangers_whatever_their_norms() -> None:
    sizes = Sizes()
    ones = np.ones(64, np.float32).view(np.uint32)
    for _ in range(100):
        sizes.add(VECTOR, ones, ones)
    sizes.add(MATRIX, bits(1, MATRIX), bits(2, MATRIX))
    assert sizes.relative == pytest.approx(2**0.5, rel=0.05)
    assert "is it a fine-tune of this base?" in sizes.remarks()[0]


def test_vectors_count_in_a_model_of_vectors_only() -> None:
    sizes = Sizes()
    sizes.add(VECTOR, bits(1, VECTOR), bits(2, VECTOR))
    assert sizes.remarks()


def test_a_chunk_that_is_not_finite_does_not_count() -> None:
    sizes = Sizes()
    base = bits(0, MATRIX)
    strange = base.copy()
    strange[5] = np.float32(np.nan).view(np.uint32)
    sizes.add(MATRIX, base, strange)
    sizes.add(MATRIX, strange, base)
    assert sizes.relative == 0
    sizes.add(MATRIX, base, moved(base, 1))
    assert sizes.relative == pytest.approx(1, rel=1e-5)


def test_an_empty_base_has_no_size() -> None:
    assert Sizes().remarks() == []
    sizes = Sizes()
    zeros = np.zeros(4096, np.uint32)
    sizes.add(MATRIX, zeros, bits(0, MATRIX))
    assert sizes.relative == 0


def test_many_chunks_of_several_kinds_count_as_much_as_one_after_the_other() -> None:
    together, sums = Sizes(), [0.0, 0.0]
    half = TensorSpec("h", "F16", (8, 8))
    mask, nan = np.ones(64, np.float16).view(np.uint16), np.full(64, np.nan, np.float16).view(np.uint16)
    for seed in range(150):
        spec = half if seed % 3 else MATRIX
        base = np.random.default_rng(seed).normal(0, 0.02, spec.elements)
        before = base.astype(np.float16 if spec is half else np.float32)
        after = (before * before.dtype.type(1.25)).astype(before.dtype)
        raw = np.uint16 if spec is half else np.uint32
        together.add(spec, before.view(raw), after.view(raw))
        together.add(half, mask, mask)
        together.add(half, nan, mask)
        first, second = (each[:1024].astype(np.float64) for each in (before, after))
        sums[0] += float((first**2).sum())
        sums[1] += float(((second - first) ** 2).sum())
    assert together.relative == pytest.approx((sums[1] / sums[0]) ** 0.5, rel=1e-12)
