"""Base chunks come back bit for bit, and damaged segments are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.codec.base import decode_base, encode_base
from persona.codec.elements import FORM_RAW, Elements, of
from persona.errors import IntegrityError
from tests.codec.strategies import DTYPES, chunks, patterns


@given(data=st.data(), dtype=DTYPES)
def test_any_bit_patterns_come_back(data: st.DataObject, dtype: str) -> None:
    base, _ = data.draw(chunks(dtype))
    form, segments = encode_base(base, dtype)
    out = np.empty_like(base)
    decode_base(form, [segment.tobytes() for segment in segments], out)
    assert (out == base).all()


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_every_16_bit_pattern_comes_back(dtype: str) -> None:
    base = np.arange(1 << 16, dtype=np.uint16)
    form, segments = encode_base(base, dtype)
    out = np.empty_like(base)
    decode_base(form, segments, out)
    assert (out == base).all()


def test_the_first_plane_of_bf16_is_the_exponent() -> None:
    base = np.array(patterns("BF16"), np.uint16)
    _, (high, _) = encode_base(base, "BF16")
    assert (high == (base >> 7 & 0xFF)).all()


@pytest.mark.parametrize("dtype", ["I64", "F64", "F8_E4M3", "BOOL"])
def test_other_types_are_stored_as_they_are(dtype: str) -> None:
    raw = np.arange(24, dtype=np.uint8)
    form, segments = encode_base(raw, dtype)
    out = np.zeros_like(raw)
    decode_base(form, segments, out)
    assert form == FORM_RAW
    assert (out == raw).all()


def test_bytes_of_a_file_that_are_not_aligned_are_taken() -> None:
    raw = np.frombuffer(b"x" + bytes(range(200)), np.uint8)[1:].view(np.uint16)
    form, segments = encode_base(raw, "BF16")
    out = np.empty(raw.size, np.uint16)
    decode_base(form, segments, out)
    assert (out == raw).all()


def _segments_of(n: int) -> tuple[int, list[bytes]]:
    form, segments = encode_base(np.arange(n, dtype=np.uint16), "BF16")
    return form, [segment.tobytes() for segment in segments]


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s[:1],
        lambda s: [],
        lambda s: [*s, b""],
        lambda s: [s[0][:-1], s[1]],
        lambda s: [s[0], s[1] + b"\0"],
    ],
)
def test_segments_of_a_wrong_length_or_number_are_refused(damage) -> None:  # type: ignore[no-untyped-def]
    form, segments = _segments_of(50)
    with pytest.raises(IntegrityError):
        decode_base(form, damage(segments), np.empty(50, np.uint16))


@pytest.mark.parametrize(
    "form", [0, 0x10102, 0x10103, 0x10100, 0x10104, 0x10201, 0x20101, 0x10001, 2**32 - 1]
)
def test_a_form_that_is_not_this_base_chunk_is_refused(form: int) -> None:
    _, segments = _segments_of(50)
    out: Elements = np.empty(50, np.uint32 if form == 0x10102 else of("BF16").uint)
    with pytest.raises(IntegrityError):
        decode_base(form, segments, out)
