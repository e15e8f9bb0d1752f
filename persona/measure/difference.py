"""The largest difference between the weights of a plan and those that were trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from persona.codec.floats import in_default_environment
from persona.merge.arithmetic import casts
from persona.merge.plan import Plan
from persona.merge.run.merger import pieces
from persona.objects.dtypes import DTYPES, uint
from persona.objects.tensors import TensorSpec
from persona.progress import Progress

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Trained(Protocol):
    """Weights under the names of a base. Thread-safe."""

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """The tensors."""

    def read_into(self, name: str, start_byte: int, out: WriteableBuffer) -> None:
        """Fills `out` with bytes of a tensor, from the first byte of a chunk on."""


@in_default_environment
def largest_difference(
    plan: Plan, trained: Trained, *, threads: int | None, memory: int | None, progress: Progress | None
) -> float | None:
    """The largest |difference| between the weights of a plan and other weights, over shared tensors.

    Elements that are not finite in one of them are left out. None if they share no tensor.
    """
    specs = trained.specs
    wanted = [
        tensor
        for tensor in plan.tensors
        if tensor.spec.merged
        and (other := specs.get(tensor.spec.name)) is not None
        and other.shape == tensor.spec.shape
        and DTYPES[other.dtype].is_float
    ]
    largest = 0.0 if wanted else None
    for piece in pieces(
        plan, wanted, threads=threads, memory=memory, progress=progress, not_finite=lambda *_: None
    ):
        spec = specs[piece.spec.name]
        ours = casts.widen(np.frombuffer(piece.data, uint(piece.spec.unit)), piece.spec.dtype)
        theirs = np.empty(ours.size, uint(spec.unit))
        start = piece.start // piece.spec.unit * spec.unit
        trained.read_into(piece.spec.name, start, theirs.view(np.uint8).data)
        with np.errstate(invalid="ignore"):
            difference = np.abs(ours - casts.widen(theirs, spec.dtype))
        finite = np.isfinite(difference)
        largest = max(largest or 0.0, float(np.max(difference, initial=0.0, where=finite)))
    return largest
