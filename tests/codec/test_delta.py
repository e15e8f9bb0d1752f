"""Vector chunks: what comes back, in which order, and how small it is."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from persona.codec import delta as delta_codec
from persona.codec.delta import (
    MAX_GROUPS,
    Scratch,
    decode_delta,
    delta_payload,
    element_order,
    encode_delta,
    exponent_order,
    exponent_starts,
    restore,
)
from persona.codec.elements import Elements, of
from persona.limits import MAX_SEGMENTS
from tests.codec.strategies import DTYPES, chunks, patterns, trained

SCRATCH = Scratch()


def round_trip(base: Elements, after: Elements, dtype: str) -> Elements:
    """`after` by way of segments as bytes; z in exponent order is checked on the way.

    Without vector instructions first, then as this processor has it: the same bytes.
    """
    before: list[bytes] = []
    for wide in (0, delta_codec.has_compress()):
        with mock.patch.object(delta_codec, "has_compress", return_value=wide):
            encoded = encode_delta(base, after, dtype, SCRATCH)
            segments = [segment.tobytes() for segment in encoded.segments]
            assert segments == (before or segments)
            before = segments
            order, sorted_base = np.empty(base.size, np.uint32), np.empty_like(base)
            exponent_order(base, dtype, order, sorted_base)
            z_sorted, out, z = np.empty_like(base), np.empty_like(base), np.empty_like(base)
            decode_delta(encoded.form, segments, z_sorted)
            starts = exponent_starts(base, dtype)
            for _ in range(2):
                z[:] = 0xAAAA
                element_order(base, dtype, starts, z_sorted, z)
                assert (z == encoded.z).all()
            assert (sorted_base == base[order]).all()
            assert (z_sorted == encoded.z[order]).all()
            assert encoded.changed == np.count_nonzero(base != after)
            restore(sorted_base, z_sorted, order, out)
            assert (out == after).all()
    return out


@given(data=st.data(), dtype=DTYPES)
def test_any_bit_patterns_come_back(data: st.DataObject, dtype: str) -> None:
    base, after = data.draw(chunks(dtype))
    assert (round_trip(base, after, dtype) == after).all()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_every_pair_of_edge_patterns_comes_back(dtype: str) -> None:
    edges = np.array(patterns(dtype), of(dtype).uint)
    base, after = np.repeat(edges, edges.size), np.tile(edges, edges.size)
    assert (round_trip(base, after, dtype) == after).all()


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_every_16_bit_pattern_comes_back_from_a_random_base(dtype: str) -> None:
    base = np.random.default_rng(3).permutation(1 << 16).astype(np.uint16)
    after = np.arange(1 << 16, dtype=np.uint16)
    assert (round_trip(base, after, dtype) == after).all()


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 63, 64, 65, 511, 4097])
@pytest.mark.parametrize("sigma", [1e-6, 1e-4, 1e-2])
def test_every_length_comes_back(n: int, sigma: float) -> None:
    base, after = trained(n, sigma, seed=n)
    assert (round_trip(base, after, "BF16") == after).all()


def test_a_long_chunk_of_fp32_comes_back() -> None:
    rng = np.random.default_rng(5)
    base = rng.normal(0, 0.02, 300_001).astype(np.float32)
    after = np.where(rng.random(base.size) < 0.6, base, base + rng.normal(0, 1e-6, base.size)).astype(
        np.float32
    )
    restored = round_trip(base.view(np.uint32), after.view(np.uint32), "F32")
    assert (restored == after.view(np.uint32)).all()


def test_the_order_is_the_stable_sort_by_the_exponent_of_the_base() -> None:
    for dtype in ("BF16", "F16", "F32"):
        element = of(dtype)
        base = (
            np.random.default_rng(1).integers(0, 1 << element.width, 10_007, np.uint64).astype(element.uint)
        )
        order, sorted_base = np.empty(base.size, np.uint32), np.empty_like(base)
        exponent_order(base, dtype, order, sorted_base)
        keys = base >> element.mantissa & (1 << element.exponent) - 1
        assert (order == np.argsort(keys, kind="stable")).all()
        assert (sorted_base == base[order]).all()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("n", [4096, 4127, 20_000])
@pytest.mark.parametrize("sigma", [1e-3, 1.0])
def test_a_long_chunk_is_ordered_by_its_common_exponents(dtype: str, n: int, sigma: float) -> None:
    element = of(dtype)
    rng = np.random.default_rng(n)
    values = rng.normal(0, sigma, n).astype(np.float32)
    values[n // 2 : n // 2 + 100] = 0.0
    bits = values.view(np.uint32) if dtype == "F32" else values.astype(np.float16).view(np.uint16)
    if dtype == "BF16":
        bits = (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    exponent = bits >> element.mantissa & ((1 << element.exponent) - 1)
    order, sorted_base = np.empty(n, np.uint32), np.empty_like(bits)
    exponent_order(bits, dtype, order, sorted_base)
    assert (order == np.argsort(exponent, kind="stable")).all()
    assert (sorted_base == bits[order]).all()
    after = bits ^ (rng.random(n) < 0.3).astype(bits.dtype) * bits.dtype.type(3)
    assert (round_trip(bits, after, dtype) == after).all()


def test_z_is_the_zigzag_of_the_distance_in_ulps() -> None:
    base = np.array([0x3F80, 0x3F80, 0x3F80, 0xBF80, 0x0000, 0x8000, 0x0000], np.uint16)
    after = np.array([0x3F80, 0x3F7F, 0x3F81, 0xBF7F, 0x8000, 0x0000, 0x0001], np.uint16)
    z = encode_delta(base, after, "BF16", Scratch()).z
    assert z.tolist() == [0, 1, 2, 2, 1, 2, 2]


def test_equal_chunks_have_no_change_and_next_to_no_bytes() -> None:
    base, _ = trained(100_000, 0.0)
    encoded = encode_delta(base, base.copy(), "BF16", Scratch())
    assert encoded.changed == 0
    assert sum(segment.size for segment in encoded.segments) <= 16


def test_the_payload_is_the_base_chunk_id_and_z() -> None:
    z = np.array([1, 0x0203], np.uint16)
    assert b"".join(bytes(part) for part in delta_payload("ab" * 32, z)) == b"\xab" * 32 + b"\1\0\3\2"


def test_groups_and_segments_keep_within_their_limits() -> None:
    for dtype in ("BF16", "F16", "F32"):
        element = of(dtype)
        rng = np.random.default_rng(2)
        base = rng.integers(0, 1 << element.width, 200_000, np.uint64).astype(element.uint)
        wobble = rng.integers(0, 1 << rng.integers(1, 16, base.size), dtype=np.uint64)
        encoded = encode_delta(base, (base ^ wobble).astype(element.uint), dtype, SCRATCH)
        assert len(encoded.segments) <= MAX_SEGMENTS
        assert encoded.segments[0].size <= MAX_GROUPS * 8


def stored_bytes(segments: list[np.ndarray]) -> int:
    """What a store keeps: each segment as one zstd frame, raw where that gains under 3 %."""
    parameters = zstandard.ZstdCompressionParameters.from_level(1, min_match=7, hash_log=6)
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    total = 0
    for segment in segments:
        packed = len(compressor.compress(segment.tobytes()))
        total += packed if packed < 0.97 * segment.size else segment.size
    return total


@pytest.mark.parametrize(("sigma", "ratio"), [(1e-5, 0.0335), (1e-4, 0.1900), (5e-4, 0.3310)])
def test_gaussian_updates_of_a_gaussian_base_shrink_as_documented(sigma: float, ratio: float) -> None:
    base, after = trained(1 << 20, sigma)
    encoded = encode_delta(base, after, "BF16", SCRATCH)
    assert stored_bytes(encoded.segments) / base.nbytes <= ratio
