"""Recipe and store -> weights.

`rules` has the numbers of a recipe's rules, `plan` decides what each tensor needs, `cutoffs` finds the
smallest magnitude that a density keeps, `arithmetic` merges one chunk, `devices` does it on a GPU, and `run`
turns a plan into finished bytes on all cores. `reference` is the specification in plain torch, on whole
tensors; the kernels equal it bit for bit.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """`reference`, imported when first asked for: it needs torch."""
    if name == "reference":
        return import_module("persona.merge.reference")
    raise AttributeError(f"module 'persona.merge' has no attribute {name!r}")
