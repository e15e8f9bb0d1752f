"""The merge rules of docs/numerics.md in plain torch: whole tensors, no optimisation.

Every kernel must equal this bit for bit. The names are the page's: b, t, u, w, v, e, s, A, m, D, x. All
arithmetic is binary32 in canonical order of the terms. This module settles what the page leaves open:

- A coordinate whose e is NaN (infinite changes against each other) elects nobody and is not finite, whatever
  else holds.
- D = ±inf is not finite although m would be 0: nothing that follows from it is "x = 0".
- Under trim = joint the stack holds every term whose filter admits the tensor, also terms that join by
  adding, though these are not trimmed themselves.
- A difference only in a zero's sign is t = 0.

torch is imported at the top: only tests and the CUDA checks import this module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from persona.codec.floats import in_default_environment
from persona.errors import InvalidInput
from persona.frozen import dataclass
from persona.merge.reference_trims import filtered
from persona.merge.rules import (
    KEEP_NOTHING,
    NO_TRIM,
    MergeRules,
    MergeTerm,
    canonical_order,
    cut_rank,
    joint_rank,
)
from persona.objects.dtypes import DTYPES

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Numbers:
    """A change that is given as its numbers, t: float32 of the base's shape; there is no f."""

    t: torch.Tensor


Changes = Mapping[str, torch.Tensor | Numbers]
"""name → the fine-tune's tensor f, of the base's dtype, or t."""

CANONICAL_NAN = {torch.bfloat16: 0x7FC0, torch.float16: 0x7E00, torch.float32: 0x7FC00000}
"""dtype → the bits of an element that is not finite."""


@in_default_environment
def merge(
    base: Tensors, changes: Sequence[Changes], terms: Sequence[MergeTerm], rules: MergeRules
) -> dict[str, torch.Tensor]:
    """The merged tensors of a recipe.

    base: name → tensor, any shape; changes[k]: name → the fine-tune's tensor or its `Numbers`, for the
    tensors that the vector of terms[k] may change. bf16, fp16 and fp32 are merged, others copied. The order
    of the terms changes no bit. Elements that are not finite come out as the canonical quiet NaN:
    `not_finite` counts them. Raises `InvalidInput`.
    """
    spelled = [
        (each, one) for each, term in zip(changes, terms, strict=True) for one in term.in_each_layer(base)
    ]
    indices = canonical_order((term for _, term in spelled), rules)
    changes, terms = zip(*(spelled[k] for k in indices), strict=True) if spelled else ((), ())
    check(base, changes)
    changes = [_filtered(base, each, term, rules) for each, term in zip(changes, terms, strict=True)]
    merged = [name for name in base if base[name].dtype in CANONICAL_NAN]
    taus = [{name: tau(base[name], each.get(name, base[name])) for name in merged} for each in changes]
    thetas = [thresholds(taus, terms, rules, name) for name in merged]
    tie = 0
    if rules.needs_majority:
        tie = sum(
            _majority([taus[k][name] for k in range(len(terms))], theta, terms, rules, name)
            for name, theta in zip(merged, thetas, strict=True)
        )
    out = {name: tensor.clone() for name, tensor in base.items()}
    for name, theta in zip(merged, thetas, strict=True):
        after = [each.get(name, base[name]) for each in changes]
        admitted = [k for k in range(len(terms)) if terms[k].admits(name)]
        out[name] = merge_tensor(
            base[name],
            [after[k] for k in admitted],
            [theta[k] for k in admitted],
            [terms[k] for k in admitted],
            rules,
            rules.tie(tie),
        )
    return out


