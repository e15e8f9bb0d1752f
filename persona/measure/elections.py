"""**election** — the vote of a recipe's terms at each coordinate, measured over a model.

It says which pairs of vectors pull a coordinate in opposite directions, how much of their weight loses the
vote, and how similar the vectors are. The weight of a term at a coordinate is |w| = |α · u|, with u from
docs/numerics.md: trimmed, binary32. A term loses its vote if it is no member of A. Counts are exact. Sums are
binary64 over blocks of BLOCK elements in exponent order. A difference that is not finite counts as none.
"""

from __future__ import annotations

from dataclasses import field
from itertools import combinations
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from persona.codec.delta import restore
from persona.frozen import dataclass
from persona.merge.arithmetic.arguments import DecodedChunk
from persona.merge.arithmetic.casts import widen32
from persona.merge.plan import TensorPlan
from persona.merge.rules import MergeRules
from persona.merge.trim.cutoffs import Cutoffs
from persona.objects.dtypes import uint
from persona.objects.recipe import Term

BLOCK: Final = 1 << 14
"""Elements whose arithmetic stays in the L2 cache; slices of chunks (`merge.memory`) are multiples."""
_FLOATS: Final = 4
"""Arrays of a block that each term takes: t, u, w, and its vote."""
MAX_PAIRED: Final = 32
"""Terms up to which every pair of them is looked at; the work grows with the square of their number."""

Floats = NDArray[np.float32]
Sums = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass
class Election:
    """The election of K terms in canonical order.

    `kept`: elements that trim leaves (int64[K]). `squares`: Σ t² before trim; `mass`: Σ |w|; `lost`: Σ |w| at
    coordinates where the term lost its vote (float64[K] each). For pairs j < k, with 0 for all others and
    beyond `MAX_PAIRED` terms: `shared`: coordinates at which both have w ≠ 0; `opposed`: those of them with
    different signs (int64[K, K] each); `products`: Σ t_j · t_k before trim (float64[K, K]).
    """

    terms: int
    kept: Counts = field(init=False)
    squares: Sums = field(init=False)
    mass: Sums = field(init=False)
    lost: Sums = field(init=False)
    shared: Counts = field(init=False)
    opposed: Counts = field(init=False)
    products: Sums = field(init=False)

    def __post_init__(self) -> None:
        pairs = self.terms if self.terms <= MAX_PAIRED else 0
        self.kept = np.zeros(self.terms, np.int64)
        self.squares, self.mass, self.lost = (np.zeros(self.terms) for _ in range(3))
        self.shared, self.opposed = (np.zeros((pairs, pairs), np.int64) for _ in range(2))
        self.products = np.zeros((pairs, pairs))

    def add(self, other: Election) -> None:
        """Adds the counts and sums of other elements."""
        self.kept += other.kept
        self.squares += other.squares
        self.mass += other.mass
        self.lost += other.lost
        self.shared += other.shared
        self.opposed += other.opposed
        self.products += other.products


def scratch_bytes(terms: int) -> int:
    """Bytes of a thread's scratch memory for the election of this many terms."""
    return BLOCK * (4 * _FLOATS * terms + 32)


class Scratch:
    """The scratch of one thread for elements of `width` bytes."""

    def __init__(self, width: int) -> None:
        self.bits = np.empty(BLOCK, uint(width))
        self.wide = np.empty((2, BLOCK), np.float64)
        self.in_place = np.arange(BLOCK, dtype=np.uint32)


class BlockVotes(NamedTuple):
    """A block of elements: its terms with a change there, each with its arrays of binary32.

    `indices`: of the terms in the recipe; `places`: in `ChunkVotes.terms`. `taus`: t; `kept`: u;
    `weights`: w; `voting`: v, None for a term that adds. `elected`: s of each coordinate, 0 if nothing is
    elected; None if the rules elect nothing.
    """

    indices: list[int]
    places: list[int]
    taus: list[Floats]
    kept: list[Floats]
    weights: list[Floats]
    voting: list[Floats | None]
    elected: Floats | None


