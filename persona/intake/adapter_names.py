"""The names of an adapter's tensors, mapped to those of its base.

A model's modules and the tensors of its checkpoint may have different prefixes: in transformers 5, a file's
`language_model.model.layers.0` is the module `model.language_model.layers.0`. A name is mapped if the base
has it, or if exactly one tensor of the base has the same stem. Else the parts that a wrapper of the model
added are taken off (`_orig_mod`), and the name is looked up again. Nothing else is tried.

**stem** — a tensor's name without the prefix of its model: `layers.0.mlp.up_proj.weight`.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Final

from persona.errors import InvalidInput
from persona.objects.base import Base
from persona.objects.tensors import TensorSpec
from persona.weights.adapters import WRAPPER_PARTS

_PREFIXES: Final = (
    "model.language_model.",
    "language_model.model.",
    "language_model.",
    "transformer.",
    "model.",
)
"""The prefixes of language models in files and in memory, longer ones first."""


class Names:
    """Finds tensors of a base by the names that an adapter gives them.

    `remapped` counts the names that were found by their stem; `wrappers` has the parts of wrappers that were
    taken off; `tied` has, for the names that the base ties to
    another tensor, the base's own name for it.
    """

    def __init__(self, base: Base, path: Path) -> None:
        self._base = base
        self._path = path
        self.remapped = 0
        self.wrappers: set[str] = set()
        self.tied: dict[str, str] = {}
        self._stems: defaultdict[str, list[str]] = defaultdict(list)
        for name in [*base.spec, *base.tied]:
            self._stems[stem(name)].append(name)

    def find(self, name: str) -> TensorSpec | None:
        """The tensor that an adapter calls `name`; None if the base has none.

        Raises `InvalidInput` if several tensors of the base may be meant.
        """
        held = name
        if name not in self._base.spec and name not in self._base.tied:
            found = self._stems.get(stem(name), [])
            if not found:
                bare = unwrapped(name)
                if bare == name or (spec := self.find(bare)) is None:
                    return None
                self.wrappers |= WRAPPER_PARTS.intersection(name.split("."))
                if bare in self.tied:
                    self.tied[name] = self.tied[bare]
                return spec
            if len(found) > 1:
                raise InvalidInput(
                    f"{self._path}: {name} may be {' or '.join(sorted(found))} of the base; rename the"
                    " tensors of the adapter as the base does"
                )
            held = found[0]
            self.remapped += 1
        target = self._base.tied.get(held)
        if target is not None:
            self.tied[name] = held
        return self._base.spec[target or held]


def unwrapped(name: str) -> str:
    """A name without the parts that wrappers of the model added."""
    return ".".join(part for part in name.split(".") if part not in WRAPPER_PARTS)


def stem(name: str) -> str:
    """A name without the prefix of its model. Mixtral's files say `block_sparse_moe`, its modules `mlp`."""
    name = name.replace(".block_sparse_moe.", ".mlp.")
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name
