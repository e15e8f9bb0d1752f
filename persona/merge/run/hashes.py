"""Digests of tensors whose chunks are finished by many threads, in any order.

Each block of a tensor has a hash of its own (`persona.objects.digest`), so threads that finish chunks of
different blocks hash at the same time. The hash of a block takes its bytes in order. If a thread brings the
next bytes, it hashes them and all bytes of the block that wait behind them. If a thread is early, it leaves
its bytes and goes on. No thread waits, and no thread hashes more than a block for others.

The bytes that wait belong to chunks after one that is still under way. So `in_order`, which limits how many
chunks these are, limits the memory, too.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from persona.merge.rows.reader import Empty
from persona.objects.digest import BLOCK_BYTES, tensor_digest
from persona.store.files import Buffer

_SMALL_BYTES: Final = 1 << 18


class Buffers:
    """Output arrays that go round between threads; small ones are always new. Thread-safe."""

    def __init__(self, empty: Empty = np.empty) -> None:
        self._empty = empty
        self._free: SimpleQueue[NDArray[np.uint8]] = SimpleQueue()

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """An array of at least this many bytes, with undefined content."""
        if nbytes < _SMALL_BYTES:
            return np.empty(nbytes, np.uint8)
        try:
            while (buffer := self._free.get_nowait()).nbytes < nbytes:
                pass
        except queue.Empty:
            return self._empty(nbytes, np.uint8)
        return buffer

    def give(self, buffer: NDArray[np.uint8]) -> None:
        """The array may be taken again."""
        if buffer.nbytes >= _SMALL_BYTES:
            self._free.put(buffer)


class _Chunk:
    """One chunk's array: `parts` of its bytes, one for each block that it reaches, are not hashed yet."""

    def __init__(self, array: NDArray[np.uint8], parts: int) -> None:
        self.array = array
        self.parts = parts


class _Block:
    """One block's hash: `next` is the byte of the block that it takes next.

    `waiting`: the bytes that came early, by the byte of the block that they begin at.
    """

    def __init__(self) -> None:
        self.hasher = blake3()
        self.next = 0
        self.busy = False
        self.waiting: dict[int, tuple[memoryview, _Chunk]] = {}


class Hashes:
    """The digests of tensors, by name. Thread-safe."""

    def __init__(self, hashed: Callable[[NDArray[np.uint8]], object] = lambda array: None) -> None:
        """`hashed` is called with the array of each chunk when its bytes are no longer needed."""
        self._hashed = hashed
        self._tensors: dict[str, dict[int, _Block | bytes]] = {}
        self._lock = threading.Lock()

    def add(self, name: str, start: int, data: Buffer, array: NDArray[np.uint8]) -> None:
        """Takes the bytes of a tensor from byte `start` on, each byte once, and the array that holds them."""
        view = memoryview(data)
        stop = start + view.nbytes
        blocks = range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES))
        chunk = _Chunk(array, len(blocks))
        for index in blocks:
            first = index * BLOCK_BYTES
            low, high = max(start, first), min(stop, first + BLOCK_BYTES)
            self._add(name, index, low - first, view[low - start : high - start], chunk)

    def _add(self, name: str, index: int, at: int, part: memoryview, chunk: _Chunk) -> None:
        """Takes the bytes of a block from its byte `at` on."""
        with self._lock:
            blocks = self._tensors.setdefault(name, {})
            block = blocks.setdefault(index, _Block())
            assert isinstance(block, _Block)
            block.waiting[at] = part, chunk
            if block.busy:
                return
            block.busy = True
        while True:
            with self._lock:
                found = block.waiting.pop(block.next, None)
                if found is None:
                    block.busy = False
                    if block.next == BLOCK_BYTES:
                        blocks[index] = block.hasher.digest()
                    return
                part, chunk = found
                block.next += part.nbytes
            block.hasher.update(part)
            with self._lock:
                chunk.parts -= 1
                whole = chunk.parts == 0
            if whole:
                self._hashed(chunk.array)

    def digest(self, name: str) -> bytes:
        """The digest of a tensor all of whose bytes were added, 32 bytes; of nothing if it has none."""
        found = sorted(self._tensors.get(name, {}).items())
        return tensor_digest(
            block if isinstance(block, bytes) else block.hasher.digest() for _, block in found
        )
