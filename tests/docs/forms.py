"""The sizes that docs/decisions compares: one set of changes, stored in several forms.

`python -m tests.docs.forms [MODELS]` prints them for Gaussian updates of a Gaussian base, and for fine-tunes
`ft-…` of the model `base` in a directory. Sizes are over the raw bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from persona.codec.base import encode_base
from persona.codec.delta import Scratch, encode_delta, exponent_order
from persona.store.records import pack_record
from persona.weights.checkpoint import Checkpoint

U16 = NDArray[np.uint16]
Chunks = Iterable[tuple[U16, U16]]
Form = Callable[[U16, U16], int]
CHUNK = 1 << 20
SIGMAS = (1e-5, 1e-4, 5e-4)
_SCRATCH = Scratch()
_ZSTD_3 = zstandard.ZstdCompressor(level=3)
_TUNED = zstandard.ZstdCompressionParameters.from_level(1, min_match=7, hash_log=6, write_content_size=True)


def bf16(numbers: NDArray[np.float32]) -> U16:
    """float32 → the bits of the nearest bf16."""
    bits = numbers.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def gaussian(sigma: float, elements: int = CHUNK, chunk: int = CHUNK) -> Iterator[tuple[U16, U16]]:
    """A bf16 base of σ 0.02 and updates of σ `sigma`, in chunks."""
    random = np.random.default_rng(0)
    base = bf16(random.normal(0, 0.02, elements).astype(np.float32))
    wide = (base.astype(np.uint32) << 16).view(np.float32)
    after = bf16(wide + random.normal(0, sigma, elements).astype(np.float32))
    for start in range(0, elements, chunk):
        yield base[start : start + chunk], after[start : start + chunk]


def of_models(base: Path, tuned: Path) -> Iterator[tuple[U16, U16]]:
    """The bf16 tensors of two checkpoints, in chunks."""
    with Checkpoint.open(base) as before, Checkpoint.open(tuned) as after:
        for name, (spec, _) in before.tensors.items():
            for start in range(0, spec.elements if spec.dtype == "BF16" else 0, CHUNK):
                pair = [np.empty(min(CHUNK, spec.elements - start), np.uint16) for _ in range(2)]
                before.read_into(name, 2 * start, pair[0].data)
                after.read_into(name, 2 * start, pair[1].data)
                yield pair[0], pair[1]


def stored(segments: list[Any]) -> int:
    """Bytes of a record with these segments, header included."""
    return pack_record("delta", "0" * 64, 0, segments, relative="0" * 64).length


def planes(values: U16) -> list[NDArray[np.uint8]]:
    """The low bytes, then the high ones."""
    return [(values & 0xFF).astype(np.uint8), (values >> 8).astype(np.uint8)]


def in_exponent_order(base: U16, after: U16) -> U16:
    """z in the order of the base's exponents."""
    order, sorted_base = np.empty(base.size, np.uint32), np.empty_like(base)
    exponent_order(base, "BF16", order, sorted_base)
    z: U16 = encode_delta(base, after, "BF16", _SCRATCH).z[order]
    return z


def xor_planes(base: U16, after: U16) -> int:
    """The XOR of both sides, sign rotated to the bottom, two byte planes, zstd at level 3 (BitX)."""
    turned = ((base ^ after) << 1 | (base ^ after) >> 15).astype(np.uint16)
    return sum(len(_ZSTD_3.compress(bytes(plane))) for plane in planes(turned))


def element_order(base: U16, after: U16) -> int:
    """z in element order, byte planes."""
    return stored(planes(encode_delta(base, after, "BF16", _SCRATCH).z))


def exponent_planes(base: U16, after: U16) -> int:
    """z in exponent order, byte planes."""
    return stored(planes(in_exponent_order(base, after)))


def one_bitmap(base: U16, after: U16) -> int:
    """z in exponent order: byte planes, or a bitmap of the changed and byte planes of theirs, the smaller."""
    z = in_exponent_order(base, after)
    changed = [np.packbits(z != 0, bitorder="little"), *planes(z[z != 0] - 1)]
    return min(stored(planes(z)), stored(changed))


def digits_and_tails(base: U16, after: U16) -> int:
    """What the codec writes."""
    return stored(list(encode_delta(base, after, "BF16", _SCRATCH).segments))


def whole_base(base: U16, _after: U16) -> int:
    """What the codec writes for the base."""
    return stored(list(encode_base(base, "BF16")[1]))


def at_level(compressor: zstandard.ZstdCompressor) -> Form:
    """What the codec writes, compressed otherwise than the store does; without the record's header."""

    def size(base: U16, after: U16) -> int:
        segments = encode_delta(base, after, "BF16", _SCRATCH).segments
        return sum(min(len(compressor.compress(bytes(segment))), segment.size) for segment in segments)

    return size


FORMS: dict[str, Form] = {
    "xor": xor_planes,
    "element order": element_order,
    "exponent order": exponent_planes,
    "one bitmap": one_bitmap,
    "digits and tails": digits_and_tails,
}
LEVELS: dict[str, Form] = {
    "level 1": at_level(zstandard.ZstdCompressor(level=1)),
    "level 1, tuned": at_level(zstandard.ZstdCompressor(compression_params=_TUNED)),
    "level 3": at_level(zstandard.ZstdCompressor(level=3)),
    "level 9": at_level(zstandard.ZstdCompressor(level=9)),
}


def ratio(chunks: Chunks, form: Form) -> float:
    """Bytes in one form over raw bytes; chunks in which nothing changed cost nothing."""
    raw = total = 0
    for base, after in chunks:
        raw += base.nbytes
        total += 0 if np.array_equal(base, after) else form(base, after)
    return total / raw


def main() -> None:
    """Prints the tables of docs/decisions/001 to 003."""
    updates: dict[str, Callable[[], Chunks]] = {f"σ {sigma:g}": partial(gaussian, sigma) for sigma in SIGMAS}
    for models in map(Path, sys.argv[1:]):
        for tuned in sorted(models.glob("ft-*")):
            updates[tuned.name] = partial(of_models, models / "base", tuned)
    for forms in (FORMS, LEVELS):
        _row("updates", *forms)
        for name, chunks in updates.items():
            _row(name, *(f"{ratio(chunks(), form):.4f}" for form in forms.values()))
    _row("chunk", "vector", "base")
    for log in (12, 14, 16, 18, 20, 22):
        chunks = partial(gaussian, 1e-4, 1 << 22, 1 << log)
        _row(str(1 << log), *(f"{ratio(chunks(), form):.4f}" for form in (digits_and_tails, whole_base)))


def _row(*cells: str) -> None:
    sys.stdout.write(f"| {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
