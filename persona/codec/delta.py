"""The changes in a chunk, without loss: values z in exponent order, as groups of digits and tails.

    mono(x)   the order-preserving map of a float's bits to unsigned integers
    d         mono(after) - mono(base), wrapping around: the distance in ulps
    z         zigzag(d): 0, -1, 1, -2, ... become 0, 1, 2, 3, ...

**exponent order** — the elements of a base chunk, stably sorted by their exponent field.
**group** — a stretch of z in exponent order that is stored in one way.
**digits** — min(z, 2^b - 1) of each z of a group in b bits, b one of 1, 2, 4, 8.
**tail** — z - (2^b - 1) for a z that its digits cannot hold, in byte planes.

Training moves all weights by similar absolute amounts. So the size of a change in ulps follows from the
exponent of the base element, and in exponent order each group has one simple distribution. Writer and reader
both know the base, so the order costs no byte. With b = 1 the digits are a bitmap of the changed elements. A
group with b = 0 has no digits, only tails. b is chosen for each group, and neighbouring groups are joined, by
an estimate of the bytes that zstd makes of them. Layout: `docs/format.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from persona.codec.elements import (
    LAYOUT_DELTA,
    Bytes,
    Elements,
    ElementType,
    form_of,
    of,
    parse_form,
    readable,
    segment_bytes,
)
from persona.codec.native import Kernels, has_compress
from persona.codec.width import VECTOR_BYTES
from persona.errors import IntegrityError
from persona.frozen import dataclass

MAX_GROUPS: Final = 12
"""Groups of one chunk: with their segments they stay within `limits.MAX_SEGMENTS`."""

GROUP: Final = np.dtype([("elements", "<u4"), ("digit_bits", "u1"), ("planes", "u1"), ("zero", "<u2")])
"""One group in the first segment: its elements, the bits of a digit, and how many tail planes are stored."""

_DIGIT_BITS: Final = (0, 1, 2, 4, 8)
_WORK: Final = 5
_WRONG: Final = {
    1: "a group must have as many digits as elements",
    2: "the last byte of a group's digits must be padded with zeros",
    3: "the values that go on in a group's tails are not as many as its escapes",
}

kernels = Kernels("persona.codec.kernels", golden="persona.codec.golden")


class Scratch:
    """Working memory of `encode_delta`, reused from chunk to chunk; one for each thread."""

    def __init__(self) -> None:
        self._held: dict[str, npt.NDArray[Any]] = {}

    def array(self, name: str, size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The first `size` elements of the buffer of that name, with undefined content."""
        held = self._held.get(name)
        if held is None or held.size < size or held.dtype != dtype:
            held = self._held[name] = np.empty(size, dtype)
        return held[:size]


@dataclass(frozen=True)
class EncodedDelta:
    """A chunk of a vector.

    `segments` and `z` are views of the scratch: valid until it encodes the next chunk. z: uint16[n] or
    uint32[n] in element order, which the chunk's id covers; changed: how many of them are not 0.
    """

    form: int
    segments: list[Bytes]
    z: Elements
    changed: int


def exponent_order(base: Elements, dtype: str, order: npt.NDArray[np.uint32], sorted_base: Elements) -> None:
    """The stable order of a base chunk's elements by ascending exponent field.

    base: uint16[n] or uint32[n]; n < 2^32. Fills order, uint32[n]: order[j] is the index of the j-th element
    in exponent order, and sorted_base, of base's type: sorted_base[j] = base[order[j]].
    """
    element = of(dtype)
    base = readable(base, element)
    if order.shape != base.shape or sorted_base.shape != base.shape:
        raise TypeError(f"order and sorted_base must have {base.size} elements, as base has")
    if order.dtype != np.uint32 or sorted_base.dtype != base.dtype:
        raise TypeError(f"order must be uint32 and sorted_base {base.dtype}")
    keys = 1 << element.exponent
    counts, starts = np.empty((4, keys), np.uint32), np.empty(keys, np.uint32)
    kernels.exponent_order(base, *_key(element), counts, starts, has_compress(), order, sorted_base)


def exponent_starts(base: Elements, dtype: str) -> npt.NDArray[np.uint32]:
    """The place in exponent order of the first element of each exponent: uint32, one for each."""
    element = of(dtype)
    keys = 1 << element.exponent
    counts, starts = np.empty((4, keys), np.uint32), np.empty(keys, np.uint32)
    kernels.count_keys(readable(base, element), *_key(element), counts, starts)
    return starts


