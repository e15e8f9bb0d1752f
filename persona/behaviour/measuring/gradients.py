"""**slope** — the derivative of a number by the strength of one term of a recipe, or by its density.

A backward pass gives G = ∂L/∂W, of which the slopes of all terms follow by the chain rule, without another
pass: dL/dα_k = Σ G · ∂W/∂α_k. With the names of docs/numerics.md, ∂W/∂α_k has two parts at a coordinate.

While A stays the same: t_k for a term that joins by adding; λ · (u_k − m · ∂D/∂α_k) / D for a voting term in
A; 0 for one that is not. D is 1 for sums and maxima. For means, ∂D/∂α_k is 0 (count), 1 (weight), sign α_k
(mass), and for strength, with S = Σ_A |α|, M = max_A |α|, D = max(1, S) / max(1, M):
sign α_k · ([S > 1] / max(1, M) − [M > 1 and |α_k| = M] · max(1, S) / M²). This part is exact. (u_k is a
constant: α moves no cut-off.)

Where the vote turns: with `elect = mass` and `weigh = before`, α decides the sign s. If e changes its sign
within α_k ± `TURN`, the jump between the merged changes of both sides, λ · (m₊ − m₋), is spread over that
width. Each such coordinate jumps, but millions of them together are smooth. On opposed vectors this part is
as large as the first.

The last rounding to the base's dtype is treated as the identity, and the element that `merge = max` takes as
constant. A term with α = 0 has the slope towards the side that it may go to: it votes with the smallest
weight there. A slope is local, so a step has to be measured.

A density has no derivative, because elements come and go. Its slope is a secant: Σ G · (W(d′) − W(d)) of two
merges, divided by d′ − d.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from persona.behaviour.measuring.scoring import totals
from persona.codec.floats import in_default_environment
from persona.errors import InvalidInput
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.planning import plan_of
from persona.live.fill import caching_merger_of
from persona.merge.arithmetic import cpu
from persona.merge.arithmetic.arguments import DecodedChunk, MergeArguments
from persona.merge.plan import Plan, TensorPlan
from persona.merge.run.merger import Merger
from persona.merge.workers import in_order
from persona.objects.recipe import Recipe, Term, values
from persona.objects.tensors import chunk_span

if TYPE_CHECKING:
    from persona.behaviour.measuring.damage import Window
    from persona.behaviour.measuring.items import Item
    from persona.behaviour.measuring.subjects import ScoringModel

BLOCK: Final = 1 << 15
"""Elements whose arithmetic stays in the caches."""
TURN: Final = 0.05
"""Votes that turn within this distance of α count for its slope."""
_TINY: Final = 1e-12
"""|α| of a term with α = 0 in the vote: it decides ties alone."""

Floats = NDArray[np.float32]
Sums = NDArray[np.float64]


@dataclass(frozen=True)
class Slopes:
    """dL/dα by the index of the term in the recipe, and the secants to other recipes, in their order.

    For a list over layers, α stands for its `strength`.
    """

    alphas: tuple[float, ...]
    secants: tuple[float, ...]


def slopes(
    history: History,
    scoring: ScoringModel,
    recipe: Recipe,
    losses: Iterator[torch.Tensor],
    *,
    sides: Sequence[int],
    others: Sequence[Recipe] = (),
    threads: int | None = None,
) -> Slopes:
    """The slopes of a sum of losses at a recipe, which the model holds afterwards.

    `losses`: scalars, each computed and gone through backward before the next. `sides`: 1 or −1 for each
    term, the side that an α of 0 goes to. `others`: recipes W′; a secant is Σ G · (W′ − W).
    """
    scoring.hold(recipe)
    plan = plan_of(history, recipe)
    parameters = scoring.parameters_of(plan)
    with torch.inference_mode(False), torch.enable_grad():
        try:
            for parameter in parameters:
                parameter.requires_grad_(True)
            for loss in losses:
                loss.backward()  # type: ignore[no-untyped-call]
            found = {tensor.spec.name: scoring.gradient(tensor.spec.name) for tensor in plan.tensors}
            grads = {name: _flat(grad) for name, grad in found.items() if grad is not None}
            alphas = _of_alphas(plan, grads, sides, threads)
            secants = tuple(scoring.rise(other) for other in others)
        finally:
            for parameter in parameters:
                parameter.requires_grad_(False)
                parameter.grad = None
    return Slopes(tuple(map(float, alphas)), secants)


def margins(model: Any, items: Sequence[Item], weight: float) -> Iterator[torch.Tensor]:
    """weight · margin of each item that has a pair of answers."""
    for item in items:
        if item.chosen is not None and item.rejected is not None:
            chosen, rejected = totals(model, item.prompt, (item.chosen, item.rejected))
            yield weight * (chosen - rejected)


def text_losses(model: Any, windows: Sequence[Window], weight: float) -> Iterator[torch.Tensor]:
    """weight · loss in nats of each window of the neutral text."""
    from persona.behaviour.measuring.damage import chances

    for window in windows:
        said = torch.tensor(window[1:], device=model.device)[:, None]
        yield -weight * chances(model, window).gather(-1, said).double().sum()


def _flat(grad: torch.Tensor) -> Floats:
    found: Floats = grad.detach().contiguous().view(-1).cpu().numpy()
    return found


# -- the chain rule


def _of_alphas(plan: Plan, grads: Mapping[str, Floats], sides: Sequence[int], threads: int | None) -> Sums:
    """dL/dα of each term, from the gradient of each tensor: float32 in row-major order."""
    tensors = [tensor for tensor in plan.tensors if tensor.terms and tensor.spec.name in grads]
    if not tensors:
        return np.zeros(len(plan.recipe.terms))
    merger = caching_merger_of(plan, tensors, threads=threads)
    spans = [(tensor, index) for tensor in tensors for index in range(plan.chunks(tensor))]

    def work(span: tuple[TensorPlan, int]) -> Sums:
        return _of_chunk(merger, *span, grads[span[0].spec.name], sides)

    total = np.zeros(len(plan.recipe.terms))
    for found in in_order(work, spans, threads=merger.budget.threads):
        total += found
    if not np.isfinite(total).all():
        raise InvalidInput("a gradient is not finite: these weights are out of range; lower alpha")
    return total


@in_default_environment
def _of_chunk(merger: Merger, tensor: TensorPlan, index: int, grads: Floats, sides: Sequence[int]) -> Sums:
    start, stop = chunk_span(tensor.spec, index, merger.plan.base.chunk)
    terms = merger.plan.recipe.terms
    total = np.zeros(len(terms))
    for part in merger.parts(tensor, index) or ():
        order = part.order[: part.sorted_base.size]
        with np.errstate(all="ignore"):
            found = slopes_of_part(
                part,
                merger.arguments(tensor, part.present),
                grads[start:stop][order],
                [sides[term] for term in part.present],
            )
            total[part.present] += found * [_share(tensor, terms[term], term) for term in part.present]
    return total


def strength(term: Term) -> float:
    """α of a term; of a list over layers, its number of the largest magnitude, for all of the list."""
    return max(map(float, values(term.alpha)), key=abs)


def _share(tensor: TensorPlan, term: Term, index: int) -> float:
    """dα ÷ d strength of a term at a tensor: the numbers of a list over layers are scaled together."""
    whole = strength(term)
    return tensor.alpha_of[index] / whole if isinstance(term.alpha, tuple) and whole else 1.0


def slopes_of_part(part: DecodedChunk, given: MergeArguments, grad: Floats, sides: Sequence[int]) -> Sums:
    """dL/dα of each term that is present in a chunk. grad: float32[n], in the order of the chunk."""
    total = np.zeros(len(part.present))
    for start in range(0, grad.size, BLOCK):
        block = slice(start, start + BLOCK)
        t = [_differences(part, given.dtype, place, block) for place in range(len(part.present))]
        weighed = grad[block].astype(np.float64)
        for place, derivative in enumerate(derivatives(t, given, sides)):
            total[place] += float(np.dot(derivative, weighed))
    return total


def derivatives(t: Sequence[Floats], given: MergeArguments, sides: Sequence[int]) -> Iterator[NDArray[Any]]:
    """∂W/∂α of each term at some coordinates. t: float32[n] of each term, before trim."""
    rules = given.rules
    alphas = [
        np.float32(alpha if alpha else side * _TINY) for alpha, side in zip(given.alpha, sides, strict=True)
    ]
    voting = [place for place in range(len(t)) if not given.add[place]]
    u = {place: _trimmed(t[place], float(given.theta[place])) for place in voting}
    w = {place: alphas[place] * u[place] for place in voting}
    votes = u if rules.weigh == "after" else w
    e = _election(votes, given)
    inside = _members(votes, e, given)
    m, divisor, by_alpha = _merged(inside, w, alphas, given)
    turns = e is not None and rules.elect == "mass" and rules.weigh == "before" and len(voting) > 1
    jump = sum(side * _merged(_of_side(votes, side), w, alphas, given)[0] for side in (1, -1)) if turns else 0
    if rules.merge == "max":
        inside = _largest(inside, w)
    for place in range(len(t)):
        if place not in inside:
            yield t[place]
            continue
        top = u[place] - m * by_alpha[place] if by_alpha else u[place]
        found = np.where(inside[place], top / divisor, 0)
        if turns:
            near = np.abs(e) < TURN * np.abs(u[place])
            found += near * np.sign(u[place]) * jump / (2 * TURN)
        yield rules.lambda_ * found


def _election(votes: Mapping[int, Floats], given: MergeArguments) -> Any:
    """e; None if the rules elect nothing."""
    if given.rules.elect == "none":
        return None
    mass = given.rules.elect == "mass"
    return sum((vote if mass else np.sign(vote) for vote in votes.values()), np.float32(0))


def _members(votes: Mapping[int, Floats], e: Any, given: MergeArguments) -> dict[int, NDArray[np.bool_]]:
    """The coordinates at which each voting term is in A."""
    if e is None:
        return {place: vote != 0 for place, vote in votes.items()}
    s = np.sign(e)
    if tie := given.rules.tie(given.majority):
        s = np.where(s == 0, np.float32(tie), s)
    return {place: (vote != 0) & (np.sign(vote) == s) for place, vote in votes.items()}


def _of_side(votes: Mapping[int, Floats], side: int) -> dict[int, NDArray[np.bool_]]:
    """The coordinates at which each voting term would be in A if its side won."""
    return {place: side * vote > 0 for place, vote in votes.items()}


def _merged(
    inside: Mapping[int, NDArray[np.bool_]],
    w: Mapping[int, Floats],
    alphas: Sequence[np.float32],
    given: MergeArguments,
) -> tuple[Any, Any, dict[int, Any]]:
    """m and D for these members, and ∂D/∂α of each voting term; nothing if that is 0 for all."""
    divisor, by_alpha = _divisor(inside, alphas, given)
    counted = _largest(inside, w) if given.rules.merge == "max" else inside
    total = sum((np.where(member, w[place], 0) for place, member in counted.items()), np.float32(0))
    return total / divisor, divisor, by_alpha


def _divisor(
    inside: Mapping[int, NDArray[np.bool_]], alphas: Sequence[np.float32], given: MergeArguments
) -> tuple[Any, dict[int, Any]]:
    """D, and ∂D/∂α of each voting term; nothing if that is 0 for all."""
    rules = given.rules
    if rules.merge != "mean" or not inside:
        return np.float32(1), {}
    if rules.divide == "count":
        count = sum((member.astype(np.float32) for member in inside.values()), np.float32(0))
        return np.maximum(count, 1), {}
    sign = {place: math.copysign(1.0, float(alphas[place])) for place in inside}
    if rules.divide == "weight":
        total = sum((np.where(member, alphas[place], 0) for place, member in inside.items()), np.float32(0))
        return np.where(total == 0, 1, total), dict.fromkeys(inside, (total != 0) * 1.0)
    size = {place: np.where(member, abs(alphas[place]), 0) for place, member in inside.items()}
    total = sum(size.values(), np.float32(0))
    if rules.divide == "mass":
        return np.where(total == 0, 1, total), {place: sign[place] * (total != 0) for place in inside}
    largest: Any = np.float32(0)
    for one in size.values():
        largest = np.maximum(largest, one)
    above, below = np.maximum(total, 1), np.maximum(largest, 1)
    return above / below, {
        place: sign[place]
        * ((total > 1) / below - ((largest > 1) & (size[place] == largest)) * above / below**2)
        for place in inside
    }


def _largest(
    inside: Mapping[int, NDArray[np.bool_]], w: Mapping[int, Floats]
) -> dict[int, NDArray[np.bool_]]:
    """The coordinates at which each term has the first of the largest magnitudes in A."""
    found: dict[int, NDArray[np.bool_]] = {}
    size = {place: np.where(member, np.abs(w[place]), -1) for place, member in inside.items()}
    best = np.max(list(size.values()), axis=0) if size else 0
    taken: Any = False
    for place, member in inside.items():
        found[place] = member & (size[place] == best) & np.logical_not(taken)
        taken = taken | found[place]
    return found


def _trimmed(t: Floats, theta: float) -> Floats:
    """u: t if |t| ≥ θ; a θ of NaN keeps everything, a negative one nothing."""
    if math.isnan(theta):
        return t
    kept: Floats = np.where(np.abs(t) >= theta, t, np.float32(0)) if theta >= 0 else np.zeros_like(t)
    return kept


def _differences(part: DecodedChunk, dtype: int, place: int, block: slice) -> Floats:
    """t of one term at some coordinates; 0 where it is not finite."""
    row = part.row(place)[block]
    if row.dtype == np.float32:
        t = row.copy()
    else:
        t = np.empty(row.size, np.float32)
        cpu.add_differences(part.sorted_base[block], row, 1.0, dtype, t, first=True)
    t[~np.isfinite(t)] = 0
    return t
