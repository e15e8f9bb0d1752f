"""Experts that an adapter stacks in one tensor and that the base holds one by one.

transformers 5 makes one parameter of the experts of a layer, [experts, out, in], and saves each expert's own
tensors. An adapter of that parameter is an adapter of each of these tensors: they share A, and each has rows
of B.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from persona.frozen import dataclass
from persona.objects.tensors import TensorSpec

Piece = tuple[int, int, int]
"""A block of a factor, its first row, and the row after its last."""

STACKED: Final = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
    "up_proj": (("up_proj",),),
}
"""The name of a parameter → the names of each expert's tensors, whose rows follow one another in it."""


@dataclass(frozen=True)
class Target:
    """A tensor of the base, or a stack of tensors of the base: then `pieces` has each with its part of it."""

    spec: TensorSpec
    pieces: tuple[tuple[TensorSpec, Piece], ...] = ()


def stack_of_experts(key: str, find: Callable[[str], TensorSpec | None]) -> Target | None:
    """The stack that an adapter calls `key`, if the base has its parts.

    `find`: a tensor of the base by its name in the adapter.
    """
    module, _, parameter = key.rpartition(".")
    for names in STACKED.get(parameter, ()):
        pieces: list[tuple[TensorSpec, Piece]] = []
        expert = 0
        while experts := [find(f"{module}.{expert}.{name}.weight") for name in names]:
            row = 0
            for spec in experts:
                if spec is None or len(spec.shape) != 2:
                    break
                pieces.append((spec, (expert, row, row + spec.shape[0])))
                row += spec.shape[0]
            if None in experts:
                break
            expert += 1
        if expert and (target := _stacked(key, pieces, expert, len(names))) is not None:
            return target
    return None


def _stacked(key: str, pieces: list[tuple[TensorSpec, Piece]], experts: int, parts: int) -> Target | None:
    """The stack of equal experts, None if they are not equal."""
    first = pieces[0][0]
    rows = pieces[parts - 1][1][2]
    shapes = {(spec.dtype, spec.shape[1], piece[1:]) for spec, piece in pieces}
    if len(pieces) != experts * parts or len(shapes) != parts:
        return None
    return Target(TensorSpec(key, first.dtype, (experts, rows, first.shape[1])), tuple(pieces))
