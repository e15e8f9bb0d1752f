"""The self-test of a kernel: hard elements that it must merge correctly before the process uses it.

They are zeros, subnormal numbers and quotients, ties, overflows and NaN, with α of 0, 1 and 3e38. A compiler
decides what runs. Triton before 3.6 divided with flush to zero, and a miscompiled loop can be as hard to see
in random numbers, so versions are no proof. `persona.merge.reference` computed the digests below, and the
tests compute them again.
"""

from __future__ import annotations

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
    "BF16 usual": "86baf7ee4d70ee18",
    "BF16 unusual": "860b9828a98b5844",
    "F16 usual": "d519e19ad5bd3b8e",
    "F16 unusual": "58e80c5334a98d21",
    "F32 usual": "1aeeada461bc2b0c",
    "F32 unusual": "6372d88ce0ca0702",
}


@dataclass(frozen=True)
class Case:
    """One chunk and its merge arguments, voting terms first; arrays as in `DecodedChunk`.

    after: the fine-tunes' own elements, uint[K, n]; scattered: whether `order` is used, or the elements stay
    in place; not_finite: how many results are not finite.
    """

    name: str
    base: Bits
    z: Bits
    after: Bits
    order: NDArray[np.uint32]
    scattered: bool
    arguments: MergeArguments

    @property
    def chunk(self) -> DecodedChunk:
        """The chunk as the kernels of the CPU take it."""
        return DecodedChunk(list(range(len(self.z))), self.base, self.z, self.order)

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
    """Two cases for each element type: with and without unusual rules, scattered and in place."""
    return tuple(
        _case(element, arguments, scattered)
        for element in (BF16, F16, F32)
        for scattered, arguments in enumerate((_usual(element), _unusual(element)))
    )


def _usual(element: ElementType) -> MergeArguments:
    """Four votes: sums, quotients and products that are subnormal, tie or overflow."""
    rules = MergeRules(density=0.5, lambda_=0.75)
    theta = (NO_TRIM, NO_TRIM, 0.0078125, NO_TRIM)
    return _arguments(theta, (0.75, -0.5, 1.5, 0.1), (False,) * 4, rules, element)


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


def _case(element: ElementType, arguments: MergeArguments, scattered: int) -> Case:
    places = np.arange(ELEMENTS)
    hard = _hard(element)
    base = hard[places % hard.size]
    after = np.stack(
        [hard[(places // hard.size * (3 * k + 1) + 5 * k) % hard.size] for k in range(arguments.alpha.size)]
    )
    rows, kind = np.arange(len(after))[:, None], (places + places // hard.size) % 4
    steps = (places * (2 * rows + 7) >> 2) % 5
    after = np.where(kind == 0, base + steps.astype(base.dtype), after)  # as in fine-tunes
    after = np.where((kind == 1) & (places // 4 % len(rows) != rows), base, after)  # one alone
    finite = ~_strange(base, element) & ~_strange(after, element)
    after = np.where(finite, after, base).astype(base.dtype)
    order = (places * 101 % ELEMENTS).astype(np.uint32) if scattered else places.astype(np.uint32)
    name = f"{element.name} {'unusual' if scattered else 'usual'}"
    return Case(name, base, _steps(base, after), after, order, bool(scattered), arguments)


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
