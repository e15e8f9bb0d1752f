"""The numbers and words that the kernels need of a recipe's rules and terms. Pure Python.

Here decimals become numbers, once: α and λ are rounded to binary32, densities to binary64. The rank of a
cut-off is decided here too (docs/numerics.md, "Trim"), so that the reference and the kernels cannot disagree
on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from typing import Any, Final

from blake3 import blake3

from persona.codec.floats import in_default_environment
from persona.frozen import dataclass
from persona.merge.codes import Divide, Elect, Merge, Weigh
from persona.objects import canonical
from persona.objects.layers import Place, at_place, places
from persona.objects.recipe import Term, to_binary32, values
from persona.objects.rules import MAX_BINARY32, Rules

_UNITS: Final = 1 << 149
"""Units of an exact sum in 1."""
NO_TRIM: Final = math.nan
"""The θ that keeps every changed element."""
KEEP_NOTHING: Final = -1.0
"""The θ that keeps no element: rank `floor` with ⌊d·n⌋ = 0. (+inf would keep an infinite difference.)"""


@dataclass(frozen=True)
class MergeRules:
    """The axes as words, λ as a binary32 value, the density as binary64 (None if nothing is trimmed).

    `gamma` and `epsilon` are binary64, and 0 if the preset does not use them; `rescale` is "false" then, and
    `seed`, a decimal as text, is "0".
    """

    trim: str = "tensor"
    rank: str | None = "floor1"
    weigh: str = "before"
    elect: str = "mass"
    on_tie: str | None = "drop"
    merge: str = "mean"
    divide: str | None = "strength"
    density: float | None = 1.0
    lambda_: float = 1.0
    gamma: float = 0.0
    epsilon: float = 0.0
    rescale: str = "false"
    seed: str = "0"

    @classmethod
    def of(cls, rules: Rules) -> MergeRules:
        """The numbers of a recipe's rules."""
        return cls(
            trim=rules.trim,
            rank=rules.rank,
            weigh=rules.weigh,
            elect=rules.elect,
            on_tie=rules.on_tie,
            merge=rules.merge,
            divide=rules.divide,
            density=None if rules.density is None else float(rules.density),
            lambda_=to_binary32(rules.lambda_),
            gamma=float(rules.gamma or 0),
            epsilon=float(rules.epsilon or 0),
            rescale=rules.rescale or "false",
            seed=rules.seed or "0",
        )

    @property
    def filters(self) -> bool:
        """Whether a filter drops elements of a term's rows, instead of one cut-off θ."""
        return self.trim in ("breadcrumbs", "dare", "della")

    @property
    def rescales(self) -> bool:
        """Whether a filter divides or multiplies what it keeps, so that rows of steps become numbers."""
        return self.trim in ("dare", "della") and self.rescale != "false"

    @property
    def needs_majority(self) -> bool:
        """Whether a counting pass over the whole model must come first."""
        return self.elect != "none" and self.on_tie == "majority"

    def codes(self) -> tuple[int, int, int, int]:
        """(weigh, elect, merge, divide) as the kernels take them."""
        return (
            int(Weigh[self.weigh.upper()]),
            int(Elect[self.elect.upper()]),
            int(Merge[self.merge.upper()]),
            int(Divide[(self.divide or "count").upper()]),
        )

    def tie(self, majority: int = 0) -> int:
        """The sign of a tied coordinate: +1, −1, or 0 for none. `majority` is Σ sign(e) over the model."""
        if self.on_tie == "majority":
            return 1 if majority > 0 else -1
        return 1 if self.on_tie == "positive" else 0


