"""Strays: tensors that the base lacks, in a module or a layer that it has. A trained bias is one, or a mask.

The module computes with it, so to leave it out changes the model. A value head or a multi-token head is no
stray: the model computes without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from persona.errors import Hint
from persona.intake import wrappers
from persona.intake.parts import Held
from persona.intake.remarks import UNQUANTISED
from persona.objects.layers import numbered
from persona.objects.tensors import TensorSpec
from persona.weights import quantised

_BUFFERS: Final = frozenset(
    "position_ids token_type_ids num_batches_tracked inv_freq original_inv_freq masked_bias cos_cached"
    " sin_cached relative_position_index".split()
)
"""Numbers that every program computes, whatever the training: the end of their names."""
_PARAMETRIZED: Final = re.compile(
    r"\.parametrizations\.|[._](?:weight|bias)_(?:g|v|u|orig|mask)$|\.(?:weight|bias)_(?:u|v)$"
)


class Modules:
    """The modules and layers of a model. `names`: of its tensors, as a base or a checkpoint has them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._direct = {each.rpartition(".")[0] for name in names for each in (name, wrappers.bare(name))}
        self._direct.discard("")
        outer = {parent for module in self._direct for parent in _parents(module)}
        self._leaves = self._direct - outer
        split = (numbered(f"{module}.x") for module in self._direct)
        self._layers = {f"{each[0]}.{each[1]}" for each in split if each is not None and len(each[2]) > 1}

    def hold(self, spec: TensorSpec) -> bool:
        """Whether a tensor that the model lacks is a part of one of its modules or layers."""
        if not spec.elements or spec.name.rpartition(".")[2] in _BUFFERS or _is_mask(spec):
            return False
        for name in (spec.name, wrappers.bare(spec.name)):
            if name.rpartition(".")[0] in self._direct:
                return True
            if any(parent in self._leaves or parent in self._layers for parent in _parents(name)):
                return True
        return False

    def strays(self, names: Iterable[str], held: dict[str, Held]) -> list[str]:
        """Those of some tensors that are parts of modules or layers."""
        return [name for name in names if self.hold(held[name].spec)]


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _is_mask(spec: TensorSpec) -> bool:
    """Whether a tensor is the causal mask of an attention, which GPT-2 calls its bias."""
    return spec.name.endswith(".bias") and len(spec.shape) == 4


def advice(names: Sequence[str]) -> tuple[str, Hint]:
    """What strays do, as the end of a sentence, and what to do about them."""
    if scales := [name for name in names if quantised.is_part(name)]:
        said = f"{scales[0]} is a part of a quantised layer, so the weights beside it are not the model's"
        return said, UNQUANTISED
    said = "they are parts of modules of the base, so leaving them out changes the model"
    if len(names) == 1:
        said = "it is a part of a module of the base, so leaving it out changes the model"
    if any(map(_PARAMETRIZED.search, names)):
        return said, (
            "compute the weights from their parts (remove_parametrizations, remove_weight_norm or"
            " prune.remove of torch), and save the model with save_pretrained"
        )
    return said, (
        "start from a base that holds them: make the base's model with the fine-tune's config, set them to"
        " numbers that change nothing (0 for a bias, 1 for a factor), and save it with save_pretrained"
    )