@in_default_environment
def merge_tensor(
    base: torch.Tensor,
    after: Sequence[torch.Tensor | Numbers],
    theta: Sequence[float],
    terms: Sequence[MergeTerm],
    rules: MergeRules,
    tie: int,
) -> torch.Tensor:
    """One tensor: the terms admitted, in canonical order, with their cut-offs; `tie` is the sign of a tie."""
    reaching = [k for k in range(len(terms)) if _reaches(after[k], base)]
    if len(reaching) == 1:
        lone, term = after[reaching[0]], terms[reaching[0]]
        at_full_strength = term.alpha == 1 and rules.lambda_ == 1
        if isinstance(lone, torch.Tensor) and at_full_strength and term.keeps_everything(rules):
            return lone.clone()

    b = base.float()
    zero = torch.zeros_like(b)
    t = [tau(base, each) for each in after]
    voting = [k for k in range(len(terms)) if terms[k].join == "vote"]
    adding = [k for k in range(len(terms)) if terms[k].join == "add"]
    w, v, e = _votes(t, theta, terms, rules)

    if rules.elect == "none":
        members = {k: w[k] != 0 for k in voting}
        undecided = torch.zeros_like(b, dtype=torch.bool)
    else:
        s = torch.where(e > 0, 1, torch.where(e < 0, -1, torch.where(e == 0, tie, 0)))
        members = {k: (s != 0) & (_sign(v[k]) == s) for k in voting}
        undecided = e.isnan()

    total, divisor, strongest, largest = zero, zero, zero, zero
    count = torch.zeros_like(b, dtype=torch.int32)
    for k in voting:
        inside = members[k]
        total = torch.where(inside, total + w[k], total)
        divisor = torch.where(inside, divisor + _share(terms[k], rules), divisor)
        strongest = torch.where(inside, strongest.clamp(min=_binary32(abs(terms[k].alpha))), strongest)
        largest = torch.where(inside & (_magnitude(w[k]) > _magnitude(largest)), w[k], largest)
        count = count + inside.int()
    if rules.merge == "mean":
        if rules.divide == "strength":
            divisor = divisor.clamp(min=1.0) / strongest.clamp(min=1.0)
        divisor = torch.where(divisor == 0, torch.ones_like(b), divisor)
        m = total / divisor
    else:
        divisor = torch.ones_like(b)
        m = total if rules.merge == "sum" else largest
    x = _binary32(rules.lambda_) * m
    finite = e.isfinite() & divisor.isfinite() & m.isfinite()
    if rules.merge != "max":
        finite &= total.isfinite()
    for k in range(len(terms)):
        finite &= t[k].isfinite()
        if k in members:
            finite &= w[k].isfinite()
    for k in adding:
        at = _times(terms[k].alpha, t[k])
        members[k] = at != 0
        count = count + members[k].int()
        x = x + at
    out = (b + x).to(base.dtype)
    finite &= x.isfinite() & out.isfinite()

    result = torch.where(finite, _bits(out), _canonical_nan(base))
    untouched = (count == 0) | ((x == 0) & divisor.isfinite())
    result = torch.where(untouched, _bits(base), result)
    for k in range(len(terms)):
        own = after[k]
        at_full_strength = terms[k].alpha == 1 and (terms[k].join == "add" or rules.lambda_ == 1)
        if isinstance(own, torch.Tensor) and at_full_strength:
            result = torch.where(members[k] & (count == 1), _bits(own), result)
    result = torch.where(undecided, _canonical_nan(base), result)
    return result.view(base.dtype)


@in_default_environment
def thresholds(
    taus: Sequence[Tensors], terms: Sequence[MergeTerm], rules: MergeRules, name: str
) -> list[float]:
    """θ of every term for one tensor, in their order; taus[k] holds t of every merged tensor of the base."""
    found = []
    for k, term in enumerate(terms):
        density = term.effective_density(rules)
        if term.keeps_everything(rules) or rules.filters:
            found.append(NO_TRIM)
        elif rules.trim == "joint":
            stack = [taus[j][name] for j in range(len(terms)) if terms[j].admits(name)]
            found.append(_joint(stack, density))
        else:
            scope = taus[k].values() if rules.trim == "global" else [taus[k][name]]
            magnitudes = torch.cat([tau.abs().flatten() for tau in scope])
            found.append(order_statistic(magnitudes, cut_rank(rules.rank or "", density, magnitudes.numel())))
    return found