@dataclass(frozen=True)
class MergeTerm:
    """One term: `alpha` is binary32, `density` binary64 or None for the recipe's."""

    vector: str
    alpha: float = 1.0
    density: float | None = None
    only: tuple[str, ...] = ()
    except_: tuple[str, ...] = ()
    join: str = "vote"
    lists: Term | None = None
    """A term with lists over layers, for `in_each_layer`; None if its numbers hold in every layer."""
    tensors: frozenset[str] | None = None
    """The names of a layer's tensors; None: all."""
    identity: str | None = None
    """The id of the vector that an expression of one vector with the coefficient 1 is; None: its own id."""

    @classmethod
    def of(cls, term: Term) -> MergeTerm:
        """The numbers of a recipe's term."""
        lists = term if term.in_layers else None
        return cls._at(term, None, lists, None)

    @classmethod
    def _at(
        cls, term: Term, place: Place | None, lists: Term | None, tensors: frozenset[str] | None
    ) -> MergeTerm:
        density = None if term.density is None else float(at_place(values(term.density), place))
        return cls(
            term.vector, term.alpha_at(place), density, term.only, term.except_, term.join, lists, tensors
        )

    def in_each_layer(self, names: Iterable[str]) -> list[MergeTerm]:
        """A term for each layer, and one for the tensors outside, if the numbers are lists over layers.

        `names` are all tensors of the base.
        """
        if self.lists is None:
            return [self]
        names = list(names)
        where = places(names)
        groups: dict[Place | None, set[str]] = {}
        for name in names:
            groups.setdefault(where.get(name), set()).add(name)
        each = [self._at(self.lists, place, None, frozenset(here)) for place, here in groups.items()]
        return [replace(term, identity=self.identity) for term in each]

    @cached_property
    def _filter(self) -> Term:
        return Term(name="", vector=self.vector, only=self.only, except_=self.except_)

    def admits(self, tensor: str) -> bool:
        """Whether the filter lets the term reach a tensor."""
        return (self.tensors is None or tensor in self.tensors) and self._filter.admits(tensor)

    def effective_density(self, rules: MergeRules) -> float:
        """The term's density, or the recipe's; 1 if neither is set."""
        if self.density is not None:
            return self.density
        return 1.0 if rules.density is None else rules.density

    def order(self, rules: MergeRules) -> tuple[Any, ...]:
        """The key of the canonical order of terms."""
        pattern = canonical.encode({"except": sorted(self.except_), "only": sorted(self.only)})
        return (self.vector, self.alpha + 0.0, self.effective_density(rules), pattern, self.join)

    def keeps_everything(self, rules: MergeRules) -> bool:
        """Whether no changed element of the term can be trimmed."""
        return self.join == "add" or rules.trim == "none" or self.effective_density(rules) == 1.0


def canonical_order(terms: Iterable[MergeTerm], rules: MergeRules) -> list[int]:
    """The indices of `terms` in canonical order."""
    terms = list(terms)
    return sorted(range(len(terms)), key=lambda index: terms[index].order(rules))


@in_default_environment
def cut_rank(rank: str, density: float, elements: int) -> int:
    """r, so that θ is the r-th largest of `elements` magnitudes.

    0 keeps nothing, more than `elements` keeps everything. The product is binary64, as in other programs:
    ⌊0.29·100⌋ is 28.
    """
    kept = math.floor(density * elements)
    return {"floor1": max(1, kept), "plus1": kept + 1, "floor": kept}[rank]


@in_default_environment
def joint_rank(density: float, elements: int) -> int:
    """r for trim = joint: the 0-based index ⌈(N−1)(1−d)⌉ ascending of N = `elements`, as r-th largest."""
    return elements - math.ceil((elements - 1) * (1.0 - density))


@in_default_environment
def crumb_ranks(rank: str, density: float, gamma: float, elements: int) -> tuple[int, int]:
    """(low, high) for trim = breadcrumbs: the smallest and the largest magnitude kept, as r-th largest.

    low = 0 keeps nothing, more than `elements` has no low cut-off.
    """
    largest = math.floor(gamma * elements)
    kept = cut_rank(rank, density, elements)
    return (largest + kept if kept else 0), largest + 1


@in_default_environment
def keep_below(probability: float) -> int:
    """The number below which the first word of a draw keeps an element: ⌊p·2^32⌋."""
    return math.floor(probability * 4294967296.0)


def norm_factor(every: int | None, kept: int | None) -> float:
    """What `rescale = norm` multiplies with: the quotient of Σ|t| of every element and of the kept ones.

    The sums are exact, in units of 2^−149, or None if a t is not finite. The quotient is rounded once to
    binary32. A sum below 10^−7 is not matched, as in mergekit: the factor is 1. It is NaN if a t is not
    finite, and infinite beyond the range of binary32.
    """
    if every is None or kept is None:
        return math.nan
    if kept * 10**7 < _UNITS:
        return 1.0
    found = to_binary32(Fraction(every, kept))
    return found if found <= MAX_BINARY32 else math.inf


def draw_key(seed: str, identity: str, tensor: str) -> tuple[int, int]:
    """The key of a term's draws at a tensor, two words of 32 bits.

    The first 8 bytes, little-endian, of the BLAKE3 of canonical JSON: [seed, identity of the vector, tensor].
    So neither chunks, threads, filters nor other terms change a draw.
    """
    digest = blake3(canonical.encode([seed, identity, tensor])).digest(8)
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")
