"""The self-test of a kernel: hard elements that it must merge correctly before the process uses it.

They are zeros, subnormal numbers and quotients, ties, overflows and NaN, with α of 0, 1 and 3e38, in rows of
steps and of numbers. A compiler
decides what runs. Triton before 3.6 divided with flush to zero, and a miscompiled loop can be as hard to see
in random numbers, so versions are no proof. `persona.merge.reference` computed the digests below, and the
tests compute them again.
"""

from __future__ import annotations

from dataclasses import field, replace
from functools import cache
from typing import Any, Final

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from persona.codec.elements import BF16, F16, F32, ElementType
from persona.frozen import dataclass
from persona.merge.arithmetic.arguments import DecodedChunk, MergeArguments
from persona.merge.rules import KEEP_NOTHING, NO_TRIM, MergeRules

Bits = NDArray[Any]

ELEMENTS: Final = 512
"""Of a case: one block of the CUDA kernel."""
_DIGESTS: Final = {
    "BF16 usual": "281f15a05c17ab6e",
    "BF16 unusual": "860b9828a98b5844",
    "BF16 mixed": "3ba94407bd4a8baa",
    "F16 usual": "0f3a08ea9043bf36",
    "F16 unusual": "58e80c5334a98d21",
    "F16 mixed": "02d61247e5a0581b",
    "F32 usual": "99f0d07bac2d41d5",
    "F32 unusual": "6372d88ce0ca0702",
    "F32 mixed": "48849fb199a9a63a",
}


@dataclass(frozen=True)
class Case:
    """One chunk and its merge arguments, voting terms first; arrays as in `DecodedChunk`.

    after: the fine-tunes' own elements, uint[Kz, n]; scattered: whether `order` is used, or the elements stay
    in place.
    """

    name: str
    base: Bits
    z: Bits
    after: Bits
    order: NDArray[np.uint32]
    scattered: bool
    arguments: MergeArguments
    numbers: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, ELEMENTS), np.float32))
    row_of: NDArray[np.int32] | None = None

    @property
    def chunk(self) -> DecodedChunk:
        """The chunk as the kernels of the CPU take it."""
        present = list(range(self.arguments.alpha.size))
        in_order = not self.scattered
        return DecodedChunk(present, self.base, self.z, self.order, self.numbers, self.row_of, in_order)

    def passes(self, out: Bits, not_finite: int) -> bool:
        """Whether these are the merged elements, and as many of them not finite."""
        return self.digest(out, not_finite) == _DIGESTS[self.name]

    @staticmethod
    def digest(out: Bits, not_finite: int) -> str:
        """The digest that `passes` compares."""
        little = out.astype(out.dtype.newbyteorder("<")).tobytes()
        return blake3(little + not_finite.to_bytes(8, "little")).hexdigest()[:16]


@cache
def cases() -> tuple[Case, ...]:
    """Three cases for each element type.

    With usual rules in place, with unusual ones scattered, and with rows of numbers between rows of steps.
    """
    return tuple(
        case
        for element in (BF16, F16, F32)
        for case in (
            _case("usual", element, _usual(element), scattered=False),
            _case("unusual", element, _unusual(element), scattered=True),
            _mixed(element),
        )
    )


def _usual(element: ElementType) -> MergeArguments:
    """Four votes: sums, quotients and products that are subnormal, tie or overflow."""
    rules = MergeRules(density=0.5, lambda_=0.75)
    theta = (NO_TRIM, NO_TRIM, 0.0078125, NO_TRIM)
    return _arguments(theta, (0.75, -0.5, 0.9, 0.1), (False,) * 4, rules, element)


def _unusual(element: ElementType) -> MergeArguments:
    """Strengths of 1, 0 and nearly the largest, a vector trimmed away, and one that is added."""
    rules = MergeRules(density=0.5, on_tie="positive", divide="weight")
    theta = (NO_TRIM, NO_TRIM, NO_TRIM, KEEP_NOTHING, NO_TRIM)
    return _arguments(theta, (1.0, 0.0, 3e38, 0.5, 1.0), (False,) * 4 + (True,), rules, element)


