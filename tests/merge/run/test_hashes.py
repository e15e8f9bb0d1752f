"""A tensor's hash is that of its bytes in order, whatever the order in which threads finish its chunks."""

from __future__ import annotations

import threading

import numpy as np
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from persona.merge.run.hashes import Buffers, Hashes

CHUNK = 1 << 18


@given(st.permutations(range(7)), st.integers(1, 3))
def test_chunks_in_any_order_from_many_threads(order: list[int], threads: int) -> None:
    buffers = Buffers()
    hashes = Hashes(buffers)
    chunks = [np.full(CHUNK, index, np.uint8) for index in range(len(order))]

    def add(mine: list[int]) -> None:
        for index in mine:
            hashes.add("w", index, chunks[index].data, chunks[index])

    workers = [threading.Thread(target=add, args=(order[k::threads],)) for k in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert hashes.hexdigest("w") == blake3(np.concatenate(chunks).data).hexdigest()
    again = {id(buffers.take(CHUNK)) for _ in chunks}
    assert again == {id(chunk) for chunk in chunks}


def test_a_tensor_without_chunks_has_the_hash_of_nothing() -> None:
    assert Hashes(Buffers()).hexdigest("w") == blake3().hexdigest()


def test_a_buffer_that_is_too_short_is_not_taken() -> None:
    buffers = Buffers()
    buffers.give(np.empty(CHUNK, np.uint8))
    assert buffers.take(CHUNK + 1).nbytes == CHUNK + 1
