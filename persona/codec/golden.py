"""The golden cases of `persona.codec.kernels` (see `persona.codec.native.golden`).

The inputs are small and reach every branch. `scripts/golden.py` printed each digest. The tests of the codec
check the results of the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from persona.codec.native.golden import Case, table
from persona.codec.width import VECTOR_BYTES

Array = npt.NDArray[Any]
Call = tuple[tuple[Any, ...], Callable[[int], Sequence[Array]]]
"""The arguments of a kernel, and the arrays that are compared afterwards."""

N: Final = 4500
"""Elements: enough for the loops that look for common exponents."""

_EXPONENT: Final = 0xFF
_WORK: Final = 5


def cases(kernel: str, wide: int) -> Iterator[Case]:
    """The golden cases of a kernel. wide: whether it may take elements out of vectors."""
    digests = iter(_DIGESTS.get(kernel, ()))
    for arguments, results in _CALLS[kernel](wide):
        yield Case(kernel, arguments, results, next(digests, ""))


def noise(n: int, seed: int) -> npt.NDArray[np.uint64]:
    """n random words, the same everywhere (splitmix64, Steele, Lea and Flood 2014)."""
    word = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    word = (word ^ word >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ word >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = word ^ word >> np.uint64(31)
    return mixed


def weights(uint: Any, n: int = N) -> Array:
    """bf16 or fp32 elements as models have them: a few exponents are common, some are rare, both signs."""
    word, mantissa = noise(n, 1), _mantissa(uint)
    common = np.array([120, 119, 120, 118, 119, 117, 120, 116], np.uint64)[word & np.uint64(7)]
    exponent = np.where(word >> np.uint64(58) == 0, word >> np.uint64(40) & np.uint64(_EXPONENT), common)
    sign = word >> np.uint64(20) & np.uint64(1)
    fraction = word >> np.uint64(24) & np.uint64((1 << mantissa) - 1)
    word = sign << np.uint64(mantissa + 8) | exponent << np.uint64(mantissa) | fraction
    return np.asarray(word.astype(uint))


def changes(uint: Any, n: int = N, seed: int = 2) -> Array:
    """Values z as vectors have them: most are 0, a few are small, very few reach every byte."""
    word = noise(n, seed)
    small = np.where(word & np.uint64(3) == 0, word >> np.uint64(8) & np.uint64(31), np.uint64(0))
    return np.where(word >> np.uint64(57) == 0, word >> np.uint64(16), small).astype(uint)


def _mantissa(uint: Any) -> int:
    return 8 * int(np.dtype(uint).itemsize) - 9


def _keys(base: Array) -> tuple[Any, Any]:
    return base.dtype.type(_mantissa(base.dtype)), base.dtype.type(_EXPONENT)


def _zigzag(uint: Any) -> Iterator[Call]:
    base, z = weights(uint), np.empty(N, uint)
    after = np.where(noise(N, 3) & np.uint64(1) == 0, base, noise(N, 4).astype(uint))
    yield (base, after, z), lambda _: (z,)


def _count_keys(_wide: int) -> Iterator[Call]:
    for uint in (np.uint16, np.uint32):
        yield _counting(weights(uint))


def _counting(base: Array) -> Call:
    starts = np.empty(_EXPONENT + 1, np.uint32)
    counts = np.empty((4, _EXPONENT + 1), np.uint32)
    return (base, *_keys(base), counts, starts), lambda _: (starts,)


def _exponent_order(wide: int) -> Iterator[Call]:
    for uint in (np.uint16, np.uint32):
        for vectors in (0, wide):
            yield _ordering(weights(uint), vectors)


def _ordering(base: Array, wide: int) -> Call:
    order, ordered = np.empty(N, np.uint32), np.empty_like(base)
    starts, counts = np.empty(_EXPONENT + 1, np.uint32), np.empty((4, _EXPONENT + 1), np.uint32)
    return (base, *_keys(base), counts, starts, wide, order, ordered), lambda _: (order, ordered)


def _place_values(wide: int) -> Iterator[Call]:
    for uint in (np.uint16, np.uint32):
        for vectors in (0, wide):
            yield _placing(weights(uint), vectors)


def _placing(base: Array, wide: int) -> Call:
    shift, mask = _keys(base)
    found = np.bincount((base >> shift & mask).astype(np.int64), minlength=_EXPONENT + 1)
    starts = (np.cumsum(found) - found).astype(np.uint32)
    values, placed = changes(base.dtype), np.empty_like(base)
    counts = np.empty((4, _EXPONENT + 1), np.uint32)
    return (base, shift, mask, counts, starts, wide, values, placed), lambda _: (placed, starts)


def _restore(uint: Any) -> Iterator[Call]:
    out = np.zeros(N, uint)
    order = (np.arange(N) * 1009 % N).astype(np.uint32)
    yield (weights(uint), noise(N, 5).astype(uint), order, out), lambda _: (out,)


def _pack_digits(_wide: int) -> Iterator[Call]:
    for uint in (np.uint16, np.uint32):
        for bits in (1, 2, 4, 8):
            yield _packing(changes(uint, 1003), bits)


def _packing(z: Array, bits: int) -> Call:
    digits = np.zeros(-(-z.size * bits // 8), np.uint8)
    return (z, z.dtype.type((1 << bits) - 1), bits, digits), lambda _: (digits,)


def _take_tails(wide: int) -> Iterator[Call]:
    for uint in (np.uint16, np.uint32):
        for vectors in (0, wide):
            yield _tails(changes(uint, 1003), vectors)


def _tails(z: Array, wide: int) -> Call:
    tails = np.empty(z.size + VECTOR_BYTES, z.dtype)
    return (z, z.dtype.type(3), wide, tails), lambda taken: (tails[:taken],)


def _take_plane(_wide: int) -> Iterator[Call]:
    for uint in (np.uint16, np.uint32):
        yield _plane(changes(uint, 1003))


def _plane(z: Array) -> Call:
    plane = np.empty(z.size, np.uint8)
    return (z, z.dtype.type(8), plane), lambda _: (plane,)


def _decode_groups(wide: int) -> Iterator[Call]:
    for uint in (np.uint16, np.uint32):
        for vectors in (0, wide):
            yield _decoding(uint, vectors)
    yield _decoding(np.uint16, 0, wrong=1)


def _decoding(uint: Any, wide: int, wrong: int = 0) -> Call:
    """Groups of every number of digit bits, with one tail plane and with all of them."""
    planes = np.dtype(uint).itemsize
    groups, segments = [], []
    for bits in (0, 1, 2, 4, 8):
        for stored, limit in ((1, 0x7F), (planes, 0x7FFF)):
            z = changes(uint, 203, bits) & uint(limit)
            rest = z
            if bits:
                escape = (1 << bits) - 1
                digits = np.minimum(z, uint(escape))[:, None] >> np.arange(bits).astype(uint) & uint(1)
                segments.append(np.packbits(digits.astype(np.uint8), bitorder="little"))
                rest = z[z >= escape] - uint(escape)
            groups.append((z.size, bits, stored))
            segments += [(rest >> uint(8 * plane)).astype(np.uint8) for plane in range(stored)]
    sizes = np.array([segment.size for segment in segments], np.int64)
    sizes[-1] += wrong
    data = np.concatenate([*segments, np.zeros(1, np.uint8)])
    z = np.zeros(sum(group[0] for group in groups), uint)
    return (data, sizes, np.array(groups, np.int64), np.zeros(204, uint), wide, z), lambda _: (z,)


def _count_values(_wide: int) -> Iterator[Call]:
    for uint in (np.uint16, np.uint32):
        yield _counted(uint)


def _counted(uint: Any) -> Call:
    z, bounds = changes(uint), np.array([0, 700, 701, N], np.int64)
    counts = np.zeros((3, 1 + z.itemsize, 256), np.uint32)
    return (z, bounds, 2, counts), lambda _: (counts,)


def _choose_groups(_wide: int) -> Iterator[Call]:
    yield _choosing(6)
    yield _choosing(1)


def _choosing(limit: int) -> Call:
    """Seven runs, of which neighbours are alike."""
    runs = 7
    counts = np.zeros((runs, 3, 256), np.uint32)
    for run in range(runs):
        words = noise(600, run // 2)
        values = (words >> np.uint64(63 - 3 * (run // 2))) * (words & np.uint64(1))
        counts[run, 0] = np.bincount(values.astype(np.int64), minlength=256)[:256]
        counts[run, 1:, : 40 * (run // 3)] = run
    bounds, digit_bits = np.arange(runs + 1) * 600, np.zeros(runs, np.int64)
    work, pair = np.zeros((_WORK, 256)), np.zeros((3, 256), np.uint32)
    arguments = (bounds, counts, 1.0, limit, digit_bits, work, np.zeros(runs, np.int64), pair)
    return arguments, lambda left: (bounds[: left + 1], digit_bits[:left])


def _rotate_split(uint: Any) -> Iterator[Call]:
    planes = [np.empty(1003, np.uint8) for _ in range(np.dtype(uint).itemsize)]
    yield (noise(1003, 6).astype(uint), *planes), lambda _: planes


def _rotate_join(uint: Any) -> Iterator[Call]:
    out = np.empty(1003, uint)
    planes = [noise(1003, 7 + plane).astype(np.uint8) for plane in range(out.itemsize)]
    yield (*planes, out), lambda _: (out,)


_CALLS: Final[dict[str, Callable[[int], Iterator[Call]]]] = {
    "ulp_zigzag_16": lambda _: _zigzag(np.uint16),
    "ulp_zigzag_32": lambda _: _zigzag(np.uint32),
    "count_keys": _count_keys,
    "exponent_order": _exponent_order,
    "place_values": _place_values,
    "unplace_values": _place_values,
    "restore_16": lambda _: _restore(np.uint16),
    "restore_32": lambda _: _restore(np.uint32),
    "pack_digits": _pack_digits,
    "take_tails": _take_tails,
    "take_plane": _take_plane,
    "decode_groups": _decode_groups,
    "count_values": _count_values,
    "choose_groups": _choose_groups,
    "rotate_split_16": lambda _: _rotate_split(np.uint16),
    "rotate_split_32": lambda _: _rotate_split(np.uint32),
    "rotate_join_16": lambda _: _rotate_join(np.uint16),
    "rotate_join_32": lambda _: _rotate_join(np.uint32),
}
KERNELS: Final = tuple(_CALLS)
_DIGESTS: Final = table(
    """
    ulp_zigzag_16 10a987dbbb7b5ead
    ulp_zigzag_32 f1370fdeca635ae4
    count_keys db5bab9834067d52 db5bab9834067d52
    exponent_order cbe7a4152d0609b5 cbe7a4152d0609b5 58652d5abf0fb232 58652d5abf0fb232
    place_values f0bab6cd88a5feeb f0bab6cd88a5feeb c672ff78984664e7 c672ff78984664e7
    unplace_values fbdf43dd20293a15 fbdf43dd20293a15 89cfd0866327076b 89cfd0866327076b
    restore_16 c5d627dd6636f023
    restore_32 e942436d8ea46a0d
    pack_digits 081ddc293b2dda17 6553dbec4b162fa6 24e1fbeca728edd3 20cd2bd02e9947e7
    pack_digits 081ddc293b2dda17 6553dbec4b162fa6 24e1fbeca728edd3 20cd2bd02e9947e7
    take_tails 273ec20b062cabf2 273ec20b062cabf2 470aac125bf0fa8d 470aac125bf0fa8d
    take_plane dd1110d42e67b1d2 dd1110d42e67b1d2
    decode_groups 049a8c7a81cd7a8d 049a8c7a81cd7a8d 609c9989bdd8c00f 609c9989bdd8c00f
    decode_groups 6b462880a921b227
    count_values b96108fa120ecffb 0d2f2b88da865ff9
    choose_groups a442360a4f70433a eca7a604e8ae48c2
    rotate_split_16 ae05195a53312682
    rotate_split_32 3340f21546cd3b80
    rotate_join_16 0ca78a802f8f1bbd
    rotate_join_32 c42045746e8a16a7
    """
)
