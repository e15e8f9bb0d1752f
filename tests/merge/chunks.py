"""Small tensors and their stored form, for the tests of the merge: bits in, chunks in exponent order out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from persona.merge import reference
from persona.merge.arithmetic import cpu
from persona.merge.arithmetic.arguments import DecodedChunk, MergeArguments
from persona.merge.reference import thresholds
from persona.merge.rules import MergeRules, MergeTerm, canonical_order

TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
UINT = {"BF16": np.uint16, "F16": np.uint16, "F32": np.uint32}
CODE = {"BF16": cpu.BF16, "F16": cpu.F16, "F32": cpu.F32}
EXPONENT = {"BF16": (7, 0xFF), "F16": (10, 0x1F), "F32": (23, 0xFF)}


def tensor(bits: np.ndarray[Any, Any], dtype: str) -> torch.Tensor:
    """The torch tensor of an array of bits."""
    signed = np.int16 if bits.dtype.itemsize == 2 else np.int32
    return torch.from_numpy(bits.view(signed).copy()).view(TORCH[dtype])


def bits(value: torch.Tensor) -> np.ndarray[Any, Any]:
    """The bits of a tensor, flat."""
    width = value.element_size() * 8
    signed = torch.int16 if width == 16 else torch.int32
    return value.flatten().view(signed).numpy().view(np.uint16 if width == 16 else np.uint32)


def ulp_delta(base: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """z of docs/format.md, from its definition."""
    width = base.dtype.itemsize * 8
    modulus, half = 1 << width, 1 << (width - 1)

    def mono(x: int) -> int:
        return ~x % modulus if x >= half else x | half

    found = []
    for before, now in zip(base.tolist(), after.tolist(), strict=True):
        d = (mono(now) - mono(before)) % modulus
        d = d - modulus if d >= half else d
        found.append(2 * d if d >= 0 else -2 * d - 1)
    return np.array(found, base.dtype)


@dataclass
class Chunk:
    """One chunk as the kernels take it."""

    base: np.ndarray[Any, Any]
    z: np.ndarray[Any, Any]
    order: np.ndarray[Any, Any]

    @property
    def decoded(self) -> DecodedChunk:
        """As the CPU's kernel takes it."""
        return DecodedChunk(list(range(len(self.z))), self.base, self.z, self.order)

    @classmethod
    def of(cls, base: np.ndarray[Any, Any], afters: Sequence[np.ndarray[Any, Any]], dtype: str) -> Chunk:
        shift, mask = EXPONENT[dtype]
        order = np.argsort((base >> shift) & mask, kind="stable").astype(np.uint32)
        z = np.empty((len(afters), base.size), base.dtype)
        for k, after in enumerate(afters):
            z[k] = ulp_delta(base, after)[order]
        return cls(base[order], z, order)


def merge_by_kernel(
    base: np.ndarray[Any, Any],
    afters: Sequence[np.ndarray[Any, Any]],
    terms: Sequence[MergeTerm],
    rules: MergeRules,
    dtype: str,
) -> tuple[np.ndarray[Any, Any], int]:
    """(bits, count not finite) of a tensor "w" through the kernels, without the whole-tensor rule."""
    indices = canonical_order(terms, rules)
    terms, afters = [terms[k] for k in indices], [afters[k] for k in indices]
    theta = cut_offs(base, afters, terms, rules, dtype)
    alpha = np.array([term.alpha for term in terms], np.float32)
    add = np.array([term.join == "add" for term in terms], np.bool_)
    chunk = Chunk.of(base, afters, dtype)
    majority = 0
    if rules.needs_majority:
        z = np.ascontiguousarray(chunk.z[~add])
        majority = cpu.sum_of_signs(chunk.base, z, theta[~add], alpha[~add], rules, CODE[dtype])
    out = np.full_like(base, 0xAAAA)
    arguments = MergeArguments(theta, alpha, add, rules, CODE[dtype], majority)
    bad = cpu.merge_chunk(chunk.decoded, arguments, out)
    return out, bad


def by_reference(
    base: Any, afters: list[Any], terms: list[MergeTerm], rules: MergeRules, dtype: str
) -> tuple[Any, int]:
    """(bits, count not finite) of a tensor "w" through the reference."""
    model = {"w": tensor(base, dtype)}
    fine_tuned = [{"w": tensor(after, dtype)} for after in afters]
    merged = reference.merge(model, fine_tuned, terms, rules)
    return bits(merged["w"]), reference.not_finite(model, merged).get("w", 0)


def cut_offs(
    base: np.ndarray[Any, Any],
    afters: Sequence[np.ndarray[Any, Any]],
    terms: Sequence[MergeTerm],
    rules: MergeRules,
    dtype: str,
) -> np.ndarray[Any, Any]:
    """θ of every term by the reference, float32[K]."""
    b = tensor(base, dtype).float()
    taus = []
    for after in afters:
        t = tensor(after, dtype).float() - b
        t[torch.from_numpy(base == after)] = 0
        taus.append({"w": t})
    return np.array(thresholds(taus, terms, rules, "w"), np.float32)


def rounded(number: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """float32 → bits of the dtype."""
    return bits(torch.from_numpy(number).to(TORCH[dtype])).copy()
