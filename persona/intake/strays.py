"""Strays: tensors that the base lacks, in a module or a layer that it has. A trained bias is one, or a mask.

The module computes with it, so to leave it out changes the model. A value head or a multi-token head is no
stray: the model computes without it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from persona.errors import Hint, Keyword
from persona.intake import wrappers
from persona.intake.naming import pattern
from persona.intake.parts import Held
from persona.intake.remarks import UNQUANTISED
from persona.objects.base import Base
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
_SIMULATED: Final = re.compile(r"(?:_quantizer|fake_quant\w*|_post_process\w*)(?:\.|$)")
"""Modules that simulate a quantisation while a model is trained: of ModelOpt and of torch."""


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
        if not spec.elements or is_buffer(spec):
            return False
        for name in (spec.name, wrappers.bare(spec.name)):
            if name.rpartition(".")[0] in self._direct:
                return True
            if any(parent in self._leaves or parent in self._layers for parent in _parents(name)):
                return True
        return False

    def hold_inside(self, name: str, held: Mapping[str, Held]) -> bool:
        """Whether a vector that the model lacks is a module like those beside it, as a norm is.

        `held`: the tensors of its checkpoint. A module with a matrix may be another head.
        """
        module = name.rpartition(".")[0]
        outer = module.rpartition(".")[0]
        if not outer or is_buffer(held[name].spec) or held[name].spec.elements < 2:
            return False
        beside = [one.spec.shape for other, one in held.items() if other.startswith(f"{module}.")]
        is_beside = any(leaf.rpartition(".")[0] == outer for leaf in self._leaves)
        return is_beside and all(len(shape) == 1 for shape in beside)


def lost_parts(base: Base, lost: Collection[str], held: Collection[str]) -> list[str]:
    """Vectors of modules and layers that a checkpoint has, but lacks these in all of them: biases, say.

    If it lacks matrices of layers too, it may hold only the tensors that were trained. `held`: the tensors
    that it has.
    """
    specs = [base.spec[name] for name in lost]
    if any(numbered(spec.name) is not None and not _is_vector(spec) for spec in specs):
        return []
    there = {pattern(name) for name in base.spec if name not in lost}
    modules = Modules(held)
    return [
        spec.name
        for spec in specs
        if _is_vector(spec) and pattern(spec.name) not in there and modules.hold(spec)
    ]


def is_buffer(spec: TensorSpec) -> bool:
    """Whether every program computes the numbers of a tensor: a mask, or frequencies."""
    return spec.name.rpartition(".")[2] in _BUFFERS or _is_mask(spec)


def _is_vector(spec: TensorSpec) -> bool:
    return len(spec.shape) < 2


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _is_mask(spec: TensorSpec) -> bool:
    """Whether a tensor is the causal mask of an attention, which GPT-2 calls its bias."""
    return spec.name.endswith(".bias") and len(spec.shape) == 4


def advice(names: Sequence[str], *, partial: bool = False) -> tuple[str, Hint]:
    """What strays do, as the end of a sentence, and what to do about them. `partial`: they are of a patch."""
    if partial:
        return "the names seem to be those of another program", (
            "write the patch with the names and the shapes of the base's own tensors, without the parts of a"
            " wrapper, and with projections apart as in the base"
        )
    part = _SIMULATED.search(names[0])
    if part is not None and all(part[0] in name for name in names):
        said = f"{names[0]} belongs to a quantisation that the training simulated"
        leave = Keyword(extra=f"*{part[0].strip('.')}*")
        return said, (leave, " leaves them out, and the model computes with the weights that are not rounded")
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