def _arguments(
    theta: tuple[float, ...],
    alpha: tuple[float, ...],
    add: tuple[bool, ...],
    rules: MergeRules,
    element: ElementType,
) -> MergeArguments:
    return MergeArguments(
        np.array(theta, np.float32),
        np.array(alpha, np.float32),
        np.array(add, np.bool_),
        rules,
        element.code,
    )


def _case(
    name: str, element: ElementType, arguments: MergeArguments, *, scattered: bool, rows: int | None = None
) -> Case:
    """A case with `rows` rows of steps, by default one for each term."""
    places = np.arange(ELEMENTS)
    hard = _hard(element)
    base = hard[places % hard.size]
    count = arguments.alpha.size if rows is None else rows
    after = np.stack([hard[(places // hard.size * (3 * k + 1) + 5 * k) % hard.size] for k in range(count)])
    row, kind = np.arange(count)[:, None], (places + places // hard.size) % 4
    steps = (places * (2 * row + 7) >> 2) % 5
    after = np.where(kind == 0, base + steps.astype(base.dtype), after)  # as in fine-tunes
    after = np.where((kind == 1) & (places // 4 % count != row), base, after)  # one alone
    finite = ~_strange(base, element) & ~_strange(after, element)
    after = np.where(finite, after, base).astype(base.dtype)
    order = (places * 101 % ELEMENTS).astype(np.uint32) if scattered else places.astype(np.uint32)
    return Case(f"{element.name} {name}", base, _steps(base, after), after, order, scattered, arguments)


def _mixed(element: ElementType) -> Case:
    """Two rows of steps and three of numbers, which may be infinite or NaN; one of each is added.

    A term of each kind has full strength, but only a row of steps may come out as itself. One is stronger.
    """
    rules = MergeRules(density=0.5, on_tie="positive")
    theta = (NO_TRIM, NO_TRIM, 0.0078125, NO_TRIM, NO_TRIM)
    arguments = _arguments(theta, (1.0, 1.0, -1.5, 0.0, 1.0), (False,) * 4 + (True,), rules, element)
    case = _case("mixed", element, arguments, scattered=False, rows=2)
    places, hard = np.arange(ELEMENTS), _hard(F32)
    hard = np.concatenate([hard, np.array([0x7F800000, 0xFF800000, 0x7FC00000], np.uint32)])
    t = np.stack([hard[(places * (7 * k + 3) + places // 64) % hard.size] for k in range(3)])
    small = (places[None] + np.arange(3)[:, None]) % 8 < 5
    t = np.where(small, np.uint32(0x3C000000) + (t & np.uint32(0x80FFFFFF)), t)
    t[(places // 8 + np.arange(3)[:, None]) % 4 == 0] = 0x80000000  # −0: unchanged
    row_of = np.array([-1, 0, -3, 1, -2], np.int32)
    return replace(case, numbers=t.astype(np.uint32).view(np.float32), row_of=row_of)


def _hard(element: ElementType) -> Bits:
    """Magnitudes at every edge of the type, both signs."""
    implicit = 1 << element.mantissa
    largest = (1 << element.width - 1) - implicit - 1
    one = ((1 << element.exponent - 1) - 1) << element.mantissa
    edges = [0, 1, 2, 3, implicit // 2 + 1, implicit - 1, implicit, implicit + 1, 2 * implicit + 1]
    edges += [one - 8 * implicit - 1, one - 1, one, one + 1, one + implicit // 2 + 1, one + 7 * implicit + 3]
    edges += [largest - implicit, largest - 1, largest, largest + 1, largest + 1 + implicit // 2]
    values = np.array(edges, element.uint)
    return np.concatenate([values, values | element.uint.type(1 << element.width - 1)])


def _strange(bits: Bits, element: ElementType) -> NDArray[np.bool_]:
    mask = bits.dtype.type(((1 << element.exponent) - 1) << element.mantissa)
    return np.asarray((bits & mask) == mask)


def _steps(base: Bits, after: Bits) -> Bits:
    """z of docs/format.md: the distance in ulps, zigzag."""
    top = base.dtype.type(1 << 8 * base.itemsize - 1)

    def mono(bits: Bits) -> Bits:
        return np.where(bits & top, ~bits, bits | top)

    distance = (mono(after) - mono(base)).view(f"i{base.itemsize}")
    return ((distance << 1) ^ (distance >> 8 * base.itemsize - 1)).view(base.dtype)
