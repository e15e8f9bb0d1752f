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
from persona.merge.rules import KEEP_NOTHING, NO_TRIM, MergeRules, MergeTerm
from persona.objects.rules import CHOICES
from tests.merge.arithmetic import cuda_kernels
from tests.merge.chunks import CODE, EXPONENT, Change, Chunk, as_change, bits, rounded, tensor
from tests.merge.strategies import STYLES, elements

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
CANONICAL_NAN = {"BF16": 0x7FC0, "F16": 0x7E00, "F32": 0x7FC00000}
DTYPES = ("BF16", "BF16", "F16", "F32")
LIMITS = (1.0, 1.5, 4.0, np.inf)
"""The largest |α| of a mixture: what is stronger than 1, 2 or everything has branches of its own."""
LAMBDAS = (1.0, 1.0, 1.0, 1.0, 0.5, -1.5, 0.3, 0.0, 3e38)
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

    def with_term(self, alpha: float, *, add: bool) -> Mixture:
        """With a last term that changes nothing."""
        return replace(
            self,
            changes=[*self.changes, self.base.copy()],
            theta=np.append(self.theta, np.float32(NO_TRIM)),
            alpha=np.append(self.alpha, np.float32(alpha)),
            add=np.append(self.add, add),
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


def by_cpu(mixture: Mixture, majority: int) -> Result:
    code = CODE[mixture.dtype]
    arguments = MergeArguments(mixture.theta, mixture.alpha, mixture.add, mixture.rules, code, majority)
    out = np.full_like(mixture.base, 0xAAAA)
    bad = cpu.merge_chunk(mixture.chunk.decoded, arguments, out)
    return out, bad


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
    found: dict[str, Callable[[Mixture, int], Result]] = {"loops written out": by_cpu}
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
    beside = np.flatnonzero(mixture.acting & ~not_finite)[:1]
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
            yield _drawn(random, axes, n, calm=False, huge=True)


def few_terms(seed: int, n: int) -> Iterator[Mixture]:
    """Mixtures for each loop that is written out, with each combination of the rules that it takes."""
    for place, axes in enumerate(WRITTEN_OUT):
        random = np.random.default_rng([seed, place])
        for count, mixed in product(range(1, MOST_TERMS + 1), (False, True)):
            for kind in ("any", "whole", "negative"):
                yield _few(random, axes, n, count, kind, mixed=mixed)
            for kind in ("any", "whole"):
                yield _few(random, axes, n // 3, count, kind, mixed=mixed, calm=False)
            yield _few(random, axes, BLOCK + 8, count, "any", mixed=mixed)


def _drawn(
    random: np.random.Generator, axes: dict[str, str], n: int, *, calm: bool, huge: bool = False
) -> Mixture:
    """huge: all strengths are so large that D overflows."""
    count = int(random.integers(1, 7))
    most = random.choice(LIMITS[:3] if calm else [*LIMITS, np.inf, np.inf])
    alpha = random.choice([one for one in ALPHAS if abs(one) <= most], count)
    alpha = random.choice([3e38, -3e38], count) if huge else alpha
    alpha = -abs(alpha) if random.random() < 0.25 else alpha
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
    another one that changes nothing if there is only one. mixed: at least one term is given as numbers.
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
    return made.with_term(1.0, add=False) if kind == "whole" and not others else made


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
    base, afters = _elements(random, seed, dtype, n, len(alpha), calm=calm)
    finite = np.isfinite(tensor(base, dtype).float().numpy())
    before = np.where(finite, tensor(base, dtype).float().numpy(), np.float32(np.inf))
    undone = np.flatnonzero((np.abs(before) < 8) & (random.random(n) < 0.1))
    before = before[undone].astype(np.float64)
    factors = _undoing(rules, np.array(alpha), np.array(numbers) & ~np.array(add), np.array(add))
    for after, factor in zip(afters, factors, strict=True):
        after[undone] = rounded((before * (1 - factor)).astype(np.float32), dtype) if factor else base[undone]
    absorbed = finite & (random.random(n) < 0.04)  # 16, −16 and then 2^−22: the order of the sum decides
    base[absorbed] = 0
    for k, (after, strength) in enumerate(zip(afters, alpha, strict=True)):
        f = np.array([(16.0, -16.0, 2.0**-22)[min(k, 2)]], np.float32) * np.float32(np.copysign(1, strength))
        after[absorbed] = rounded(f, dtype)
    taus = [reference.tau(tensor(base, dtype), tensor(after, dtype)).numpy() for after in afters]
    changes = [
        _numbers(random, taus, calm) if is_numbers else after
        for after, is_numbers in zip(afters, numbers, strict=True)
    ]
    for k in np.flatnonzero(numbers):
        near = 1 + random.integers(-8, 9, undone.size) * 2.0**-21
        changes[k][undone] = -before * factors[k] * near
    for k in np.flatnonzero(random.random(len(alpha)) < 0.1):  # a term that changes nothing
        changes[k] = np.zeros(n, np.float32) if numbers[k] else base.copy()
    theta = [
        _cut(random, change if is_numbers else tau)
        for change, tau, is_numbers in zip(changes, taus, numbers, strict=True)
    ]
    arrays = np.array(theta, np.float32), np.array(alpha, np.float32), np.array(add, np.bool_)
    return Mixture(dtype, base, changes, *arrays, rules, calm)


def _elements(
    random: np.random.Generator, seed: int, dtype: str, n: int, count: int, *, calm: bool
) -> tuple[Array, list[Array]]:
    """A base and fine-tunes as bits, with zeros below 0, numbers that are not finite, and the largest."""
    styles = ["subnormal", "integers", "weights"] if calm else STYLES
    made = [elements(seed + k, dtype, count, style, n) for k, style in enumerate(styles)]
    weights, _ = elements(seed, dtype, 0, "weights", n)
    made.append((weights, [weights + random.integers(-3, 4, n).astype(weights.dtype) for _ in range(count)]))
    style = random.integers(0, len(made), n)
    base = np.choose(style, [one for one, _ in made])
    afters = [np.choose(style, [after[k] for _, after in made]) for k in range(count)]
    finite = np.isfinite(tensor(base, dtype).float().numpy())
    for one in (base, *afters):
        one[finite & (random.random(n) < 0.02)] = 1 << (8 * base.itemsize - 1)  # −0
    strange = random.random(n) < (0 if calm else 0.06)
    shift, mask = EXPONENT[dtype]
    words = np.array([mask << shift, (mask << shift) + 1, CANONICAL_NAN[dtype]]).astype(base.dtype)
    base[strange] = random.choice(words, int(strange.sum()))
    for after in afters:
        after[strange] = base[strange]
    finite &= ~strange
    far = finite & (random.random(n) < (0 if calm else 0.06))  # f − b may overflow
    base[far] = (mask << shift) - 1
    for after in afters:
        after[far & (random.random(n) < 0.5)] = (1 << (8 * base.itemsize - 1)) + (mask << shift) - 1
    return base, afters


def _undoing(rules: MergeRules, alpha: Array, numbers: Array, add: Array) -> Array:
    """c of each term, so that terms of t = −c·b give a sum near 0, where every rounding before it shows.

    Terms of numbers do so alone if there are any, because their t is not rounded to the dtype; c of the
    others is 0.
    """
    sizes = np.abs(alpha)
    voting = numbers if numbers.any() else ~add
    voting = voting & (sizes > 0)
    total, most = float(sizes[voting].sum()), float(sizes[voting].max(initial=0))
    if rules.merge == "max":
        total = most
    divisor = 1.0
    if rules.merge == "mean":
        divisor = {
            "strength": max(1.0, total) / max(1.0, most),
            "count": float(voting.sum()),
            "weight": abs(float(alpha[voting].sum())),
            "mass": total,
        }[rules.divide or "count"]
    size = divisor / (rules.lambda_ * total) if rules.lambda_ * total else 0.0
    return np.where(voting & (abs(size) < 1e3), np.sign(alpha) * size, 0.0)


def _numbers(random: np.random.Generator, taus: list[Array], calm: bool) -> Array:
    """t of every kind: also those of other terms, their opposites and halves, for votes and roundings that
    tie.
    """
    n = taus[0].size
    words = random.integers(0, 1 << 32, n, dtype=np.uint32)
    kinds = [
        np.zeros(n, np.float32),
        np.full(n, -0.0, np.float32),
        *(taus[random.integers(len(taus))] * np.float32(factor) for factor in (1, -1, 0.5, -0.5)),
        random.integers(-3, 4, n).astype(np.float32),
        *((random.normal(size=n) * scale).astype(np.float32) for scale in (0.02, 1e-4)),
        (words & np.uint32(0x80FFFFFF)).view(np.float32),
    ]
    if not calm:
        strange = np.array([np.inf, -np.inf, np.nan], np.float32)
        kinds += [(random.normal(size=n).clip(-3, 3) * scale).astype(np.float32) for scale in (3e4, 1e38)]
        kinds += [words.view(np.float32), random.choice(strange, n)]
    many = np.array([3, 1, *[2] * (len(kinds) - 2)])
    return np.choose(random.choice(len(kinds), n, p=many / many.sum()), kinds)


def _cut(random: np.random.Generator, t: Array) -> float:
    """A cut-off: none, nothing kept, infinite, or one that an element equals."""
    sizes = np.abs(t[np.isfinite(t) & (t != 0)])
    usual = float(random.choice(sizes)) if sizes.size else 0.0
    return float(random.choice([*[NO_TRIM] * 4, *[usual] * 6, 0.0, KEEP_NOTHING, np.inf]))