def element_order(
    base: Elements, dtype: str, starts: npt.NDArray[np.uint32], z_sorted: Elements, z: Elements
) -> None:
    """Fills z with z_sorted, which is in exponent order, in the order of the elements of a base chunk.

    starts: `exponent_starts` of base. base, z_sorted, z: uint16[n] or uint32[n]. It is faster than
    `exponent_order` and a scatter.
    """
    element = of(dtype)
    base, z_sorted = readable(base, element), readable(z_sorted, element)
    if z_sorted.size != base.size or z.shape != base.shape or z.dtype != base.dtype:
        raise TypeError(f"z_sorted and z must have {base.size} elements of {base.dtype}, as base has")
    counts = np.empty((2, starts.size), np.uint32)
    kernels.unplace_values(base, *_key(element), counts, starts.copy(), has_compress(), z_sorted, z)


def encode_delta(base: Elements, after: Elements, dtype: str, scratch: Scratch) -> EncodedDelta:
    """The changes from `base` to `after`, both uint16[n] or uint32[n] as `dtype` has it, any bit patterns."""
    element = of(dtype)
    base, after = readable(base, element), readable(after, element)
    n = base.size
    if after.size != n:
        raise TypeError(f"base and after must have the same number of elements, not {n} and {after.size}")
    z = scratch.array("z", n, element.uint)
    changed = (kernels.ulp_zigzag_16 if element.width == 16 else kernels.ulp_zigzag_32)(base, after, z)

    starts = exponent_starts(base, dtype)
    sizes = np.diff(starts, append=np.uint32(n)).astype(np.int64)
    placed, counts = scratch.array("placed", n, element.uint), np.empty((2, starts.size), np.uint32)
    kernels.place_values(base, *_key(element), counts, starts, has_compress(), z, placed)

    bounds, digit_bits = _groups(placed, sizes, element)
    segments = _pack(placed, bounds, digit_bits, element, scratch)
    return EncodedDelta(form_of(LAYOUT_DELTA, element), segments, z, int(changed))


def decode_delta(form: int, segments: Sequence[Any], z_sorted: Elements) -> None:
    """Fills z_sorted, uint16[n] or uint32[n], with the values z in exponent order.

    segments: bytes-like or uint8 arrays. Raises IntegrityError if they cannot be those of n elements of this
    type; the content of z_sorted is then undefined.
    """
    layout, element = parse_form(form)
    if layout != LAYOUT_DELTA or element is None:
        raise IntegrityError(f"storage form {form:#x} is not a form of a vector chunk")
    if z_sorted.dtype != element.uint:
        raise IntegrityError(
            f"storage form {form:#x} holds {element.name}, not elements of {z_sorted.itemsize} bytes"
        )
    groups = _parse_groups(segments, z_sorted.size, element)
    sizes = np.array([memoryview(segment).nbytes for segment in segments[1:]], np.int64)
    data = np.frombuffer(b"".join([*segments[1:], b"\0"]), np.uint8)
    most = max((group[0] for group in groups if group[1] and group[2] > 1), default=0)
    tails = np.empty(most + 1, element.uint)
    table = np.array(groups, np.int64).reshape(-1, 3)
    if wrong := kernels.decode_groups(data, sizes, table, tails, has_compress(), z_sorted):
        raise IntegrityError(_WRONG[wrong])


def restore(sorted_base: Elements, z_sorted: Elements, order: npt.NDArray[np.uint32], out: Elements) -> None:
    """The fine-tune's own elements, in element order: out[order[j]] is z_sorted[j] ulps from sorted_base[j].

    All have one length. All have one type except order: uint32, a permutation from `exponent_order`.
    """
    n = out.size
    if sorted_base.size != n or z_sorted.size != n or order.size != n:
        raise TypeError("sorted_base, z_sorted, order and out must have one length")
    if not sorted_base.dtype == z_sorted.dtype == out.dtype:
        raise TypeError("sorted_base, z_sorted and out must have one type")
    (kernels.restore_16 if out.itemsize == 2 else kernels.restore_32)(sorted_base, z_sorted, order, out)


