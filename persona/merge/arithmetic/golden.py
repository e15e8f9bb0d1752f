"""The golden cases of `loops` (see `persona.codec.native.golden`).

`merge_chunk` merges the hard elements of `trial` with all terms, and with one to four, which have loops of
their own; `persona.merge.reference` computes the same digests. `scripts/golden.py` printed the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from persona.codec.elements import BF16, F16, F32
from persona.codec.golden import changes, weights
from persona.codec.native.golden import Case, table
from persona.merge.arithmetic import cpu, trial
from persona.merge.arithmetic.layout import BLOCK
from persona.merge.codes import Elect, Weigh

Array = npt.NDArray[Any]
Call = tuple[tuple[Any, ...], Callable[[int], Sequence[Array]]]

N: Final = 2500
"""Elements: more than a block."""
_TYPES: Final = ((np.uint16, BF16.code), (np.uint32, F32.code))


def cases(kernel: str, wide: int) -> Iterator[Case]:
    """The golden cases of a kernel. wide: whether it may take elements out of vectors."""
    digests = iter(_DIGESTS.get(kernel, ()))
    for arguments, results in _CALLS[kernel](wide):
        yield Case(kernel, arguments, results, next(digests, ""))


def few_terms() -> Iterator[trial.Case]:
    """Cases of one to four votes: of steps, with full strength, and of steps and numbers in turn.

    They lack the elements that may overflow. With one of these, the whole block would be computed again by
    the loops that are not written out.
    """
    case = trial.cases()[0]
    small = ((np.vstack([case.base, case.after]) & 0x7FFF) < 0x7000).all(axis=0)
    base, after, z = case.base[small], case.after[:, small], case.z[:, small]
    case = replace(case, base=base, order=np.arange(base.size, dtype=np.uint32))
    for itself, mixed in ((False, False), (True, False), (True, True)):
        for terms in (1, 2, 3, 4):
            arguments = case.arguments
            rules, alpha = arguments.rules, arguments.alpha[:terms].copy()
            if itself:
                rules, alpha[:2] = replace(rules, lambda_=1.0), 1.0
            theta, add = arguments.theta[:terms], arguments.add[:terms]
            fewer = replace(arguments, theta=theta, alpha=alpha, add=add, rules=rules)
            made = replace(case, after=after[:terms], z=z[:terms], arguments=fewer)
            yield _in_turn(made) if mixed else made


def _in_turn(case: trial.Case) -> trial.Case:
    """The case with t in place of the steps in its last row, and in every other one before."""
    is_numbers = np.arange(len(case.z))[::-1] % 2 == 0
    row = np.cumsum(~is_numbers) - 1
    row_of = np.where(is_numbers, row - np.arange(row.size), row).astype(np.int32)
    t = _bf16(case.after[is_numbers]) - _bf16(case.base)
    return replace(case, z=case.z[~is_numbers], after=case.after[~is_numbers], numbers=t, row_of=row_of)


def _bf16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _merge_chunk(_wide: int) -> Iterator[Call]:
    for case in (*trial.cases(), *few_terms()):
        yield _merging(case)


def _merging(case: trial.Case) -> Call:
    out = np.empty_like(case.base)
    z = np.ascontiguousarray(case.z)
    arguments = cpu.kernel_arguments(replace(case, z=z).chunk, case.arguments, out)
    return arguments, lambda _: (out,)


def _chunks() -> Iterator[tuple[Array, Array, int]]:
    """(base, z, code) of each element type that has a variant of its own."""
    for uint, code in _TYPES:
        yield weights(uint, N), changes(uint, N) & uint(0xFF), code


def _sum_of_signs(_wide: int) -> Iterator[Call]:
    for base, z, code in _chunks():
        for weigh, elect in ((Weigh.BEFORE, Elect.MASS), (Weigh.AFTER, Elect.COUNT)):
            both = np.stack([z, z[::-1]])
            alpha, cuts = np.array([0.5, -0.75], np.float32), np.array([1, 0x3B000000], np.uint32)
            scratch, words = np.empty((7, BLOCK), np.float32), np.empty((3, BLOCK), np.uint32)
            numbers, row_of = both[:1].astype(np.float32), np.array([0, -1], np.int32)
            for rows in (np.arange(2, dtype=np.int32), row_of):
                chunk = (base, both, numbers, rows)
                yield (*chunk, cuts, alpha, int(weigh), int(elect), code, scratch, words), lambda _: ()


def _scatter(_wide: int) -> Iterator[Call]:
    for base, _, _ in _chunks():
        yield _scattering(base)


def _scattering(values: Array) -> Call:
    out, order = np.empty_like(values), (np.arange(N) * 1009 % N).astype(np.uint32)
    return (values, order, N, out), lambda _: (out,)


def _add_differences(_wide: int) -> Iterator[Call]:
    for uint, code in (*_TYPES, (np.uint16, F16.code)):
        for first in (0, 1):
            yield _adding_differences(weights(uint, N), changes(uint, N), code, first)


def _adding_differences(base: Array, z: Array, code: int, first: int) -> Call:
    z[::3] = 0
    out = (weights(np.uint32, N) & np.uint32(0xBFFFFFFF)).view(np.float32)
    return (base, z, np.float32(-0.3), first, code, out), lambda _: (out,)


def _count_high(_wide: int) -> Iterator[Call]:
    for base, z, code in _chunks():
        yield _counting_high(base, z, code)


def _counting_high(base: Array, z: Array, code: int) -> Call:
    histogram = np.zeros(1 << 16, np.int64)
    return (base, z, code, histogram), lambda _: _filled(histogram)


def _count_low(_wide: int) -> Iterator[Call]:
    for base, z, code in _chunks():
        for counter in (np.uint32, np.int64):
            yield _counting_low(base, z, code, counter)


def _counting_low(base: Array, z: Array, code: int, counter: Any) -> Call:
    rows = np.full(1 << 16, -1, np.int32)
    rows[0x3900:0x3980], rows[0x3A00:0x3B00] = 0, 1
    histograms = np.zeros((2, 1 << 16), counter)
    return (base, z, code, rows, histograms), lambda _: _filled(histograms)


def _numbers() -> Array:
    return (weights(np.uint32, N) & np.uint32(0xBFFFFFFF)).view(np.float32)


def _count_numbers_high(_wide: int) -> Iterator[Call]:
    histogram = np.zeros(1 << 16, np.int64)
    yield (_numbers(), histogram), lambda _: _filled(histogram)


def _count_numbers_low(_wide: int) -> Iterator[Call]:
    for counter in (np.uint32, np.int64):
        yield _counting_numbers_low(counter)


def _counting_numbers_low(counter: Any) -> Call:
    _, _, _, rows, histograms = _counting_low(*next(_chunks()), counter)[0]
    return (_numbers(), rows, histograms), lambda _: _filled(histograms)


def _filled(counts: Array) -> tuple[Array, Array]:
    flat = counts.reshape(-1)
    places = np.flatnonzero(flat)
    return places, flat[places].astype(np.int64)


def _count_values(wide: int) -> Iterator[Call]:
    for base, z, code in _chunks():
        for vectors in (0, wide):
            for places in (64, 8192):  # too few, and enough
                yield _counting_values(base, z, code, vectors, places)


def _counting_values(base: Array, z: Array, code: int, wide: int, places: int) -> Call:
    keys, counts = np.zeros(places, np.uint32), np.zeros(places, np.int64)
    scratch = np.empty((2, BLOCK + 64), np.uint32)
    return (base, z, code, wide, keys, counts, scratch), lambda _: (keys, counts)


_CALLS: Final[dict[str, Callable[[int], Iterator[Call]]]] = {
    "merge_chunk": _merge_chunk,
    "sum_of_signs": _sum_of_signs,
    "scatter": _scatter,
    "add_differences": _add_differences,
    "count_high": _count_high,
    "count_low": _count_low,
    "count_numbers_high": _count_numbers_high,
    "count_numbers_low": _count_numbers_low,
    "count_values": _count_values,
}
KERNELS: Final = tuple(_CALLS)
_DIGESTS: Final = table(
    """
    merge_chunk 281f15a05c17ab6e 860b9828a98b5844 3ba94407bd4a8baa 0f3a08ea9043bf36
    merge_chunk 58e80c5334a98d21 02d61247e5a0581b 99f0d07bac2d41d5 6372d88ce0ca0702
    merge_chunk 48849fb199a9a63a 20663c6a45f22002 8c99bfe96ef1196c 282ba606bf69b01a
    merge_chunk be496047ca2b2967 be156f79eecc91c5 b108eef5b980a59d 6aea0fcb5332a36c
    merge_chunk a27979506396c5cd c56443a067634c2d e248e0bfa43dfe39 fa4ac9e3e03e8dd7
    merge_chunk 9786be5ba3c3d980
    sum_of_signs 84d2929f52c1e63d 9ab41b3f990730f7 fa993b91bbaa9d10 45e89627c00ccbee
    sum_of_signs d36533760ddab451 9ab41b3f990730f7 204c941924cab985 45e89627c00ccbee
    scatter 5270c598f8f7124b 7ed2048f15b1f2c5
    add_differences 2a2425bf0e9ec3f9 5fb61767090c3889 07a7e86c53965db9 c3bf056f7c3345a3
    add_differences 61f18efe70820a50 9bcbf3554fc34e97
    count_high 9af074b74b304bcd af7bde8ce30f850f
    count_low bdefc69efd906e92 bdefc69efd906e92 71e0a99173564931 71e0a99173564931
    count_numbers_high 257a07669aa60672
    count_numbers_low 84495c554859c104 84495c554859c104
    count_values 13434f59c6b84566 fe1814dbe316e97f 13434f59c6b84566 fe1814dbe316e97f
    count_values dbcf8718ce677fa0 0692a54588cbe146 dbcf8718ce677fa0 0692a54588cbe146
    """
)
