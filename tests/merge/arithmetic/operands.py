"""Elements, numbers and cut-offs that are hard for a merge: they overflow, tie, cancel or are subnormal."""

from __future__ import annotations

from typing import Any

import numpy as np

from persona.merge.rules import KEEP_NOTHING, NO_TRIM, MergeRules
from tests.merge.chunks import EXPONENT, tensor
from tests.merge.strategies import STYLES, elements

Array = np.ndarray[Any, Any]
CANONICAL_NAN = {"BF16": 0x7FC0, "F16": 0x7E00, "F32": 0x7FC00000}


def hard_elements(
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
    base[far & (random.random(n) < 0.75)] = (mask << shift) - 1
    for after in afters:
        after[far & (random.random(n) < 0.5)] = (1 << (8 * base.itemsize - 1)) + (mask << shift) - 1
    return base, afters


def undoing(rules: MergeRules, alpha: Array, numbers: Array, add: Array) -> Array:
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


def hard_numbers(random: np.random.Generator, taus: list[Array], calm: bool) -> Array:
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
        rounded_up = 2.0**17 - 8  # to a power of two beyond the numbers of fp16
        strange = np.array([np.inf, -np.inf, np.nan, rounded_up, -rounded_up], np.float32)
        kinds += [(random.normal(size=n).clip(-3, 3) * scale).astype(np.float32) for scale in (3e4, 1e38)]
        kinds += [words.view(np.float32), random.choice(strange, n)]
    many = np.array([3, 1, *[2] * (len(kinds) - 2)])
    return np.choose(random.choice(len(kinds), n, p=many / many.sum()), kinds)


def cut_off(random: np.random.Generator, t: Array) -> float:
    """A cut-off: none, nothing kept, infinite, or one that an element equals."""
    sizes = np.abs(t[np.isfinite(t) & (t != 0)])
    usual = float(random.choice(sizes)) if sizes.size else 0.0
    return float(random.choice([*[NO_TRIM] * 4, *[usual] * 6, 0.0, KEEP_NOTHING, np.inf]))
