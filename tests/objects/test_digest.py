from __future__ import annotations

import struct
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import IntegrityError
from persona.objects.digest import require_digest, weights_digest
from tests.objects.strategies import digests, specs


def test_the_digest_is_made_as_the_numerics_page_says() -> None:
    one, other = blake3(b"\x80?").digest(), blake3(b"").digest()
    layout = struct.pack("<Q1sQ4sQ", 1, b"a", 4, b"BF16", 0) + one
    layout += struct.pack("<Q2sQ3sQQQ", 2, "é".encode(), 3, b"F32", 2, 0, 7) + other
    items = [("é", "F32", (0, 7), other), ("a", "BF16", (), one)]
    assert weights_digest(items) == "blake3:" + blake3(layout).hexdigest()


@given(specs(), st.randoms())
def test_the_digest_does_not_depend_on_the_order_of_tensors(found: Any, random: Any) -> None:
    items = [(spec.name, spec.dtype, spec.shape, blake3(spec.name.encode()).digest()) for spec in found]
    shuffled = list(items)
    random.shuffle(shuffled)
    assert weights_digest(shuffled) == weights_digest(iter(items))


def test_names_are_ordered_by_their_bytes() -> None:
    items = [(name, "U8", (), bytes(32)) for name in ("￿", "\U0001f600", "Z", "a")]
    in_order = [items[2], items[3], items[0], items[1]]
    hasher = blake3()
    for name, dtype, _, digest in in_order:
        raw = name.encode()
        hasher.update(struct.pack(f"<Q{len(raw)}sQ2sQ", len(raw), raw, 2, dtype.encode(), 0) + digest)
    assert weights_digest(items) == "blake3:" + hasher.hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        ("b", "F32", (2, 3), b"\1" * 32),
        ("a", "I32", (2, 3), b"\1" * 32),
        ("a", "F32", (3, 2), b"\1" * 32),
        ("a", "F32", (6,), b"\1" * 32),
        ("a", "F32", (2, 3), b"\2" * 32),
    ],
)
def test_name_dtype_shape_and_bytes_all_count(other: Any) -> None:
    assert weights_digest([other]) != weights_digest([("a", "F32", (2, 3), b"\1" * 32)])


@given(digests)
def test_a_printed_digest_is_read_back(digest: str) -> None:
    assert require_digest(digest, "base") == digest


@pytest.mark.parametrize(
    "value", ["", "f" * 64, "blake3:", "blake3:" + "f" * 63, "sha256:" + "f" * 64, None, 7, []]
)
def test_anything_else_is_no_digest(value: object) -> None:
    with pytest.raises(IntegrityError, match="is not a weights digest"):
        require_digest(value, "base")
