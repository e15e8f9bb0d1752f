"""A tensor's digest is that of its bytes, whatever the order in which threads finish which parts of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from persona.merge.run import hashes as module
from persona.merge.run.hashes import Buffers, Hashes
from tests.checkpoints import tensor_digest

CHUNK = 1 << 18
BLOCK = 24
"""Bytes of a block in tests with a patched length, so that few bytes have many blocks."""


def digest(data: bytes, cuts: Sequence[int], order: Sequence[int], threads: int) -> bytes:
    """The digest of a tensor whose parts between the cuts are added in this order.

    Fails if an array is not given back exactly once.
    """
    array = np.frombuffer(data, np.uint8)
    parts = [(start, array[start:stop].copy()) for start, stop in pairwise([0, *sorted(cuts), len(data)])]
    back: list[int] = []
    hashes = Hashes(lambda part: back.append(id(part)))

    def add(mine: Sequence[int]) -> None:
        for index in mine:
            start, part = parts[index % len(parts)]
            hashes.add("w", start, part.data, part)

    workers = [threading.Thread(target=add, args=(order[k::threads],)) for k in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(back) == sorted(id(part) for _, part in parts)
    return hashes.digest("w")


@st.composite
def divided(draw: st.DrawFn) -> tuple[bytes, list[int], list[int], int]:
    """Bytes of a few blocks, cuts anywhere or around the ends of blocks, an order of the parts, threads."""
    size = draw(
        st.integers(1, 5 * BLOCK) | st.sampled_from([k * BLOCK + d for k in (1, 2) for d in (-1, 0, 1)])
    )
    ends = [k * BLOCK + d for k in range(6) for d in (-1, 0, 1)]
    cuts = sorted(draw(st.sets(st.integers(1, size) | st.sampled_from(ends), max_size=12)))
    cuts = [cut for cut in cuts if 0 < cut < size]
    order = draw(st.permutations(range(len(cuts) + 1)))
    return draw(st.binary(min_size=size, max_size=size)), cuts, order, draw(st.integers(1, 3))


@given(divided())
def test_any_parts_in_any_order_from_many_threads(case: tuple[bytes, list[int], list[int], int]) -> None:
    data = case[0]
    blocks = [blake3(data[at : at + BLOCK]).digest() for at in range(0, len(data), BLOCK)]
    with mock.patch.object(module, "BLOCK_BYTES", BLOCK):
        assert digest(*case) == blake3(b"".join(blocks)).digest()


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_chunks_of_any_width_with_whole_blocks(width: int, extra: int) -> None:
    chunk = width << 20
    data = blake3(b"tensor").digest((2 * chunk // (4 << 20) + 1) * (4 << 20) + extra)
    cuts = list(range(chunk, len(data), chunk))
    for threads in (1, 2):
        order = list(range(len(cuts) + 1))[::-1]
        assert digest(data, cuts, order, threads) == tensor_digest(data)


def test_a_block_is_hashed_while_another_is_waited_for() -> None:
    back: list[int] = []
    hashes = Hashes(lambda part: back.append(part.nbytes))
    later = np.zeros(4 << 20, np.uint8)
    hashes.add("w", 2 * later.nbytes, later.data, later)
    assert back == [later.nbytes]


def test_a_tensor_without_bytes_has_the_digest_of_nothing() -> None:
    assert Hashes().digest("w") == blake3().digest()


def test_a_buffer_goes_round_and_one_that_is_too_short_is_not_taken() -> None:
    buffers = Buffers()
    given = np.empty(CHUNK, np.uint8)
    buffers.give(given)
    assert buffers.take(CHUNK) is given
    buffers.give(given)
    assert buffers.take(CHUNK + 1).nbytes == CHUNK + 1