def order_statistic(magnitudes: torch.Tensor, rank: int) -> float:
    """The rank-th largest; KEEP_NOTHING for rank 0, NO_TRIM for a rank beyond their number."""
    if rank > magnitudes.numel():
        return NO_TRIM
    if rank <= 0:
        return KEEP_NOTHING
    return float(magnitudes.sort(descending=True).values[rank - 1])


@in_default_environment
def low_rank(a: torch.Tensor, b: torch.Tensor, scale: float) -> torch.Tensor:
    """t of a low-rank vector, A [rank, in] and B [out, rank] in float32: product then add, `scale` last."""
    t = b[:, 0:1] * a[0:1, :]
    for r in range(1, a.shape[0]):
        t = t + b[:, r : r + 1] * a[r : r + 1, :]
    return t * _binary32(scale)


@in_default_environment
def expression(taus: Sequence[torch.Tensor], coefficients: Sequence[float]) -> torch.Tensor:
    """t of an expression: the taus in order of vector id, each times its coefficient, then added."""
    t = torch.zeros_like(taus[0])
    for j, (tau, coefficient) in enumerate(zip(taus, coefficients, strict=True)):
        product = _binary32(coefficient) * tau
        t = t + product if j else product
    return t


def not_finite(base: Tensors, merged: Tensors) -> dict[str, int]:
    """name → number of elements that became not finite, for the tensors that have any."""
    counts = {
        name: int((~merged[name].isfinite() & (_bits(merged[name]) != _bits(base[name]))).sum())
        for name in base
        if base[name].dtype in CANONICAL_NAN
    }
    return {name: count for name, count in counts.items() if count}


def check(base: Tensors, changes: Sequence[Changes]) -> None:
    """Refuses with `InvalidInput` any input that must not reach the arithmetic."""
    for each in changes:
        for name, after in each.items():
            if isinstance(after, Numbers):
                _check_numbers(base, name, after.t)
                continue
            if name not in base or base[name].dtype != after.dtype or base[name].shape != after.shape:
                raise InvalidInput(f"{name}: not a tensor of the base, or of another dtype or shape")
            before = base[name]
            if before.dtype not in CANONICAL_NAN:
                if not torch.equal(*(item.reshape(-1).view(torch.uint8) for item in (before, after))):
                    raise InvalidInput(f"{name}: a tensor of dtype {before.dtype} differs from the base's")
                continue
            strange = ~(before.isfinite() & after.isfinite()) & (_bits(before) != _bits(after))
            if strange.any():
                first = int(strange.flatten().nonzero()[0])
                raise InvalidInput(f"{name}: {int(strange.sum())} elements not finite, the first at {first}")


def _votes(
    t: Sequence[torch.Tensor], theta: Sequence[float], terms: Sequence[MergeTerm], rules: MergeRules
) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor], torch.Tensor]:
    """w and v of the voting terms, and e (zeros for elect = none)."""
    w: dict[int, torch.Tensor] = {}
    v: dict[int, torch.Tensor] = {}
    e = torch.zeros_like(t[0]) if t else torch.zeros(())
    for k, term in enumerate(terms):
        if term.join != "vote":
            continue
        u = torch.where(_kept(t[k], theta[k]), t[k], torch.zeros_like(t[k]))
        w[k] = _times(term.alpha, u)
        v[k] = u if rules.weigh == "after" else w[k]
        if rules.elect == "mass":
            e = e + v[k]
        elif rules.elect == "count":
            e = e + _sign(v[k])
    return w, v, e


def _filtered(base: Tensors, changes: Changes, term: MergeTerm, rules: MergeRules) -> Changes:
    """The changes of a term that its filter leaves.

    A tensor from which everything was dropped is still one that the term reaches.
    """
    if not rules.filters or term.keeps_everything(rules):
        return changes
    found = dict(changes)
    for name, change in changes.items():
        b = base[name]
        if b.dtype not in CANONICAL_NAN or not _reaches(change, b):
            continue
        u = filtered(tau(b, change), term, rules, name)
        found[name] = Numbers(u)
        if isinstance(change, torch.Tensor) and not rules.rescales and bool((u != 0).any()):
            found[name] = torch.where(u != 0, change, b)
    return found


