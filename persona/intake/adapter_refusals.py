"""The errors for an adapter that does not fit its base, with their hints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from persona.errors import InvalidInput
from persona.intake.adapter_config import MERGE_FIRST, UNTIE_FIRST
from persona.intake.growth import vocabulary
from persona.objects.base import Base
from persona.objects.tensors import TensorSpec
from persona.weights.tied import is_head, is_shared

_LORA: Final = re.compile(r"\.(?:base_layer\.weight|lora_[AB]\.weight|lora_embedding_[AB])$")
_NUMBER: Final = re.compile(r"(?<=\.)\d+(?=\.)")


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
    hint = (
        f"if this is that base, its model has other names in memory than in its file: {MERGE_FIRST}. If PEFT"
        " warns of missing keys, it is another base"
    )
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


def misfit(path: Path, spec: TensorSpec, a: TensorSpec, b: TensorSpec, *, embedding: bool) -> InvalidInput:
    """The error for factors that do not fit a tensor of the base. `embedding`: of an embedding layer."""
    first, second = list(a.shape), list(b.shape)
    if 0 in first or 0 in second:
        return InvalidInput(
            f"{path}: {a.name} has the shape {first}, so its factor has rank 0, or was saved before its parts"
            " were gathered; save the adapter again"
        )
    more, tokens = "", 0
    if len(spec.shape) == len(first) == len(second) == 2:
        rows = first[1] if embedding else second[0]
        columns = second[0] if embedding else first[1]
        changed = TensorSpec(spec.name, spec.dtype, (rows, columns))
        tokens = rows if vocabulary([(spec, changed)]) is not None else 0
    if tokens:
        more = f"; its vocabulary has {tokens} tokens"
    elif len(spec.shape) == 3 and len(first) == 2 and spec.shape[0] == 1:
        more = "; a stack of one expert is not supported"
    elif 2 < len(spec.shape) == len(first) == len(second) and first[0] != second[1]:
        more = "; convolutions with groups are not supported"
    return InvalidInput(
        f"{path}: {a.name} {first} and {b.name} {second} do not fit the tensor {spec.name}"
        f" {list(spec.shape)} of the base{more}; use the base that the adapter was trained on",
        hint=resized(tokens) if tokens > spec.shape[0] else None,
    )


def resized(tokens: int) -> str:
    """The advice for an adapter of a base to which its training added tokens."""
    return (
        f"if its training added tokens to this base, load the base, call resize_token_embeddings({tokens}),"
        f" and {MERGE_FIRST}"
    )


def wrong_shape(path: Path, given: TensorSpec, spec: TensorSpec) -> InvalidInput:
    """The error for a tensor of an adapter that has not the shape of that of the base."""
    return InvalidInput(
        f"{path}: {given.name} {list(given.shape)} does not fit the tensor {spec.name} {list(spec.shape)} of"
        " the base; use the base that the adapter was trained on"
    )
