"""The registry of the merge rules and of all writings of a coordinate, and mixtures that are hard for each.

The rules stand in the reference, in loops over terms, in an exact form for single elements, in loops that are
written out for few terms, and in a Triton kernel with and without its careful branches. A mixture is steered
into a writing by something that changes no result: a term that changes nothing, or an element of the base
that is not finite. A block of one or two elements shows whether the fast loops notice such a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from types import ModuleType
from typing import Any

import numpy as np
import torch

from persona.merge import reference
from persona.merge.arithmetic import cpu
from persona.merge.arithmetic.arguments import MergeArguments
from persona.merge.arithmetic.fused import MOST_TERMS
from persona.merge.arithmetic.layout import BLOCK
from persona.merge.reference import Numbers
from persona.merge.rules import NO_TRIM, MergeRules, MergeTerm
from persona.objects.rules import CHOICES
from tests.merge.arithmetic import cuda_kernels
from tests.merge.arithmetic.operands import cut_off, hard_elements, hard_numbers, undoing
from tests.merge.chunks import CODE, EXPONENT, UINT, Change, Chunk, as_change, bits, rounded, tensor

Array = np.ndarray[Any, Any]
Result = tuple[Array, int]
"""(the merged elements, how many became not finite)."""

AXES = ("weigh", "elect", "on_tie", "merge", "divide")
"""The axes that a coordinate depends on; `trim` and `rank` only move its cut-offs."""
RULES = [dict(zip(AXES, words, strict=True)) for words in product(*(CHOICES[axis] for axis in AXES))]
"""Every combination of their words."""
USUAL = {"weigh": "before", "elect": "mass", "merge": "mean"}
WRITTEN_OUT = [axes for axes in RULES if axes == axes | USUAL]
"""The combinations with loops written out for a few terms that vote."""
ALPHAS = (
    0.0,
    1.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    0.3,
    0.8,
    2.0,
    -2.0,
    -3.0,
    1.5,
    1.0000001,
    1e-30,
    1e-44,
    3e38,
    -3e38,
)
DTYPES = ("BF16", "BF16", "F16", "F32")
LIMITS = (1.0, 1.5, 4.0, np.inf)
"""The largest |α| of a mixture: what is stronger than 1, 2 or everything has branches of its own."""
LAMBDAS = (1.0, 1.0, 1.0, 1.0, 0.5, -1.5, 0.3, 0.0, 3e38)
HUGE = (3e38, -3e38)
"""Strengths whose sum overflows."""
FAINT = (1.0, 1.0, 1e-44)
"""Strengths of which one makes most changes 0, beside terms that may come out as themselves."""
LOUD = (3e38, 1.0, -0.5)
"""Strengths of which one makes a change overflow, though others may outvote it."""
TERMS = 12
ALONE = 32
"""Elements of a mixture, at most, that are merged alone, or beside one for which no term is left out."""


@dataclass(frozen=True)
class Mixture:
    """One chunk in element order with its terms in canonical order.

    base: uint[n]; changes: of each term, uint[n] or float32[n]; theta and alpha: float32[K]; add: bool[K].
    calm: whether every number that is computed is finite. One that is not hides the fast loops: the whole
    block is computed again.
    """

    dtype: str
    base: Array
    changes: list[Change]
    theta: Array
    alpha: Array
    add: Array
    rules: MergeRules
    calm: bool

    def with_term(self, alpha: float, *, add: bool, place: int | None = None) -> Mixture:
        """With a term that changes nothing at a place among the terms, or as the last."""
        k = len(self.changes) if place is None else place
        return replace(
            self,
            changes=[*self.changes[:k], self.base.copy(), *self.changes[k:]],
            theta=np.insert(self.theta, k, np.float32(NO_TRIM)),
            alpha=np.insert(self.alpha, k, np.float32(alpha)),
            add=np.insert(self.add, k, add),
        )

    def with_element(self, word: int) -> Mixture:
        """With a first element that no term changes."""
        first = self.base.dtype.type(word)
        changes = [
            np.append(one.dtype.type(0 if one.dtype == np.float32 else word), one) for one in self.changes
        ]
        return replace(self, base=np.append(first, self.base), changes=changes)

    def at(self, places: Array) -> Mixture:
        """With these elements only."""
        return replace(self, base=self.base[places], changes=[one[places] for one in self.changes])

    @property
    def acting(self) -> Array:
        """Where every term changes something."""
        acting = np.ones(self.base.size, np.bool_)
        for one in self.changes:
            acting &= one != (0 if one.dtype == np.float32 else self.base)
        return acting

    def votes_first(self) -> Mixture:
        """With the terms that vote before those that add."""
        order = np.argsort(self.add, kind="stable")
        changes = [self.changes[k] for k in order]
        return replace(
            self, changes=changes, theta=self.theta[order], alpha=self.alpha[order], add=self.add[order]
        )

    @property
    def chunk(self) -> Chunk:
        """The chunk as kernels take it."""
        return Chunk.of(self.base, self.changes, self.dtype)

    @property
    def terms(self) -> list[MergeTerm]:
        """The terms as the reference takes them."""
        return [
            MergeTerm(f"{k:064d}", float(alpha), join="add" if add else "vote")
            for k, (alpha, add) in enumerate(zip(self.alpha, self.add, strict=True))
        ]


def signs_by_reference(mixture: Mixture) -> int:
    """Σ sign(e)."""
    base = tensor(mixture.base, mixture.dtype)
    taus = [reference.tau(base, as_change(change, mixture.dtype)) for change in mixture.changes]
    theta = [float(one) for one in mixture.theta]
    return reference._majority(taus, theta, mixture.terms, mixture.rules, "w")


def signs_by_cpu(mixture: Mixture) -> int:
    votes = ~mixture.add
    chunk = mixture.chunk.voting(mixture.add).decoded
    theta, alpha = mixture.theta[votes], mixture.alpha[votes]
    return cpu.sum_of_signs(chunk, theta, alpha, mixture.rules, CODE[mixture.dtype])


def signs_by_triton(cuda: ModuleType, mixture: Mixture) -> int:
    given = mixture.votes_first()
    chunk = given.chunk
    arrays = (chunk.base, chunk.z, chunk.numbers, chunk.row_of)
    rows = [None if array is None else torch.from_numpy(array).to(cuda.WHERE) for array in arrays]
    terms = cuda.Terms.of(given.theta, given.alpha, given.add, given.rules, cuda.WHERE)
    signs = torch.zeros(1, dtype=torch.int64, device=cuda.WHERE)
    with np.errstate(all="ignore"):
        cuda.sum_of_signs(*rows, terms, given.rules, CODE[given.dtype], signs)
    return int(signs)


def by_reference(mixture: Mixture, majority: int) -> Result:
    """One more term that reaches the tensor and changes nothing keeps rule 3 away, which callers apply."""
    base = tensor(mixture.base, mixture.dtype)
    changes = [as_change(change, mixture.dtype) for change in mixture.changes]
    nothing = Numbers(torch.zeros(mixture.base.size))
    terms = [*mixture.terms, MergeTerm("f" * 64)]
    theta = [*(float(one) for one in mixture.theta), NO_TRIM]
    tie = mixture.rules.tie(majority)
    made = reference.merge_tensor(base, [*changes, nothing], theta, terms, mixture.rules, tie)
    return bits(made), reference.not_finite({"w": base}, {"w": made}).get("w", 0)


def _arguments(mixture: Mixture, majority: int) -> MergeArguments:
    code = CODE[mixture.dtype]
    return MergeArguments(mixture.theta, mixture.alpha, mixture.add, mixture.rules, code, majority)


def by_cpu(mixture: Mixture, majority: int) -> Result:
    out = np.full_like(mixture.base, 0xAAAA)
    bad = cpu.merge_chunk(mixture.chunk.decoded, _arguments(mixture, majority), out)
    return out, bad


def by_slice(mixture: Mixture, majority: int) -> Result:
    """In element order, from the fourth element of a tensor on."""
    chunk = mixture.chunk.in_place().decoded
    chunk = replace(chunk, order=chunk.order + np.uint32(3), in_order=True)
    out = np.full(mixture.base.size + 3, 0xAAAA, mixture.base.dtype)
    bad = cpu.merge_chunk(chunk, _arguments(mixture, majority), out)
    return out[3:], bad


def by_loops_over_terms(mixture: Mixture, majority: int) -> Result:
    """No loop is written out for a term that adds."""
    return by_cpu(mixture.with_term(1.0, add=True), majority)


def by_single_elements(mixture: Mixture, majority: int) -> Result:
    """A block with an element that is not finite is computed again, one element at a time."""
    shift, mask = EXPONENT[mixture.dtype]
    out, bad = by_cpu(mixture.with_element(mask << shift), majority)
    return out[1:], bad


def by_triton(cuda: ModuleType, mixture: Mixture, majority: int, *, ordered: bool = True) -> Result:
    given = mixture.votes_first()
    chunk = given.chunk if ordered else given.chunk.in_place()
    arguments = (chunk, given.theta, given.alpha, given.add, given.rules, given.dtype)
    return cuda_kernels.run(cuda, *arguments, majority=majority, ordered=ordered)


def by_triton_with_care(cuda: ModuleType, mixture: Mixture, majority: int) -> Result:
    """A term that is silent makes every branch careful. The elements stay in place."""
    return by_triton(cuda, mixture.with_term(0.0, add=False), majority, ordered=False)


def writings(cuda: ModuleType | None, calm: bool) -> dict[str, Callable[[Mixture, int], Result]]:
    """The writings, but the reference, that compute a mixture: whether all its numbers are finite decides."""
    found: dict[str, Callable[[Mixture, int], Result]] = {"loops written out": by_cpu, "a slice": by_slice}
    if calm:
        found["loops over terms"] = by_loops_over_terms
    else:
        found["single elements"] = by_single_elements
    if cuda is not None:
        found["Triton"] = lambda mixture, majority: by_triton(cuda, mixture, majority)
        if not calm:
            found["Triton with care"] = lambda mixture, majority: by_triton_with_care(cuda, mixture, majority)
    return found


def check(cuda: ModuleType | None, mixture: Mixture) -> None:
    """Every writing against the reference, the kernel only if it is given; raises `AssertionError`."""
    majority = 0
    if mixture.rules.elect != "none":
        majority = signs_by_reference(mixture)
        assert signs_by_cpu(mixture) == majority
        assert cuda is None or signs_by_triton(cuda, mixture) == majority
    want, strange = by_reference(mixture, majority)
    for name, writing in writings(cuda, mixture.calm).items():
        out, bad = writing(mixture, majority)
        np.testing.assert_array_equal(out, want, name)
        assert bad == strange, name
    not_finite = ~tensor(want, mixture.dtype).isfinite().numpy()
    size = np.abs(tensor(mixture.base, mixture.dtype).float().numpy())
    finite = np.flatnonzero(mixture.acting & ~not_finite)
    beside = finite[np.argmax(size[finite])][None] if finite.size else finite  # it comes last in a block
    for number, place in enumerate(np.flatnonzero(not_finite)[:ALONE]):
        few = np.append(place, beside[: number % 2])
        out, _ = by_cpu(mixture.at(few), majority)
        np.testing.assert_array_equal(out, want[few], "a small block")


def mixtures(seed: int, n: int) -> Iterator[Mixture]:
    """Mixtures, calm and not, for each combination of the rules; more where there is more to go wrong."""
    for place, axes in enumerate(RULES):
        random = np.random.default_rng([seed, place])
        yield _drawn(random, axes, n, calm=True)
        yield _drawn(random, axes, n, calm=False)
        if axes in WRITTEN_OUT:
            for count, mixed in product(range(1, MOST_TERMS + 1), (False, True)):
                yield _few(random, axes, n, count, "any", mixed=mixed)
        if (axes["merge"], axes["divide"]) == ("mean", "strength"):
            for _ in range(3):
                yield _drawn(random, axes, n, calm=True)
        if axes["merge"] == "mean":
            yield _drawn(random, axes, n, calm=False, strengths=HUGE)
        if axes["weigh"] == "after":
            for calm in (True, True, False):
                yield _drawn(random, axes, n, calm=calm, strengths=FAINT if calm else LOUD)


def few_terms(seed: int, n: int) -> Iterator[Mixture]:
    """Mixtures for each loop that is written out, with each combination of the rules that it takes."""
    for place, axes in enumerate(WRITTEN_OUT):
        random = np.random.default_rng([seed, place])
        for count, mixed in product(range(1, MOST_TERMS + 1), (False, True)):
            for kind in ("any", "whole", "negative"):
                yield _few(random, axes, n, count, kind, mixed=mixed)
            for kind in ("any", "whole"):
                yield _few(random, axes, n // 3, count, kind, mixed=mixed, calm=False)
            for kind in ("any", "whole"):
                yield _few(random, axes, BLOCK + 8, count, kind, mixed=mixed)


def two_blocks(seed: int) -> Iterator[Mixture]:
    """Mixtures of a block and a few elements more, calm and not, for each combination of the rules.

    Some terms change nothing in the first block.
    """
    for (place, axes), calm, more in product(enumerate(RULES), (False, True), (8, 300)):
        random = np.random.default_rng([seed, place, calm, more])
        made = _drawn(random, axes, BLOCK + more, calm=calm)
        first = made.chunk.order[:BLOCK]
        for change in made.changes:
            if random.random() < 0.25:
                change[first] = 0 if change.dtype == np.float32 else made.base[first]
        yield made


def _drawn(
    random: np.random.Generator,
    axes: dict[str, str],
    n: int,
    *,
    calm: bool,
    strengths: tuple[float, ...] = (),
) -> Mixture:
    """With strengths of these if any are given."""
    count = int(random.integers(1, 7))
    most = random.choice(LIMITS[:3] if calm else [*LIMITS, np.inf, np.inf])
    alpha = random.choice([one for one in ALPHAS if abs(one) <= most], count)
    alpha = random.choice(strengths, count) if strengths else alpha
    alpha = -abs(alpha) if random.random() < 0.25 and strengths != FAINT else alpha
    numbers = random.random(count) < 0.4
    add = random.random(count) < 0.15
    dtype = DTYPES[int(random.integers(len(DTYPES)))]
    lambda_ = float(random.choice(LAMBDAS[: -1 if calm else None]))
    seed = int(random.integers(1 << 32))
    kinds = axes, alpha.tolist(), add.tolist(), numbers.tolist()
    return mixture(seed, dtype, n, *kinds, lambda_, calm=calm)


def _few(
    random: np.random.Generator,
    axes: dict[str, str],
    n: int,
    count: int,
    kind: str,
    *,
    mixed: bool,
    calm: bool = True,
) -> Mixture:
    """A few terms of bf16 that vote, mostly none stronger than 1: what loops are written out for.

    kind: "negative": all strengths are, and λ rounds; "whole": a term of steps may come out as itself, or
    another one that changes nothing. mixed: at least one term is given as numbers. Half of the mixtures have
    one more term, anywhere, that changes nothing, so a term's place is not that among those that do.
    """
    most = 4.0 if random.random() < 0.25 else 1.0
    alpha = random.choice(sorted({abs(one) for one in ALPHAS if 0.1 <= abs(one) <= most}), count)
    alpha = np.copysign(alpha[0] if random.random() < 0.5 else alpha, random.choice([1, 1, -1], count))
    lambda_ = float(random.choice(LAMBDAS[3 : -1 if calm else None]))
    first, *others = random.permutation(count)
    numbers = (random.random(count) < 0.5) & mixed
    numbers[first] = mixed
    if kind == "whole":
        numbers[others[:1]], alpha[others[:1]], lambda_ = False, 1.0, 1.0
    elif kind == "negative":
        alpha, lambda_ = -random.choice([0.3, 0.5, 0.8, 1.0], count), random.choice([0.3, -1.5])
    kinds = axes, alpha.tolist(), [False] * count, numbers.tolist()
    made = mixture(int(random.integers(1 << 32)), "BF16", n, *kinds, lambda_, calm=calm)
    if (kind == "whole" and not others) or random.random() < 0.5:
        strength = 1.0 if kind == "whole" else 0.25
        made = made.with_term(strength, add=False, place=int(random.integers(count + 1)))
    return made


def mixture(
    seed: int,
    dtype: str,
    n: int,
    axes: dict[str, str],
    alpha: list[float],
    add: list[bool],
    numbers: list[bool],
    lambda_: float,
    *,
    calm: bool,
) -> Mixture:
    """A mixture of elements of many styles beside each other; calm: without those that overflow."""
    random = np.random.default_rng(seed)
    rules = MergeRules(**axes, lambda_=float(np.float32(lambda_)))
    base, afters = hard_elements(random, seed, dtype, n, len(alpha), calm=calm)
    finite = np.isfinite(tensor(base, dtype).float().numpy())
    before = np.where(finite, tensor(base, dtype).float().numpy(), np.float32(np.inf))
    undone = np.flatnonzero((np.abs(before) < 8) & (random.random(n) < 0.1))
    before = before[undone].astype(np.float64)
    factors = undoing(rules, np.array(alpha), np.array(numbers) & ~np.array(add), np.array(add))
    for after, factor in zip(afters, factors, strict=True):
        after[undone] = rounded((before * (1 - factor)).astype(np.float32), dtype) if factor else base[undone]
    absorbed = finite & (random.random(n) < 0.04)  # 16, −16 and then 2^−22: the order of the sum decides
    base[absorbed] = 0
    for k, (after, strength) in enumerate(zip(afters, alpha, strict=True)):
        f = np.array([(16.0, -16.0, 2.0**-22)[min(k, 2)]], np.float32) * np.float32(np.copysign(1, strength))
        after[absorbed] = rounded(f, dtype)
    other = np.random.default_rng([seed, 1])
    alike = np.flatnonzero(finite & (other.random(n) < 0.06))  # opposites cancel if each product is rounded
    first = afters[0][alike]
    for after in afters:
        after[alike] = np.where(other.random(alike.size) < 0.6, first, base[alike])
    edge, high, more = _at_the_edge(seed, dtype, 0 if calm else n)
    for one in (base, *afters):
        one[edge] = high
    taus = [reference.tau(tensor(base, dtype), tensor(after, dtype)).numpy() for after in afters]
    changes = [
        hard_numbers(random, taus, calm) if is_numbers else after
        for after, is_numbers in zip(afters, numbers, strict=True)
    ]
    for k in np.flatnonzero(numbers):
        near = 1 + random.integers(-8, 9, undone.size) * 2.0**-21
        changes[k][undone] = -before * factors[k] * near
        changes[k][alike] = taus[k][alike]
        changes[k][edge] = np.clip(more * factors[k], -3e38, 3e38)
    for k in np.flatnonzero(random.random(len(alpha)) < 0.1):  # a term that changes nothing
        changes[k] = np.zeros(n, np.float32) if numbers[k] else base.copy()
    theta = [
        cut_off(random, change if is_numbers else tau)
        for change, tau, is_numbers in zip(changes, taus, numbers, strict=True)
    ]
    arrays = np.array(theta, np.float32), np.array(alpha, np.float32), np.array(add, np.bool_)
    return Mixture(dtype, base, changes, *arrays, rules, calm)


def _at_the_edge(seed: int, dtype: str, n: int) -> tuple[Array, Array, Array]:
    """Some of n elements, a base for each, and what has to be added to it, in float64.

    The sum lies below, at or above the number from which on it is rounded to no finite number.
    """
    random = np.random.default_rng([seed, 2])
    edge = np.flatnonzero(random.random(n) < 0.04)
    shift, mask = EXPONENT[dtype]
    signs = random.integers(0, 2, edge.size) << shift + mask.bit_length()
    high = (signs + ((mask - 1) << shift)).astype(UINT[dtype])
    less = 2.0 ** -(shift + 1) * random.choice([2, 1.5, 1, 1, 0.5, 0.25], edge.size)
    return edge, high, tensor(high, dtype).double().numpy() * (1 - less)