def delta_payload(base_chunk_id: str, z: Elements) -> tuple[bytes, Bytes]:
    """The bytes that a vector chunk's id covers.

    32 bytes of its base chunk's id, then z little-endian in element order.
    """
    little = np.ascontiguousarray(z, z.dtype.newbyteorder("<"))
    return bytes.fromhex(base_chunk_id), little.view(np.uint8)


def _key(element: ElementType) -> tuple[Any, Any]:
    """(shift, mask) that bring the exponent field to the bottom, in the type of the elements."""
    return element.uint.type(element.mantissa), element.uint.type((1 << element.exponent) - 1)


def _groups(
    placed: Elements, sizes: npt.NDArray[np.int64], element: ElementType
) -> tuple[list[int], list[int]]:
    """(bounds of the groups, digit bits of each) of z in exponent order; sizes: elements of each exponent."""
    n = placed.size
    if n == 0:
        return [0], []
    least = max(512, n >> 8)
    ends: list[int] = []
    start = 0
    for end in np.cumsum(sizes[sizes > 0]).tolist():
        if end - start >= least or end == n:
            ends.append(end)
            start = end
    bounds = np.array([0, *ends], np.int64)
    every = max(1, min(4, n >> 16))
    counts = np.zeros((bounds.size - 1, 1 + element.nbytes, 256), np.uint32)
    digit_bits = np.zeros(bounds.size - 1, np.int64)
    kernels.count_values(placed, bounds, every, counts)
    work = np.empty((_WORK, max(256, digit_bits.size)))
    groups = kernels.choose_groups(
        bounds,
        counts,
        float(every),
        MAX_GROUPS,
        digit_bits,
        work,
        np.empty_like(digit_bits),
        np.empty_like(counts[0]),
    )
    return bounds[: groups + 1].tolist(), digit_bits[:groups].tolist()


def _pack(
    placed: Elements, bounds: list[int], digit_bits: list[int], element: ElementType, scratch: Scratch
) -> list[Bytes]:
    """The segments of z in exponent order, cut into these groups."""
    n = placed.size
    buffer = scratch.array("segments", n * (1 + element.nbytes), np.uint8)
    tails = scratch.array("tails", n + VECTOR_BYTES, element.uint)
    groups = np.zeros(len(digit_bits), GROUP)
    segments: list[Bytes] = [groups.view(np.uint8)]
    used = 0
    for g, bits in enumerate(digit_bits):
        group = placed[bounds[g] : bounds[g + 1]]
        rest = group
        if bits:
            escape = element.uint.type((1 << bits) - 1)
            digits = buffer[used : used + -(-group.size * bits // 8)]
            used += digits.size
            kernels.pack_digits(group, escape, bits, digits)
            segments.append(digits)
            rest = tails[: kernels.take_tails(group, escape, has_compress(), tails)]
        planes, first = 0, len(segments)
        for plane in range(element.nbytes):
            taken = buffer[used + plane * rest.size : used + (plane + 1) * rest.size]
            if kernels.take_plane(rest, element.uint.type(8 * plane), taken):
                planes = plane + 1
            segments.append(taken)
        del segments[first + planes :]
        used += planes * rest.size
        groups[g] = (group.size, bits, planes, 0)
    return segments


def _parse_groups(segments: Sequence[Any], n: int, element: ElementType) -> list[tuple[int, int, int]]:
    """(elements, digit bits, tail planes) of each group, checked against n and the number of segments."""
    first = segment_bytes(segments[0]) if segments else np.empty(1, np.uint8)
    if first.size % GROUP.itemsize or first.size > MAX_GROUPS * GROUP.itemsize:
        raise IntegrityError("a vector chunk must begin with its groups")
    groups = first.view(GROUP).tolist()
    expected = 1
    for elements, bits, planes, zero in groups:
        if elements == 0 or bits not in _DIGIT_BITS or planes > element.nbytes or zero:
            raise IntegrityError(
                f"a group of {elements} elements, {bits} bits, {planes} planes, {zero} is malformed"
            )
        expected += (bits > 0) + planes
    if sum(group[0] for group in groups) != n:
        raise IntegrityError(f"the groups of a vector chunk of {n} elements hold {sum(g[0] for g in groups)}")
    if expected != len(segments):
        raise IntegrityError(f"a vector chunk has {len(segments)} segments where its groups name {expected}")
    return [(elements, bits, planes) for elements, bits, planes, _ in groups]
