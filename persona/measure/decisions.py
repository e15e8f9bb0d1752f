"""The vectors that decide the coordinates of one tensor, and those that are outvoted there.

**part** — what one term adds to the change of a coordinate: λ·w/D for a member of A, with the words of
docs/numerics.md, and α·t for a term that joins by adding.

The term with the largest part decides a coordinate; of equal parts, the first in canonical order. A term is
outvoted where w ≠ 0 and it is no member of A. Counts are exact. Parts are binary64, and their sums are added
over blocks, chunk by chunk in order, so no result depends on the number of threads.
"""

from __future__ import annotations

from dataclasses import field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from persona.codec.floats import DefaultEnvironment, in_default_environment
from persona.cores import thread_count
from persona.frozen import dataclass
from persona.measure.elections import BLOCK, BlockVotes, ChunkVotes, Scratch, scratch_bytes
from persona.merge.memory import budget_of
from persona.merge.plan import Plan, TensorPlan
from persona.merge.rows.reader import Workspaces
from persona.merge.rows.stored import StoredRows
from persona.merge.run.merger import Merger
from persona.merge.trim.cutoffs import cutoffs
from persona.merge.workers import first_run, in_order
from persona.objects.tensors import chunk_span
from persona.progress import COMPARING, Progress

BANDS: Final = 32
"""Runs of rows of a tensor, at most, in which the outvoted coordinates are counted."""
_ARRAYS: Final = 8
"""Arrays of binary64 of a block that each term takes beside those of its votes, at most."""

Counts = NDArray[np.int64]
Sums = NDArray[np.float64]


@dataclass
class Decisions:
    """The decisions of K terms in canonical order, over some coordinates.

    `changes`: coordinates with t ≠ 0; `kept`: those that trim leaves; `joined`: those where the term has a
    part; `decided` and `outvoted`: see above (int64[K] each). `size`: Σ |part| (float64[K]). `by`: how often
    term k was outvoted where term j has the largest part of those that vote (int64[K, K]). `bands`: outvoted
    coordinates by run of rows (int64[K, BANDS]).
    """

    terms: int
    changes: Counts = field(init=False)
    kept: Counts = field(init=False)
    joined: Counts = field(init=False)
    decided: Counts = field(init=False)
    outvoted: Counts = field(init=False)
    size: Sums = field(init=False)
    by: Counts = field(init=False)
    bands: Counts = field(init=False)

    def __post_init__(self) -> None:
        for name in ("changes", "kept", "joined", "decided", "outvoted"):
            setattr(self, name, np.zeros(self.terms, np.int64))
        self.size = np.zeros(self.terms)
        self.by = np.zeros((self.terms, self.terms), np.int64)
        self.bands = np.zeros((self.terms, BANDS), np.int64)

    def add(self, other: Decisions) -> None:
        """Adds the counts and sums of other coordinates."""
        for name in ("changes", "kept", "joined", "decided", "outvoted", "size", "by", "bands"):
            held = getattr(self, name)
            held += getattr(other, name)


