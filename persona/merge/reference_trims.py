"""The filters of docs/numerics.md in plain torch: breadcrumbs, DARE and DELLA of whole tensors.

Part of the reference: `reference` applies them to t before anything else. torch is imported at the top.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch

from persona.codec.floats import in_default_environment
from persona.merge.rules import MergeRules, MergeTerm, crumb_ranks, draw_key, keep_below, norm_factor

_WORD: Final = 0xFFFFFFFF
_MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
_WEYL: Final = (0x9E3779B9, 0xBB67AE85)
_ROUNDS: Final = 10


@in_default_environment
def filtered(t: torch.Tensor, term: MergeTerm, rules: MergeRules, name: str) -> torch.Tensor:
    """t of one term at tensor `name`, with 0 where the filter drops an element; rescaled if the rules say so.

    t: float32, any shape.
    """
    if term.keeps_everything(rules) or not rules.filters:
        return t
    density = term.effective_density(rules)
    if rules.trim == "breadcrumbs":
        return breadcrumbs(t, density, rules.gamma, rules.rank or "")
    key = draw_key(rules.seed, term.identity or term.vector, name)
    divide = rules.rescale == "true"
    if rules.trim == "dare":
        u = dare(t, density, rescale=divide, key=key)
    else:
        u = della(t, density, rules.epsilon, rescale=divide, key=key)
    return matched(t, u) if rules.rescale == "norm" else u


def breadcrumbs(t: torch.Tensor, density: float, gamma: float, rank: str = "floor") -> torch.Tensor:
    """t without its ⌊γ·n⌋ largest magnitudes and without the smallest; `rank` says how many are kept."""
    low, high = crumb_ranks(rank, density, gamma, t.numel())
    magnitudes = _magnitudes(t)
    ordered = magnitudes.flatten().sort(descending=True).values
    kept = (t != 0) & (low > 0)
    if 0 < low <= t.numel():
        kept &= magnitudes >= ordered[low - 1]
    if high <= t.numel():
        kept &= magnitudes <= ordered[high - 1]
    return torch.where(kept, t, torch.zeros_like(t))


def dare(t: torch.Tensor, density: float, *, rescale: bool, key: tuple[int, int]) -> torch.Tensor:
    """Each element of t with probability d, divided by d in binary32 if `rescale`."""
    kept = draws(t.numel(), key).reshape(t.shape) < keep_below(density)
    return torch.where(kept, t / _binary32(density) if rescale else t, torch.zeros_like(t))


def della(
    t: torch.Tensor, density: float, epsilon: float, *, rescale: bool, key: tuple[int, int]
) -> torch.Tensor:
    """Each element of t with a probability p between d − ε and d + ε, divided by p if `rescale`."""
    p = probabilities(t, density, epsilon)
    below = torch.tensor([keep_below(one) for one in p.flatten().tolist()], dtype=torch.int64)
    kept = draws(t.numel(), key) < below
    u = t / p.to(torch.float32) if rescale else t
    return torch.where(kept.reshape(t.shape), u, torch.zeros_like(t))


def matched(t: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """u, the elements of t that are kept, times Σ|t| ÷ Σ|u|: the sum of magnitudes stays."""
    factor = _binary32(norm_factor(_magnitude_sum(t), _magnitude_sum(u)))
    return torch.where(u != 0, u * factor, torch.zeros_like(u))


def _magnitude_sum(t: torch.Tensor) -> int | None:
    """Σ|t| exactly, in units of 2^−149; None if an element is not finite."""
    if not t.isfinite().all():
        return None
    return sum(int(math.ldexp(magnitude, 149)) for magnitude in t.abs().flatten().tolist())


def probabilities(t: torch.Tensor, density: float, epsilon: float) -> torch.Tensor:
    """p of each element under DELLA, float64: (d − ε) + r·(2·ε), where r runs from 0 to 1 by rank of |t|.

    Elements whose |t| have equal upper 16 bits share their mean rank.
    """
    n = t.numel()
    if n < 2:
        return torch.full(t.shape, density, dtype=torch.float64)
    upper = _magnitudes(t) >> 16
    counts = torch.bincount(upper.flatten(), minlength=1 << 15).to(torch.int64)
    below = counts.cumsum(0) - counts
    r = (2 * below + counts - 1).to(torch.float64) / (2 * (n - 1))
    return ((density - epsilon) + r * (2 * epsilon)).clamp(0, 1)[upper.to(torch.int64)]


def draws(n: int, key: tuple[int, int]) -> torch.Tensor:
    """The first word of each of n draws, int64[n]: Philox4x32-10 of the counter (index of the element)."""
    index = torch.arange(n, dtype=torch.int64)
    zero = torch.zeros_like(index)
    return philox((index & _WORD, index >> 32, zero, zero), key)[0]


def philox(counter: Sequence[torch.Tensor], key: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """Philox4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011): four words.

    counter: four words, int64 of values below 2^32.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _product(c0, _MULTIPLIERS[0])
        high1, low1 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def _product(word: torch.Tensor, factor: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The upper and lower 32 bits of a product of two words, in halves, because int64 has a sign."""
    low, high = word * (factor & 0xFFFF), word * (factor >> 16)
    middle = high + (low >> 16)
    return middle >> 16, (low & 0xFFFF) | ((middle & 0xFFFF) << 16)


def _magnitudes(t: torch.Tensor) -> torch.Tensor:
    """|t| as integers that have its order."""
    return t.contiguous().view(torch.int32) & 0x7FFFFFFF


def _binary32(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float32)
