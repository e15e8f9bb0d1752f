"""The worked example of `docs/format.md`, byte by byte."""

from __future__ import annotations

import numpy as np

from persona.codec.base import decode_base, encode_base
from persona.codec.delta import Scratch, decode_delta, encode_delta, exponent_order, restore

BASE = np.array([0x3F80, 0x0000, 0xBF80, 0x3C23, 0x3F81, 0xBC23, 0x8000, 0x3C24, 0x7FC0, 0x3C25], np.uint16)
AFTER = np.array([0x3F81, 0x000C, 0xBF80, 0x3C24, 0x3F81, 0xBC22, 0x8000, 0x3C24, 0x7FC0, 0x3C27], np.uint16)

BASE_FORM = 0x00010101  # codec version 1, layout 1, bf16
BASE_SEGMENTS = [
    bytes.fromhex("7f 00 7f 78 7f 78 00 78 ff 78"),  # the exponents
    bytes.fromhex("00 00 01 46 02 47 01 48 80 4a"),  # mantissa << 1 | sign
]

ORDER = [1, 6, 3, 5, 7, 9, 0, 2, 4, 8]
Z_IN_ELEMENT_ORDER = [2, 24, 0, 2, 0, 2, 0, 0, 0, 4]
Z_IN_EXPONENT_ORDER = [24, 0, 2, 2, 0, 4, 2, 0, 0, 0]

DELTA_FORM = 0x00010201  # codec version 1, layout 2, bf16
DELTA_SEGMENTS = [
    bytes.fromhex("0a000000 00 01 0000"),  # one group: 10 elements, no digits, 1 plane
    bytes.fromhex("18 00 02 02 00 04 02 00 00 00"),  # z as it is
]
SAME_IN_TWO_GROUPS = [
    bytes.fromhex("06000000 04 01 0000  04000000 02 00 0000"),
    bytes.fromhex("0f 22 40"),  # digits of 4 bits, the lower first, 15 for "goes on": 15 0, 2 2, 0 4
    bytes.fromhex("09"),  # what goes on: 24 - 15
    bytes.fromhex("02"),  # digits of 2 bits, of which none goes on: 2 0 0 0
]


def test_the_base_chunk_of_the_example_has_these_bytes() -> None:
    form, segments = encode_base(BASE, "BF16")
    assert (form, [segment.tobytes() for segment in segments]) == (BASE_FORM, BASE_SEGMENTS)
    out = np.empty_like(BASE)
    decode_base(BASE_FORM, BASE_SEGMENTS, out)
    assert (out == BASE).all()


def test_the_vector_chunk_of_the_example_has_these_bytes() -> None:
    encoded = encode_delta(BASE, AFTER, "BF16", Scratch())
    assert encoded.form == DELTA_FORM
    assert [segment.tobytes() for segment in encoded.segments] == DELTA_SEGMENTS
    assert encoded.z.tolist() == Z_IN_ELEMENT_ORDER
    assert encoded.changed == 5


def test_the_bytes_of_the_example_give_the_fine_tune_back() -> None:
    order, sorted_base = np.empty(BASE.size, np.uint32), np.empty_like(BASE)
    exponent_order(BASE, "BF16", order, sorted_base)
    assert order.tolist() == ORDER
    z, out = np.empty_like(BASE), np.empty_like(BASE)
    for segments in (DELTA_SEGMENTS, SAME_IN_TWO_GROUPS):
        z[:] = 0xAAAA
        decode_delta(DELTA_FORM, segments, z)
        assert z.tolist() == Z_IN_EXPONENT_ORDER
    restore(sorted_base, z, order, out)
    assert (out == AFTER).all()
