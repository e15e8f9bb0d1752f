"""The golden cases of `draws` (see `persona.codec.native.golden`).

`scripts/golden.py` printed the digests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from persona.codec.elements import BF16, F16, F32
from persona.codec.golden import changes, weights
from persona.codec.native.golden import Case, table
from persona.merge.arithmetic.layout import BLOCK

Array = npt.NDArray[Any]
Call = tuple[tuple[Any, ...], Callable[[int], Sequence[Array]]]

N: Final = 2500
"""Elements: more than a block."""
FIRST: Final = (1 << 32) - 1000
"""The index of the first element, so that the upper word of the counter changes."""
KEY: Final = (np.uint32(0xA4093822), np.uint32(0x299F31D0))
BOTTOM: Final = 0x3800
FACTOR: Final = np.float32(1.7)
_TYPES: Final = ((np.uint16, BF16.code), (np.uint16, F16.code), (np.uint32, F32.code))
_CUTS: Final = (np.uint32(0x3A000000), np.uint32(0x3E000000))
_EVERY: Final = (np.uint32(1), np.uint32(0xFFFFFFFF))


def cases(kernel: str, wide: int) -> Iterator[Case]:
    """The golden cases of a kernel. `wide` has no effect on these kernels."""
    digests = iter(_DIGESTS.get(kernel, ()))
    for arguments, results in _CALLS[kernel]():
        yield Case(kernel, arguments, results, next(digests, ""))


def _below() -> list[tuple[tuple[np.uint32, np.uint32], Array]]:
    """Cut-offs without draws, and draws without cut-offs: one number, and a table."""
    none, one = np.empty(0, np.int64), np.array([3 << 30], np.int64)
    by_size = np.arange(0, 1 << 32, 1 << 22, dtype=np.int64)
    return [(_CUTS, none), (_EVERY, one), (_EVERY, by_size)]


def _filter_steps() -> Iterator[Call]:
    shuffled = (np.arange(N) * 1009 % N).astype(np.uint32)
    for uint, code in _TYPES:
        for cuts, below in _below():
            for order in (shuffled, np.empty(0, np.uint32)):
                yield _filtering(uint, code, order, cuts, below)


def _filtering(uint: Any, code: int, order: Array, cuts: tuple[Any, Any], below: Array) -> Call:
    z, scratch = changes(uint, N) & uint(0xFF), np.empty((4, BLOCK), np.uint32)
    arguments = (weights(uint, N), z, order, FIRST, code, *cuts, *KEY, BOTTOM, below, scratch)
    return arguments, lambda _: (z,)


def _filter_numbers() -> Iterator[Call]:
    one = np.float32(1)
    for cuts, below in _below():
        for divide in (False, True)[: 1 + bool(below.size)]:
            yield _filtering_numbers(cuts, below, divide, one)
    for cuts, below in _below()[1:]:
        yield _filtering_numbers(cuts, below, False, FACTOR)


def _filtering_numbers(cuts: tuple[Any, Any], below: Array, divide: bool, factor: np.float32) -> Call:
    t = weights(np.uint32, N).view(np.float32).copy()
    divisors = (below / 2**32 if divide else np.empty(0)).astype(np.float32)
    scratch = np.empty((4, BLOCK), np.uint32)
    arguments = (t, t.view(np.uint32), FIRST, *cuts, *KEY, BOTTOM, below, divisors, factor, scratch)
    return arguments, lambda _: (t,)


def _sum_magnitudes() -> Iterator[Call]:
    t = np.concatenate([weights(np.uint32, N), np.arange(1 << 15, dtype=np.uint32) << 16])
    sums = np.zeros((4, 256), np.int64)
    yield (t, sums), lambda _: (sums,)


_CALLS: Final[dict[str, Callable[[], Iterator[Call]]]] = {
    "filter_steps": _filter_steps,
    "filter_numbers": _filter_numbers,
    "sum_magnitudes": _sum_magnitudes,
}
KERNELS: Final = tuple(_CALLS)
_DIGESTS: Final = table(
    """
    filter_steps 02bdc7275b75e73b 02bdc7275b75e73b a474c932aaad68e4 5b23889708eadfdf
    filter_steps d00266a962864186 b31edf263feef563 d53394a2d6483931 d53394a2d6483931
    filter_steps a474c932aaad68e4 5b23889708eadfdf b7b4901ab774d8e8 9ec5941b54c79b34
    filter_steps 1282fb7cd3f53f83 1282fb7cd3f53f83 4fcde24c632e494a c15b84a98e8a312e
    filter_steps 5a2e4afd7425543e 5a2e4afd7425543e
    filter_numbers d8f7ba0ea0943484 8fb9819a404543fc ff6f433f9a4d8243 4d090482b46a363c
    filter_numbers 50aebf61a515b746 26360600c7a71acb 50b02fb71629e9e9
    sum_magnitudes 4da19c32ff802005
    """
)
