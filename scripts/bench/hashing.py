#!/usr/bin/env python3
"""How fast many threads hash one tensor that they merge chunk by chunk: with a hash for each block of 4 MiB,
and with one hash for the whole tensor.

    scripts/bench/hashing.py --threads 1 4 16 64

The merge of a chunk and BLAKE3 are replaced by sleeps as long as they take on one core, so that the numbers
show who waits for whom, whatever cores this machine has. Everything else is the program's own. A tensor of
bf16 elements, chunks of 2 MiB. "possible": if no thread ever waited.
"""

from __future__ import annotations

import argparse
import time
from unittest import mock

import numpy as np

from persona.limits import GIB, MIB
from persona.merge.run import hashes
from persona.merge.workers import in_order

CHUNK_BYTES = 2 * MIB
MERGE_SECONDS = 6.7e-3
"""A chunk with three vectors on one core without AVX-512."""
BLAKE3_BYTES = 2.6e9
"""Bytes a second on one such core."""


class Sleeping:
    """A hasher that takes its time and hashes nothing."""

    def update(self, data: memoryview) -> None:
        """Sleeps."""
        time.sleep(data.nbytes / BLAKE3_BYTES)

    def digest(self) -> bytes:
        """Nothing."""
        return bytes(32)


def rate(threads: int, chunks: int, block_bytes: int) -> float:
    """Bytes a second."""
    data = np.zeros(CHUNK_BYTES, np.uint8)
    with mock.patch.multiple(hashes, blake3=Sleeping, BLOCK_BYTES=block_bytes):
        found = hashes.Hashes()

        def work(index: int) -> None:
            time.sleep(MERGE_SECONDS)
            found.add("w", index * CHUNK_BYTES, data.data, data)

        started = time.perf_counter()
        for _ in in_order(work, range(chunks), threads=threads):
            pass
        return chunks * CHUNK_BYTES / (time.perf_counter() - started)


def main() -> None:
    """Prints a line for each number of threads."""
    parser = argparse.ArgumentParser(description="How fast many threads hash one tensor.")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--chunks", type=int, default=600)
    options = parser.parse_args()
    print("| threads | one hash, GiB/s | blocks, GiB/s | possible, GiB/s |")
    print("| --- | --- | --- | --- |")
    for threads in options.threads:
        possible = threads * CHUNK_BYTES / (MERGE_SECONDS + CHUNK_BYTES / BLAKE3_BYTES)
        whole, blocks = (
            rate(threads, options.chunks, size) for size in (options.chunks * CHUNK_BYTES, hashes.BLOCK_BYTES)
        )
        print(f"| {threads} | {whole / GIB:.2f} | {blocks / GIB:.2f} | {possible / GIB:.2f} |", flush=True)


if __name__ == "__main__":
    main()
