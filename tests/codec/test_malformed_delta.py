"""Segments that no encoder wrote are refused before anything is read from them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.codec.delta import GROUP, MAX_GROUPS, Scratch, decode_delta, encode_delta
from persona.codec.elements import FORM_RAW, of
from persona.errors import IntegrityError
from tests.codec.strategies import trained

FORM = 0x00010201
GOOD = [bytes.fromhex("0a000000 04 01 0000"), bytes.fromhex("0f 22 40 02 00"), b"\x09"]


def groups(*rows: tuple[int, int, int, int]) -> bytes:
    """The first segment."""
    return np.array(list(rows), GROUP).tobytes()


def refused(segments: list[bytes], n: int = 10, form: int = FORM) -> None:
    with pytest.raises(IntegrityError):
        decode_delta(form, segments, np.empty(n, np.uint16))


def test_the_sound_segments_that_are_damaged_below_decode() -> None:
    decode_delta(FORM, GOOD, np.empty(10, np.uint16))


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: [],
        lambda s: s[:1],
        lambda s: s[:2],
        lambda s: [*s, b""],
        lambda s: [s[0], s[2], s[1]],
        lambda s: [s[0], s[1] + b"\0", s[2]],
        lambda s: [s[0], s[1][:-1], s[2]],
        lambda s: [s[0], s[1], b""],
        lambda s: [s[0], s[1], b"\x09\x09"],
        lambda s: [s[0], b"\xff" * 5, s[2]],  # more escapes than tails
        lambda s: [s[0], bytes(5), s[2]],  # fewer
        lambda s: [s[0] + b"\0", s[1], s[2]],
        lambda s: [b"", s[1], s[2]],
        lambda s: [groups((9, 4, 1, 0)), s[1], s[2]],
        lambda s: [groups((11, 4, 1, 0)), s[1], s[2]],
        lambda s: [groups((10, 3, 1, 0)), s[1], s[2]],
        lambda s: [groups((10, 255, 1, 0)), s[1], s[2]],
        lambda s: [groups((10, 4, 3, 0)), s[1], s[2], s[2], s[2]],
        lambda s: [groups((10, 4, 1, 1)), s[1], s[2]],
        lambda s: [groups((0, 0, 0, 0), (10, 4, 1, 0)), s[1], s[2]],
        lambda s: [groups((2**32 - 1, 0, 0, 0), (11, 0, 0, 0))],
    ],
)
def test_damage_is_refused(damage: Callable[[list[bytes]], list[bytes]]) -> None:
    refused(damage(GOOD))


def test_more_groups_than_the_limit_are_refused() -> None:
    decode_delta(FORM, [groups(*[(1, 0, 0, 0)] * MAX_GROUPS)], np.empty(MAX_GROUPS, np.uint16))
    refused([groups(*[(1, 0, 0, 0)] * (MAX_GROUPS + 1))], n=MAX_GROUPS + 1)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_bits_set_in_the_padding_are_refused(bits: int) -> None:
    sound = [groups((5, bits, 0, 0)), bytes(-(-5 * bits // 8))]
    decode_delta(FORM, sound, np.empty(5, np.uint16))
    refused([sound[0], sound[1][:-1] + bytes([1 << 5 * bits % 8])], n=5)


@pytest.mark.parametrize(
    "form", [0, FORM_RAW, 0x10101, 0x10301, 0x10203, 0x10200, 0x10204, 0x20201, 2**32 - 1]
)
def test_a_form_that_is_not_this_vector_chunk_is_refused(form: int) -> None:
    refused(GOOD, form=form)


@given(data=st.data())
def test_whatever_the_segments_hold_only_an_integrity_error_leaves(data: st.DataObject) -> None:
    element = of(data.draw(st.sampled_from(["BF16", "F32"])))
    n = data.draw(st.integers(1, 40))
    row = st.tuples(
        st.integers(0, 42),
        st.sampled_from([0, 1, 2, 4, 8, 5]),
        st.integers(0, 5),
        st.sampled_from([0, 0, 0, 1]),
    )
    first = groups(*data.draw(st.lists(row, min_size=1, max_size=3)))
    rest = data.draw(st.lists(st.binary(max_size=40), max_size=6))
    with suppress(IntegrityError):
        decode_delta(0x00010200 | element.code, [first, *rest], np.empty(n, element.uint))


@given(seed=st.integers(0, 2**32 - 1))
def test_a_flipped_byte_gives_other_values_or_is_refused(seed: int) -> None:
    base, after = trained(3000, 2e-4)
    encoded = encode_delta(base, after, "BF16", Scratch())
    segments = [bytearray(segment.tobytes()) for segment in encoded.segments]
    rng = np.random.default_rng(seed)
    at = int(rng.integers(len(segments)))
    segments[at][int(rng.integers(len(segments[at])))] ^= int(rng.integers(1, 256))
    sound, out = np.empty(3000, np.uint16), np.empty(3000, np.uint16)
    decode_delta(encoded.form, encoded.segments, sound)
    try:
        decode_delta(encoded.form, segments, out)
    except IntegrityError:
        return
    assert (out != sound).any()
