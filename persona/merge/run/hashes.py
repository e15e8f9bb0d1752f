"""BLAKE3 of tensors whose chunks are finished by many threads, in any order.

A hash takes its bytes in order. If a thread brings the next chunk, it hashes that chunk and all chunks that
wait behind it. If a thread is early, it leaves its chunk and goes on. No thread waits.
"""

from __future__ import annotations

import queue
import threading
from queue import SimpleQueue
from typing import Final

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from persona.merge.rows.reader import Empty
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


class _Tensor:
    """One tensor's hash: `next` is the chunk that it takes next, `waiting` has chunks that came early."""

    def __init__(self) -> None:
        self.hasher = blake3()
        self.next = 0
        self.busy = False
        self.waiting: dict[int, tuple[Buffer, NDArray[np.uint8]]] = {}


class Hashes:
    """The BLAKE3 of tensors, by name; a hashed chunk's array goes back to `buffers`. Thread-safe."""

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers
        self._tensors: dict[str, _Tensor] = {}
        self._lock = threading.Lock()

    def add(self, name: str, index: int, data: Buffer, buffer: NDArray[np.uint8]) -> None:
        """Takes chunk `index` of a tensor, each once: its bytes, and the array to give back then."""
        with self._lock:
            tensor = self._tensors.setdefault(name, _Tensor())
            tensor.waiting[index] = data, buffer
            if tensor.busy:
                return
            tensor.busy = True
        while True:
            with self._lock:
                found = tensor.waiting.pop(tensor.next, None)
                if found is None:
                    tensor.busy = False
                    return
                tensor.next += 1
            tensor.hasher.update(found[0])
            self._buffers.give(found[1])

    def hexdigest(self, name: str) -> str:
        """The hash of a tensor all of whose chunks were added; of no bytes for one without any."""
        tensor = self._tensors.get(name)
        return (tensor.hasher if tensor else blake3()).hexdigest()
