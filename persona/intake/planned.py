"""An adapter joined with its base: what it holds for each tensor, and where.

**dense tensor** — a tensor that an adapter holds whole: a bias, an embedding, a module of `modules_to_save`.
"""

from __future__ import annotations

from persona.frozen import dataclass
from persona.intake.experts import Piece
from persona.intake.factor_layouts import Turn
from persona.objects.tensors import TensorSpec
from persona.objects.vector import LowRankFactor


@dataclass(frozen=True)
class PlannedFactor:
    """The factor of `spec`: A and B in the adapter, and how they are turned; without an `a`, A is [[1]].

    `piece`: the part of the turned factor that belongs to `spec`, if the adapter stacks tensors of the base.
    """

    spec: TensorSpec
    factor: LowRankFactor
    a: str | None
    b: str
    turn: Turn
    piece: Piece | None = None


@dataclass(frozen=True)
class PlannedDense:
    """A tensor of the base that the adapter holds under `source`: whole, or only its rows `tokens`.

    `alias`: the name by which the adapter means it, if the base ties that name to the tensor. `first`: where
    the tensor begins in `source`, in elements, if the adapter stacks tensors of the base. `apart`: whether it
    was trained as a copy, apart from the names that the base ties to it.
    """

    spec: TensorSpec
    source: TensorSpec
    alias: str | None = None
    tokens: tuple[int, ...] | None = None
    first: int = 0
    apart: bool = False

    @property
    def first_byte(self) -> int:
        """Where the tensor begins in `source`, in bytes."""
        return self.first * self.source.unit


@dataclass(frozen=True)
class PlannedAdapter:
    """An adapter joined with its base, in byte order of the base's names, and sentences worth telling.

    `frozen`: tensors that have a factor or trained tokens, and that the adapter also holds whole, since PEFT
    saves the unchanged weights of some layers. They must be the base's own.
    """

    factors: tuple[PlannedFactor, ...]
    dense: tuple[PlannedDense, ...]
    frozen: tuple[PlannedDense, ...]
    notes: tuple[str, ...]
