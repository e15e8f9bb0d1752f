"""Chunks to encode: arbitrary bit patterns, and what training makes of a base."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from persona.codec.elements import Elements, of

DTYPES = st.sampled_from(["BF16", "F16", "F32"])


def patterns(dtype: str) -> list[int]:
    """Bits at the edges: zeros, subnormals, the largest finite numbers, infinities, NaNs."""
    element = of(dtype)
    top, exponent = 1 << element.width - 1, ((1 << element.exponent) - 1) << element.mantissa
    half = [
        0,
        1,
        (1 << element.mantissa) - 1,
        1 << element.mantissa,
        exponent - 1,
        exponent,
        exponent + 1,
        top - 1,
    ]
    return half + [top | bits for bits in half]


@st.composite
def chunks(draw: st.DrawFn, dtype: str, max_size: int = 700) -> tuple[Elements, Elements]:
    """(base, after) of one length: any bits, edges, or a base of which some elements moved a few steps."""
    element = of(dtype)
    n = draw(st.integers(1, max_size))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    any_bits = rng.integers(0, 1 << element.width, n, dtype=np.uint64)
    edges = rng.choice(np.array(patterns(dtype), np.uint64), n)
    base = np.where(rng.random(n) < draw(st.sampled_from([0.0, 0.5, 1.0])), any_bits, edges)
    steps = rng.integers(0, draw(st.sampled_from([2, 5, 40, 3000])), n, dtype=np.uint64)
    near = base + np.where(rng.random(n) < draw(st.floats(0, 1)), steps, 0)
    far = (
        rng.permutation(base)
        if draw(st.booleans())
        else rng.integers(0, 1 << element.width, n, dtype=np.uint64)
    )
    after = np.where(rng.random(n) < draw(st.sampled_from([0.0, 0.01, 1.0])), far, near)
    return base.astype(element.uint), (after & ((1 << element.width) - 1)).astype(element.uint)


def trained(n: int, sigma: float, seed: int = 0) -> tuple[Elements, Elements]:
    """A bf16 base of standard deviation 0.02 and what updates of standard deviation `sigma` make of it."""
    rng = np.random.default_rng(seed)
    base = to_bf16(rng.normal(0, 0.02, n).astype(np.float32))
    wide = (base.astype(np.uint32) << 16).view(np.float32)
    return base, to_bf16(wide + rng.normal(0, sigma, n).astype(np.float32))


def to_bf16(values: np.ndarray) -> Elements:
    """binary32 to the bits of bf16, to nearest even."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
