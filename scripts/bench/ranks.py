#!/usr/bin/env python3
"""How far are the probabilities of DELLA from those of ranks within rows?

    scripts/bench/ranks.py BASE FINE_TUNE…

For each fine-tune, over all changed elements of its matrices, with density 0.5 and epsilon 0.15: the mean
distance of p (docs/numerics.md, "Row filters") from p by exact ranks in each row, as the paper and mergekit
have it, and from p by exact ranks in the tensor. Equal magnitudes are ranked by their place, as a stable sort
does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open

from persona.merge.reference_trims import probabilities

DENSITY, EPSILON = 0.5, 0.15


def matrices(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """The matrices of a checkpoint by name."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            names: list[str] = list(tensors.keys())
            for name in names:
                tensor = tensors.get_tensor(name)
                if tensor.ndim == 2:
                    yield name, tensor.float()


def by_exact_rank(magnitudes: torch.Tensor) -> torch.Tensor:
    """p by rank along the last axis: float64, like `magnitudes`."""
    ranks = magnitudes.argsort(dim=-1, stable=True).argsort(dim=-1).double()
    return (DENSITY - EPSILON) + ranks / (magnitudes.shape[-1] - 1) * 2 * EPSILON


def main() -> None:
    """Prints one line for each fine-tune."""
    base = dict(matrices(Path(sys.argv[1])))
    for folder in sys.argv[2:]:
        changed, from_rows, from_tensor = 0, 0.0, 0.0
        for name, tensor in matrices(Path(folder)):
            t = tensor - base[name]
            where = t != 0
            if where.any():
                p = probabilities(t, DENSITY, EPSILON)[where]
                changed += p.numel()
                from_rows += float((p - by_exact_rank(t.abs())[where]).abs().sum())
                whole = by_exact_rank(t.abs().flatten()).reshape(t.shape)[where]
                from_tensor += float((p - whole).abs().sum())
        print(
            f"{Path(folder).name}: {changed:,} changed, mean distance {from_rows / changed:.4f} from ranks in"
            f" rows, {from_tensor / changed:.4f} from exact ranks in the tensor"
        )


if __name__ == "__main__":
    main()