@dataclass(frozen=True)
class Bands:
    """The runs of rows of a tensor: how many rows a run has, and how many elements a row."""

    rows: int
    length: int
    row: int

    @classmethod
    def of(cls, shape: tuple[int, ...], elements: int) -> Bands:
        """Those of a tensor; a tensor without dimensions has one row."""
        rows = shape[0] if shape else 1
        return cls(rows, max(1, -(-rows // BANDS)), max(1, elements // max(1, rows)))

    def of_elements(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The run of each element."""
        return places // (self.row * self.length)


def decide(
    plan: Plan,
    tensor: TensorPlan,
    *,
    threads: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Decisions:
    """The decisions at every coordinate of one tensor, which is computed chunk by chunk and not written.

    `memory`: bytes for chunks, see `persona.merge.memory`. A difference that is not finite counts as none.
    Raises `UsageError` for too little memory, and the errors of reading the store.
    """
    count = len(plan.recipe.terms)
    found = Decisions(count)
    if not tensor.terms:
        return found
    with first_run(progress) as progress, DefaultEnvironment():
        beside = scratch_bytes(count) + BLOCK * 8 * _ARRAYS * count
        budget = budget_of(plan, [tensor], thread_count(threads), memory, beside=beside)
        cuts = cutoffs(plan, [tensor], budget, progress)
        rows = StoredRows(plan.rows, budget, Workspaces(plan.base.tensors, plan.base.chunk), cuts.filter)
        counter = _Counter(Merger(plan, cuts, rows, budget), tensor)
        chunks = plan.chunks(tensor)
        for done, one in enumerate(in_order(counter.chunk, range(chunks), threads=budget.threads), 1):
            found.add(one)
            if progress:
                progress(COMPARING, done * tensor.spec.nbytes // chunks, tensor.spec.nbytes)
    return found


class _Counter:
    """Counts single chunks; called by many threads."""

    def __init__(self, merger: Merger, tensor: TensorPlan) -> None:
        self._merger = merger
        self._tensor = tensor
        self._bands = Bands.of(tensor.spec.shape, tensor.spec.units)

    @in_default_environment
    def chunk(self, index: int) -> Decisions:
        """The decisions of one chunk."""
        merger, tensor = self._merger, self._tensor
        found = Decisions(len(merger.plan.recipe.terms))
        start, _ = chunk_span(tensor.spec, index, merger.plan.base.chunk)
        scratch = Scratch(tensor.spec.unit)
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            for part in merger.parts(tensor, index) or ():
                votes = ChunkVotes.of(tensor, part, merger.rules, merger.cuts)
                size = part.sorted_base.size
                for first in range(0, size, BLOCK):
                    block = slice(first, min(first + BLOCK, size))
                    held = votes.block(block, scratch)
                    if held is not None:
                        at = part.order[block]
                        if part.in_order:
                            at = np.arange(block.start, block.stop) + part.order[0]
                        self._count(votes, held, at.astype(np.int64) + start, found)
        return found

    def _count(
        self, votes: ChunkVotes, block: BlockVotes, places: NDArray[np.int64], found: Decisions
    ) -> None:
        parts, outvoted = _parts(votes, block)
        magnitudes = np.abs(parts)
        largest = np.argmax(magnitudes, axis=0)  # the first of equal ones
        moved = magnitudes.max(axis=0) > 0
        voters = np.array([place for place, vote in enumerate(block.voting) if vote is not None], np.intp)
        for place, k in enumerate(block.indices):
            found.changes[k] += np.count_nonzero(block.taus[place])
            kept = block.taus[place] if block.voting[place] is None else block.kept[place]
            found.kept[k] += np.count_nonzero(kept)
            found.joined[k] += np.count_nonzero(parts[place])
            found.size[k] += np.add.reduce(magnitudes[place])
            decides = moved & (largest == place)
            found.decided[k] += np.count_nonzero(decides)
            lost = outvoted[place]
            if lost is not None and lost.any():
                found.outvoted[k] += np.count_nonzero(lost)
                found.bands[k] += np.bincount(self._bands.of_elements(places[lost]), minlength=BANDS)
                others = magnitudes[voters][:, lost]
                winners = voters[np.argmax(others, axis=0)[others.max(axis=0) > 0]]
                found.by[k, block.indices] += np.bincount(winners, minlength=len(block.indices))


def _parts(votes: ChunkVotes, block: BlockVotes) -> tuple[Sums, list[NDArray[np.bool_] | None]]:
    """The part of each term at each coordinate, and where each is outvoted (None for a term that adds)."""
    rules = votes.rules
    parts = np.zeros((len(block.indices), block.taus[0].size))
    members: dict[int, NDArray[np.bool_]] = {}
    outvoted: list[NDArray[np.bool_] | None] = []
    for place, (w, vote) in enumerate(zip(block.weights, block.voting, strict=True)):
        if vote is None:
            outvoted.append(None)
            continue
        inside = w != 0 if block.elected is None else vote * block.elected > 0
        members[place] = inside
        outvoted.append((w != 0) & ~inside)
    alphas = {place: float(votes.alpha[block.places[place]]) for place in range(len(block.indices))}
    divisor = _divisor(votes, members, alphas, parts.shape[1])
    for place, inside in members.items():
        np.divide(block.weights[place], divisor, out=parts[place], where=inside, dtype=np.float64)
        parts[place] *= rules.lambda_
    if rules.merge == "max" and members:
        voting = list(members)
        first = np.argmax(np.abs(parts[voting]), axis=0)
        for number, place in enumerate(voting):
            parts[place][first != number] = 0
    for place, vote in enumerate(block.voting):
        if vote is None:
            np.multiply(block.taus[place], alphas[place], out=parts[place], dtype=np.float64)
    return parts, outvoted


def _divisor(
    votes: ChunkVotes, members: dict[int, NDArray[np.bool_]], alphas: dict[int, float], size: int
) -> Sums:
    """D of each coordinate."""
    rules = votes.rules
    divisor = np.zeros(size)
    if rules.merge != "mean":
        return np.ones(size)
    strongest = np.zeros(size)
    for place, inside in members.items():
        alpha = alphas[place]
        share = 1.0 if rules.divide == "count" else alpha if rules.divide == "weight" else abs(alpha)
        divisor[inside] += share
        np.maximum(strongest, abs(alpha), out=strongest, where=inside)
    if rules.divide == "strength":
        divisor = np.maximum(divisor, 1.0) / np.maximum(strongest, 1.0)
    divisor[divisor == 0] = 1.0
    return divisor
