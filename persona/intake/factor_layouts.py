"""The layouts in which PEFT holds the factors of a tensor, known by their shapes.

For every layout, a *turn* makes A [blocks, rank, columns] and B [blocks, rows, rank] of docs/format.md from
the adapter's `lora_A` and `lora_B`. It moves elements and computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.frozen import dataclass
from persona.intake.adapter_config import GROUPED
from persona.objects.tensors import TensorSpec

Bits = NDArray[Any]
"""Elements as unsigned integers of their width."""
Turn = Callable[[Bits, Bits], tuple[Bits, Bits]]


@dataclass(frozen=True)
class Layout:
    """A reading of `lora_A` and `lora_B`. `transposed`: the base's tensor is [in, out] (Conv1D of GPT-2)."""

    rank: int
    turn: Turn
    blocks: int = 1
    transposed: bool = False


def layouts(
    spec: TensorSpec, a: TensorSpec, b: TensorSpec, *, embedding: bool, packing: str | None
) -> list[Layout]:
    """All readings of A and B that fit the shape of `spec`. `packing`: how B of stacked experts is packed."""
    if len(spec.shape) == 2 and len(a.shape) == len(b.shape) == 2:
        return _of_matrix(spec, a, b, embedding=embedding)
    if embedding:
        return []
    if len(spec.shape) == 3 and len(a.shape) == len(b.shape) == 2:
        return _of_experts(spec, a, b, packing)
    return _of_convolution(spec, a, b)


def _of_matrix(spec: TensorSpec, a: TensorSpec, b: TensorSpec, *, embedding: bool) -> list[Layout]:
    """A linear layer [out, in], Conv1D [in, out], or an embedding [vocabulary, dimensions]."""
    (rank, in_), (out, inner) = a.shape, b.shape
    found: list[Layout] = []
    if rank != inner or rank < 1:
        return found
    if not embedding and spec.shape == (out, in_):
        found.append(Layout(rank, lambda a, b: (a[None], b[None])))
    if spec.shape == (in_, out):
        found.append(Layout(rank, lambda a, b: (b.T[None], a.T[None]), transposed=not embedding))
    return found


def _of_convolution(spec: TensorSpec, a: TensorSpec, b: TensorSpec) -> list[Layout]:
    """A convolution [out, in, kernel…] without groups: B is a convolution of kernel 1."""
    if not spec.shape or not a.shape or a.shape[0] < 1:
        return []
    rank, ones = a.shape[0], (1,) * (len(spec.shape) - 2)
    if a.shape != (rank, *spec.shape[1:]) or b.shape != (spec.shape[0], rank, *ones):
        return []
    return [Layout(rank, lambda a, b: (a.reshape(1, rank, -1), b.reshape(1, -1, rank)))]


def _of_experts(spec: TensorSpec, a: TensorSpec, b: TensorSpec, packing: str | None) -> list[Layout]:
    """Stacked experts [experts, out, in] or [experts, in, out], as PEFT's target_parameters adapts them.

    A holds the experts one after another. In B, PEFT's own layout has the experts of one rank side by side
    (`rank_major`), and another one has the ranks of one expert side by side (`grouped_by_expert`).
    """
    experts = spec.shape[0]
    (stacked, in_), (out, inner) = a.shape, b.shape
    rank = stacked // experts
    found: list[Layout] = []
    if experts < 2 or rank < 1 or rank * experts != stacked or stacked != inner:
        return found

    def apart(a: Bits, b: Bits) -> tuple[Bits, Bits]:
        """A [experts, rank, in] and B [experts, out, rank]."""
        if packing == GROUPED:
            return a.reshape(experts, rank, in_), b.reshape(out, experts, rank).transpose(1, 0, 2)
        return a.reshape(experts, rank, in_), b.reshape(out, rank, experts).transpose(2, 0, 1)

    def transposed(a: Bits, b: Bits) -> tuple[Bits, Bits]:
        a, b = apart(a, b)
        return b.transpose(0, 2, 1), a.transpose(0, 2, 1)

    if spec.shape[1:] == (out, in_):
        found.append(Layout(rank, apart, experts))
    if spec.shape[1:] == (in_, out):
        found.append(Layout(rank, transposed, experts, transposed=True))
    return found


def matrix(bits: Bits) -> Bits:
    """The elements in row-major order."""
    return np.ascontiguousarray(bits)
