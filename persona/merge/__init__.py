"""Recipe and store -> weights, and checkpoint -> vector.

Nouns
    reference   the specification in plain torch, whole tensors; the kernels equal it bit for bit
    rules       what decides a merge, as numbers
    intake      a checkpoint becomes a base or a vector
    plan        what a checkout has to do for each tensor; no chunk is read
    cut-off     the smallest magnitude that a density keeps, found exactly
    stream      finished bytes, chunk by chunk, in order, from all cores
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """`reference`, imported when first asked for: it needs torch."""
    if name == "reference":
        return import_module("persona.merge.reference")
    raise AttributeError(f"module 'persona.merge' has no attribute {name!r}")