def _check_numbers(base: Tensors, name: str, t: torch.Tensor) -> None:
    if name not in base or base[name].dtype not in CANONICAL_NAN or base[name].shape != t.shape:
        raise InvalidInput(f"{name}: not a tensor that is merged, or of another shape")
    if t.dtype != torch.float32:
        raise InvalidInput(f"{name}: numbers are of dtype float32, not {t.dtype}")


def _times(alpha: float, t: torch.Tensor) -> torch.Tensor:
    """α·t; 0 for α = 0, however large t is: a behaviour turned off leaves nothing behind."""
    return _binary32(alpha) * t if alpha != 0 else torch.zeros_like(t)


def _kept(t: torch.Tensor, theta: float) -> torch.Tensor:
    if math.isnan(theta):
        return t != 0
    if theta == KEEP_NOTHING:
        return torch.zeros_like(t, dtype=torch.bool)
    return (t != 0) & ~(t.abs() < theta)  # NaN is larger than every number


def _majority(
    t: Sequence[torch.Tensor],
    theta: Sequence[float],
    terms: Sequence[MergeTerm],
    rules: MergeRules,
    name: str,
) -> int:
    """Σ sign(e) over one tensor."""
    admitted = [k for k in range(len(terms)) if terms[k].admits(name)]
    _, _, e = _votes(
        [t[k] for k in admitted], [theta[k] for k in admitted], [terms[k] for k in admitted], rules
    )
    return int(_sign(e).to(torch.int64).sum())


def _joint(stack: Sequence[torch.Tensor], density: float) -> float:
    magnitudes = torch.cat([tau.abs().flatten() for tau in stack]) if stack else torch.zeros(0)
    return (
        order_statistic(magnitudes, joint_rank(density, magnitudes.numel()))
        if magnitudes.numel()
        else NO_TRIM
    )


def _reaches(after: torch.Tensor | Numbers, base: torch.Tensor) -> bool:
    return isinstance(after, Numbers) or not torch.equal(_bits(after), _bits(base))


def tau(base: torch.Tensor, after: torch.Tensor | Numbers) -> torch.Tensor:
    """t in binary32: as given, or f − b, 0 if the bits are the same (also if neither is finite)."""
    if isinstance(after, Numbers):
        return after.t
    same = _bits(base) == _bits(after)
    return torch.where(same, torch.zeros(()), after.float() - base.float())


def _share(term: MergeTerm, rules: MergeRules) -> torch.Tensor:
    """One member's part of D."""
    if rules.divide == "count":
        return _binary32(1.0)
    return _binary32(term.alpha if rules.divide == "weight" else abs(term.alpha))


def _binary32(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float32)


def _sign(value: torch.Tensor) -> torch.Tensor:
    return (value > 0).int() - (value < 0).int()


def _magnitude(value: torch.Tensor) -> torch.Tensor:
    """|value| as an integer that orders like it; NaN is the largest."""
    return value.view(torch.int32) & 0x7FFFFFFF


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(torch.int32 if tensor.dtype == torch.float32 else torch.int16)


def _canonical_nan(like: torch.Tensor) -> torch.Tensor:
    return torch.full_like(_bits(like), CANONICAL_NAN[like.dtype])


def as_tensor(raw: Any, dtype: str, shape: Sequence[int]) -> torch.Tensor:
    """Raw little-endian bytes (uint8[n], numpy, writable) as a tensor of a safetensors dtype, without a copy.

    A dtype that torch does not have stays uint8[n].
    """
    name = DTYPES[dtype].torch
    flat = torch.from_numpy(raw)
    return flat if name is None else flat.view(getattr(torch, name)).reshape(tuple(shape))