@dataclass(frozen=True)
class ChunkVotes:
    """One decoded chunk with its terms.

    `terms`, `alpha` and `theta`, both float32, run along `chunk.present`.
    """

    chunk: DecodedChunk
    dtype: str
    terms: list[Term]
    alpha: Floats
    theta: Floats
    rules: MergeRules
    tie: int

    @classmethod
    def of(cls, tensor: TensorPlan, chunk: DecodedChunk, rules: MergeRules, cuts: Cutoffs) -> ChunkVotes:
        """The votes of a chunk of a tensor."""
        return cls(
            chunk,
            tensor.spec.dtype,
            [cuts.plan.recipe.terms[term] for term in chunk.present],
            np.array([tensor.alpha_of[term] for term in chunk.present], np.float32),
            cuts.theta(tensor, chunk.present),
            rules,
            rules.tie(cuts.majority),
        )

    def count(self, found: Election, scratch: Scratch) -> None:
        """Adds the whole chunk to `found`.

        The caller turns off numpy's warnings about numbers that are not finite.
        """
        chunk = self.chunk
        for start in range(0, chunk.sorted_base.size, BLOCK):
            self._count_block(slice(start, min(start + BLOCK, chunk.sorted_base.size)), found, scratch)

    def block(self, part: slice, scratch: Scratch) -> BlockVotes | None:
        """The votes in a block of elements; None if no term changes it."""
        active = [j for j in range(len(self.chunk.present)) if self.chunk.row(j)[part].any()]
        if not active:
            return None
        taus = self._differences(part, active, scratch)
        kept = [_trimmed(t, self.theta[j]) for t, j in zip(taus, active, strict=True)]
        weights = [u * self.alpha[j] for u, j in zip(kept, active, strict=True)]
        votes = kept if self.rules.weigh == "after" else weights
        terms = [self.terms[j] for j in active]
        voting = [vote if term.join == "vote" else None for vote, term in zip(votes, terms, strict=True)]
        indices = [self.chunk.present[j] for j in active]
        return BlockVotes(indices, active, taus, kept, weights, voting, self._elected(voting))

    def _count_block(self, part: slice, found: Election, scratch: Scratch) -> None:
        block = self.block(part, scratch)
        if block is None:
            return
        wide = scratch.wide[:, : block.taus[0].size]
        for index, u, w, vote in zip(block.indices, block.kept, block.weights, block.voting, strict=True):
            found.kept[index] += np.count_nonzero(u)
            np.abs(w, out=wide[0])
            found.mass[index] += np.add.reduce(wide[0])
            if vote is not None and block.elected is not None:
                np.copyto(wide[0], 0.0, where=vote * block.elected > 0)
                found.lost[index] += np.add.reduce(wide[0])
        _count_taus(block.indices, block.taus, found, wide)
        if found.shared.size:
            _count_signs(block.indices, block.weights, found)

    def _differences(self, part: slice, active: list[int], scratch: Scratch) -> list[Floats]:
        """t of each active term, 0 if it is not finite."""
        sorted_base = self.chunk.sorted_base[part]
        bits, in_place = scratch.bits[: sorted_base.size], scratch.in_place[: sorted_base.size]
        base = widen32(sorted_base, self.dtype)
        found: list[Floats] = []
        for j in active:
            row = self.chunk.row(j)[part]
            if row.dtype == np.float32:
                t = row.copy()
            else:
                restore(sorted_base, row, in_place, bits)
                t = widen32(bits, self.dtype) - base
            finite = np.isfinite(t)
            if not finite.all():
                t[~finite] = 0.0
            found.append(t)
        return found

    def _elected(self, voting: list[Floats | None]) -> Floats | None:
        """s of each coordinate, 0 if nothing is elected; None if the rules elect nothing."""
        votes = [vote for vote in voting if vote is not None]
        if self.rules.elect == "none" or not votes:
            return None
        e = np.zeros_like(votes[0])
        for vote in votes:
            np.add(e, vote if self.rules.elect == "mass" else np.sign(vote), out=e)
        s: Floats = np.sign(e)
        if self.tie:
            s[s == 0] = self.tie
        return s


def _trimmed(t: Floats, theta: np.float32) -> Floats:
    """u: t if |t| ≥ θ; a θ of NaN keeps everything, a negative one nothing."""
    if np.isnan(theta):
        return t
    if theta < 0:
        return np.zeros_like(t)
    kept: Floats = np.multiply(t, np.abs(t) >= theta, dtype=np.float32)
    return kept


def _count_taus(indices: list[int], taus: list[Floats], found: Election, wide: Sums) -> None:
    """Σ t² of each term, and Σ t_j · t_k of each pair."""
    for index, t in zip(indices, taus, strict=True):
        np.multiply(t, t, out=wide[0], dtype=np.float64)
        found.squares[index] += np.add.reduce(wide[0])
    if not found.products.size:
        return
    for (j, one), (k, other) in combinations(zip(indices, taus, strict=True), 2):
        np.multiply(one, other, out=wide[0], dtype=np.float64)
        found.products[j, k] += np.add.reduce(wide[0])


def _count_signs(indices: list[int], weights: list[Floats], found: Election) -> None:
    """Counts coordinates at which both of a pair have weight, and those at which they pull apart."""
    signs: list[Any] = [(index, w != 0, np.signbit(w)) for index, w in zip(indices, weights, strict=True)]
    for (j, one, down), (k, other, falling) in combinations(signs, 2):
        both = one & other
        found.shared[j, k] += np.count_nonzero(both)
        np.logical_and(both, down ^ falling, out=both)
        found.opposed[j, k] += np.count_nonzero(both)
