"""The names of an adapter's tensors, mapped to those of its base.

A model's modules and the tensors of its checkpoint may have different prefixes: in transformers 5, a file's
`language_model.model.layers.0` is the module `model.language_model.layers.0`. A name is mapped if the base
has it, or if exactly one tensor of the base has the same stem. Nothing else is tried.

**stem** — a tensor's name without the prefix of its model: `layers.0.mlp.up_proj.weight`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from persona.errors import InvalidInput
from persona.intake.adapter_config import UNTIE_FIRST
from persona.objects.base import Base
from persona.objects.tensors import TensorSpec
from persona.weights.tied import is_head, is_shared

_PREFIXES: Final = (
    "model.language_model.",
    "language_model.model.",
    "language_model.",
    "transformer.",
    "model.",
)
"""The prefixes of language models in files and in memory, longer ones first."""
_LORA: Final = re.compile(r"\.(?:base_layer\.weight|lora_[AB]\.weight|lora_embedding_[AB])$")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


class Names:
    """Finds tensors of a base by the names that an adapter gives them.

    `remapped` counts the names that were found by their stem; `tied` has, for the names that the base ties to
    another tensor, the base's own name for it.
    """

    def __init__(self, base: Base, path: Path) -> None:
        self._base = base
        self._path = path
        self.remapped = 0
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
                return None
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


def stem(name: str) -> str:
    """A name without the prefix of its model. Mixtral's files say `block_sparse_moe`, its modules `mlp`."""
    name = name.replace(".block_sparse_moe.", ".mlp.")
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def grouped(names: Iterable[str]) -> str:
    """All names in a sentence; those that differ only in numbers are one, with their count."""
    counts: dict[str, int] = {}
    for name in names:
        pattern = _NUMBER.sub("*", name)
        counts[pattern] = counts.get(pattern, 0) + 1
    return ", ".join(
        f"{pattern} ({count})" if count > 1 else pattern for pattern, count in counts.items()
    ).replace("\n", "?")


def unmatched(path: Path, base: Base, names: Sequence[str], trained_on: str | None) -> InvalidInput:
    """The error for names that the base does not have: how many, which, and what the adapter belongs to."""
    hint = None
    plain = [_LORA.sub(".weight", name) for name in names]
    if all(map(is_shared, plain)) and any(map(is_shared, base.spec)) and not _holds_head(base, plain):
        layers = grouped(dict.fromkeys(name.rpartition(".")[0] for name in plain))
        hint = f"if the base ties {layers} to another layer, {UNTIE_FIRST}"
    of = f"; the adapter was trained on {trained_on!r:.200}" if trained_on else ""
    one = len(names) == 1
    return InvalidInput(
        f"{path}: the base has no tensor for {len(names)} name{'' if one else 's'} of the adapter:"
        f" {grouped(names)}{of}; use the base that it was trained on",
        hint=hint,
    )


def _holds_head(base: Base, names: Iterable[str]) -> bool:
    """Whether the names are those of output matrices, and the base holds one."""
    return all(map(is_head, names)) and any(map(is_head, base.spec))
