"""The largest difference between the weights of a plan and those of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from persona.codec.floats import in_default_environment
from persona.merge.arithmetic import casts
from persona.merge.plan import Plan
from persona.merge.run.merger import pieces
from persona.objects.dtypes import DTYPES, uint
from persona.progress import Progress
from persona.weights.checkpoint import Checkpoint


@in_default_environment
def largest_difference(
    plan: Plan, path: Path, *, threads: int | None, memory: int | None, progress: Progress | None
) -> float:
    """The largest |difference| between the weights of a plan and a checkpoint, over shared tensors.

    Elements that are not finite in one of them are left out.
    """
    largest = 0.0
    with Checkpoint.open(path) as checkpoint:
        wanted = [
            tensor
            for tensor in plan.tensors
            if tensor.spec.merged
            and tensor.spec.name in checkpoint.tensors
            and checkpoint.spec(tensor.spec.name).shape == tensor.spec.shape
            and DTYPES[checkpoint.spec(tensor.spec.name).dtype].is_float
        ]
        for piece in pieces(
            plan,
            wanted,
            threads=threads,
            memory=memory,
            progress=progress,
            not_finite=lambda *_: None,
        ):
            spec = checkpoint.spec(piece.spec.name)
            ours = casts.widen(np.frombuffer(piece.data, uint(piece.spec.unit)), piece.spec.dtype)
            theirs = np.empty(ours.size, uint(spec.unit))
            checkpoint.read_into(
                spec.name, piece.start // piece.spec.unit * spec.unit, theirs.view(np.uint8).data
            )
            with np.errstate(invalid="ignore"):
                difference = np.abs(ours - casts.widen(theirs, spec.dtype))
            finite = np.isfinite(difference)
            largest = max(largest, float(np.max(difference, initial=0.0, where=finite)))
        checkpoint.check_unchanged()
    return largest
