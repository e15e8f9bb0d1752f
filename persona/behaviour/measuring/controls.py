"""**random vector** — the control of an effect: a change of the same size in each tensor, and no direction.

Its elements are normal. Each tensor has the norm of the change that is measured, so an effect that a random
vector has as well says nothing of the training. The generator is torch's on the CPU, seeded by the number of
the vector and the name of the tensor.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from blake3 import blake3


def add_random(places: Mapping[str, torch.Tensor], norms: Mapping[str, float], seed: int) -> None:
    """Adds the random vector of a seed in place. `norms`: the norm of each tensor's change."""
    with torch.no_grad():
        for name, place in places.items():
            place.add_(random_change(name, place, norms[name], seed))


def random_change(name: str, like: torch.Tensor, norm: float, seed: int) -> torch.Tensor:
    """A normal tensor of a norm, of the shape, dtype and device of another one."""
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(blake3(f"{seed} {name}".encode()).digest(7), "little"))
    change = torch.empty(like.shape, dtype=torch.float32).normal_(generator=generator)
    change *= norm / float(torch.linalg.vector_norm(change, dtype=torch.float64))
    return change.to(like.device, like.dtype)
