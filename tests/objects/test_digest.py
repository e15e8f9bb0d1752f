from __future__ import annotations

import struct
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import IntegrityError
from persona.objects.digest import block_digest, block_spans, require_digest, tensor_digest, weights_digest
from tests.checkpoints import tensor_digest as digest_by_hand
from tests.objects.strategies import digests, specs

BLOCK = 4 << 20


def test_the_digest_is_made_as_the_numerics_page_says() -> None:
    one, other = blake3(blake3(b"\x80?").digest()).digest(), blake3(b"").digest()
    assert (one, other) == (tensor_digest([block_digest(b"\x80?")]), tensor_digest([]))
    layout = struct.pack("<Q1sQ4sQ", 1, b"a", 4, b"BF16", 0) + one
    layout += struct.pack("<Q2sQ3sQQQ", 2, "é".encode(), 3, b"F32", 2, 0, 7) + other
    items = [("é", "F32", (0, 7), other), ("a", "BF16", (), one)]
    assert weights_digest(items) == "blake3:" + blake3(layout).hexdigest()


@pytest.mark.parametrize("nbytes", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1])
def test_a_tensor_is_digested_in_blocks_of_4_mib(nbytes: int) -> None:
    data = blake3(b"tensor").digest(nbytes)
    blocks = [data[start:stop] for start, stop in block_spans(nbytes)]
    assert tensor_digest(map(block_digest, blocks)) == digest_by_hand(data)
    assert all(len(block) == BLOCK for block in blocks[:-1])


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
