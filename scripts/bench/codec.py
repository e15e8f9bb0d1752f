#!/usr/bin/env python3
"""How small does the codec make what training changed, and how long does an element take?

Three tables, one core. Gaussian updates (of the σ in the first column) of a Gaussian bf16 base (σ 0.02); the
fine-tunes that models.py wrote, where there are any; the nanoseconds an element that each stage takes on a
chunk. Sizes are stored records, headers included, over the raw bytes of the elements. Beside them: BitX (the
XOR of both checkpoints, exponent and sign-and-mantissa planes, zstd-3), and the order-0 entropy of z given
the base's exponent, which is no bound but what is left to win without looking further.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
import numpy as np
import numpy.typing as npt
import zstandard

from persona.codec.base import decode_base, encode_base
from persona.codec.delta import Scratch, decode_delta, encode_delta, exponent_order, restore
from persona.store.records import pack_record
from persona.weights.checkpoint import Checkpoint

Elements = npt.NDArray[np.uint16]
CHUNK = 1 << 20
SIGMAS = (1e-5, 1e-4, 5e-4)
NOBODY = "0" * 64


def bf16(numbers: npt.NDArray[np.float32]) -> Elements:
    """float32 → the bits of the nearest bf16."""
    bits = numbers.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def gaussian(elements: int, sigma: float) -> Iterator[tuple[Elements, Elements]]:
    """Chunks of a base and of its fine-tune."""
    rng = np.random.default_rng(0)
    for start in range(0, elements, CHUNK):
        n = min(CHUNK, elements - start)
        base = bf16(rng.normal(0, 0.02, n).astype(np.float32))
        wide = (base.astype(np.uint32) << 16).view(np.float32)
        yield base, bf16(wide + rng.normal(0, sigma, n).astype(np.float32))


def of_models(base: Path, tuned: Path) -> Iterator[tuple[Elements, Elements]]:
    """Chunks of the bf16 tensors of two checkpoints."""
    with Checkpoint.open(base) as before, Checkpoint.open(tuned) as after:
        for name, (spec, _) in before.tensors.items():
            for start in range(0, spec.elements if spec.dtype == "BF16" else 0, CHUNK):
                pair = [np.empty(min(CHUNK, spec.elements - start), np.uint16) for _ in range(2)]
                before.read_into(name, 2 * start, pair[0])
                after.read_into(name, 2 * start, pair[1])
                yield pair[0], pair[1]


def stored(kind: str, form: int, segments: list[Any]) -> int:
    """Bytes of the record."""
    return pack_record(kind, NOBODY, form, segments, relative=NOBODY if kind == "delta" else None).length


def bitx(base: Elements, after: Elements, compressor: zstandard.ZstdCompressor) -> int:
    """Bytes of the XOR in two planes."""
    turned = ((base ^ after) << 1 | (base ^ after) >> 15).astype(np.uint16)
    planes = ((turned >> 8).astype(np.uint8), turned.astype(np.uint8))
    return sum(len(compressor.compress(plane.tobytes())) for plane in planes)


def entropy_bytes(base: Elements, z: Elements) -> float:
    """Order-0 entropy of z given the base's exponent."""
    joint = np.unique((base.astype(np.uint32) >> 7 & 0xFF) << 16 | z, return_counts=True)
    totals = np.zeros(256)
    np.add.at(totals, joint[0] >> 16, joint[1])
    bits = (totals * np.log2(np.maximum(totals, 1))).sum() - (joint[1] * np.log2(joint[1])).sum()
    return float(bits) / 8


def sizes(chunks: Iterator[tuple[Elements, Elements]]) -> list[str]:
    """One row: what is unchanged, then each size over the raw bytes."""
    scratch, compressor = Scratch(), zstandard.ZstdCompressor(level=3)
    raw = same = vector = base_size = peer = 0
    entropy = 0.0
    for base, after in chunks:
        encoded = encode_delta(base, after, "BF16", scratch)
        raw += base.nbytes
        same += base.size - encoded.changed
        vector += stored("delta", encoded.form, encoded.segments) if encoded.changed else 0
        base_size += stored("chunk", *encode_base(base, "BF16"))
        peer += bitx(base, after, compressor)
        entropy += entropy_bytes(base, encoded.z)
    return [f"{2 * same / raw:.3f}"] + [f"{part / raw:.4f}" for part in (vector, peer, entropy, base_size)]


def nanoseconds(work: Callable[[], object], elements: int, rounds: int) -> str:
    """Median and least time of `work` for one element."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) / elements * 1e9)
    return f"{statistics.median(times):.2f} ({min(times):.2f})"


def stages(base: Elements, after: Elements, rounds: int) -> list[str]:
    """One column: every stage on one chunk."""
    n, scratch = base.size, Scratch()
    encoded = encode_delta(base, after, "BF16", scratch)
    segments = [segment.copy() for segment in encoded.segments]
    parameters = zstandard.ZstdCompressionParameters.from_level(1, min_match=7, hash_log=6)
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    frames = [compressor.compress(segment) for segment in segments]
    frames = [f for f, segment in zip(frames, segments, strict=True) if len(f) < 0.97 * segment.size]
    decompressor = zstandard.ZstdDecompressor()
    form, planes = encode_base(base, "BF16")
    order, out = np.empty(n, np.uint32), np.empty(n, np.uint16)
    sorted_base, z = np.empty(n, np.uint16), np.empty(n, np.uint16)
    work: list[Callable[[], object]] = [
        lambda: encode_delta(base, after, "BF16", scratch),
        lambda: [compressor.compress(segment) for segment in segments],
        lambda: [decompressor.decompress(frame) for frame in frames],
        lambda: decode_delta(encoded.form, segments, z),
        lambda: exponent_order(base, "BF16", order, sorted_base),
        lambda: restore(sorted_base, z, order, out),
        lambda: encode_base(base, "BF16"),
        lambda: decode_base(form, planes, out),
    ]
    return [nanoseconds(one, n, rounds) for one in work]


STAGES = (
    "encode the delta, all in",
    "zstd of its segments",
    "zstd back",
    "decode the delta",
    "exponent order",
    "restore the fine-tune",
    "encode the base",
    "decode the base",
)


def main() -> None:
    """Parse, measure, print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--elements", type=int, default=8 * CHUNK, help="of the Gaussian base")
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--models", type=Path, default=harness.ROOT / "build/models")
    args = options.parse_args()

    header = ["unchanged", "vector", "BitX", "entropy of z", "base"]
    rows = [[f"{sigma:g}", *sizes(gaussian(args.elements, sigma))] for sigma in SIGMAS]
    harness.show("Gaussian updates of a Gaussian base", ["σ of the update", *header], rows)
    if (args.models / "base").is_dir():
        base, tuned = harness.models_of(args.models)
        rows = [[path.name, *sizes(of_models(base, path))] for path in tuned]
        harness.show("fine-tunes of a real model", ["fine-tune", *header], rows)
    columns = [stages(*next(gaussian(CHUNK, sigma)), args.rounds) for sigma in SIGMAS]
    rows = [[name, *(column[row] for column in columns)] for row, name in enumerate(STAGES)]
    harness.show(
        "one chunk on one core, ns an element: median (least)",
        ["stage", *(f"σ {sigma:g}" for sigma in SIGMAS)],
        rows,
    )


if __name__ == "__main__":
    main()
