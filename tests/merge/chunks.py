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
from persona.merge.reference import Numbers, thresholds
from persona.merge.rules import MergeRules, MergeTerm, canonical_order

TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
UINT = {"BF16": np.uint16, "F16": np.uint16, "F32": np.uint32}
CODE = {"BF16": cpu.BF16, "F16": cpu.F16, "F32": cpu.F32}
Change = np.ndarray[Any, Any]
"""A fine-tune's elements as bits, or t as float32."""
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
    """One chunk as the kernels take it; without `row_of` all rows are steps."""

    base: np.ndarray[Any, Any]
    z: np.ndarray[Any, Any]
    order: np.ndarray[Any, Any]
    numbers: np.ndarray[Any, Any] | None = None
    row_of: np.ndarray[Any, Any] | None = None

    @property
    def decoded(self) -> DecodedChunk:
        """As the CPU's kernel takes it."""
        if self.numbers is None or self.row_of is None:
            return DecodedChunk(list(range(len(self.z))), self.base, self.z, self.order)
        present = list(range(self.row_of.size))
        in_order = np.array_equal(self.order, np.arange(self.base.size))
        return DecodedChunk(present, self.base, self.z, self.order, self.numbers, self.row_of, in_order)

    @classmethod
    def of(cls, base: np.ndarray[Any, Any], changes: Sequence[Change], dtype: str) -> Chunk:
        """Changes of float32 are numbers, the others a fine-tune's elements.

        In exponent order if none are numbers, else in element order.
        """
        if any(change.dtype == np.float32 for change in changes):
            return cls._mixed(base, changes)
        shift, mask = EXPONENT[dtype]
        order = np.argsort((base >> shift) & mask, kind="stable").astype(np.uint32)
        z = np.empty((len(changes), base.size), base.dtype)
        for k, after in enumerate(changes):
            z[k] = ulp_delta(base, after)[order]
        return cls(base[order], z, order)

    @classmethod
    def _mixed(cls, base: np.ndarray[Any, Any], changes: Sequence[Change]) -> Chunk:
        is_numbers = [change.dtype == np.float32 for change in changes]
        steps = [ulp_delta(base, change) for change in changes if change.dtype != np.float32]
        numbers = [change for change in changes if change.dtype == np.float32]
        row_of, seen = np.empty(len(changes), np.int32), [0, 0]
        for k, kind in enumerate(is_numbers):
            row_of[k] = -1 - seen[kind] if kind else seen[kind]
            seen[kind] += 1
        z = np.stack(steps) if steps else np.empty((0, base.size), base.dtype)
        return cls(base, z, np.arange(base.size, dtype=np.uint32), np.stack(numbers), row_of)

    def in_place(self) -> Chunk:
        """The chunk in element order."""
        back = np.argsort(self.order)
        in_order = np.arange(self.base.size, dtype=np.uint32)
        numbers = None if self.numbers is None else np.ascontiguousarray(self.numbers[:, back])
        return Chunk(self.base[back], np.ascontiguousarray(self.z[:, back]), in_order, numbers, self.row_of)

    def voting(self, add: np.ndarray[Any, Any]) -> Chunk:
        """The chunk with the rows of the terms that vote."""
        if self.row_of is None:
            return Chunk(self.base, np.ascontiguousarray(self.z[~add]), self.order)
        return Chunk(self.base, self.z, self.order, self.numbers, self.row_of[~add])


def as_change(change: Change, dtype: str) -> torch.Tensor | Numbers:
    """A change as the reference takes it."""
    if change.dtype == np.float32:
        return Numbers(torch.from_numpy(change.copy()))
    return tensor(change, dtype)


def merge_by_kernel(
    base: np.ndarray[Any, Any],
    afters: Sequence[Change],
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
        majority = cpu.sum_of_signs(chunk.voting(add).decoded, theta[~add], alpha[~add], rules, CODE[dtype])
    out = np.full_like(base, 0xAAAA)
    arguments = MergeArguments(theta, alpha, add, rules, CODE[dtype], majority)
    bad = cpu.merge_chunk(chunk.decoded, arguments, out)
    return out, bad


def by_reference(
    base: Any, afters: Sequence[Change], terms: list[MergeTerm], rules: MergeRules, dtype: str
) -> tuple[Any, int]:
    """(bits, count not finite) of a tensor "w" through the reference."""
    model = {"w": tensor(base, dtype)}
    merged = reference.merge(model, [{"w": as_change(after, dtype)} for after in afters], terms, rules)
    return bits(merged["w"]), reference.not_finite(model, merged).get("w", 0)


def cut_offs(
    base: np.ndarray[Any, Any],
    afters: Sequence[Change],
    terms: Sequence[MergeTerm],
    rules: MergeRules,
    dtype: str,
) -> np.ndarray[Any, Any]:
    """θ of every term by the reference, float32[K]."""
    b = tensor(base, dtype)
    taus = [{"w": reference.tau(b, as_change(after, dtype))} for after in afters]
    return np.array(thresholds(taus, terms, rules, "w"), np.float32)


def rounded(number: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """float32 → bits of the dtype."""
    return bits(torch.from_numpy(number).to(TORCH[dtype])).copy()
