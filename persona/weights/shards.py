"""Shards: how tensors are divided among the files of a written checkpoint.

`plan_shards` decides, and `by_layers` divides further. A single shard is `model.safetensors`. Several are
`model-00001-of-00004.safetensors` and so on; when a writer publishes them, their names get twelve more digits
(`published_name`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from blake3 import blake3

from persona import limits
from persona.errors import InvalidInput, Keyword
from persona.frozen import dataclass
from persona.objects.base import Shard
from persona.objects.tensors import TensorSpec
from persona.weights.index import SINGLE_NAME

if TYPE_CHECKING:
    from persona.weights.safetensors import TensorEntry

_PLANNED = re.compile(r"model-\d{5,}-of-\d{5,}\.safetensors")
_PUBLISHED = re.compile(r"model-\d{5,}-of-\d{5,}-[0-9a-f]{12}\.safetensors")
_DIGITS = re.compile(r"(\d+)")
_LAYER = re.compile(r"\D*\d+(?=\.)")
_FORMAT = {"format": "pt"}


@dataclass(frozen=True)
class ShardLayout:
    """One file to write: its name before publication, its tensors, and its safetensors metadata."""

    name: str
    specs: tuple[TensorSpec, ...]
    metadata: dict[str, str]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, the header not counted."""
        return sum(spec.nbytes for spec in self.specs)

    def header(self) -> tuple[bytes, dict[str, TensorEntry]]:
        """The first bytes of the file, and the position of each tensor: `safetensors.encode_header`."""
        from persona.weights.safetensors import encode_header  # `status` writes no file

        return encode_header(self.specs, self.metadata)


def shard_digest(specs: Sequence[TensorSpec], metadata: Mapping[str, str], digests: Mapping[str, str]) -> str:
    """BLAKE3 hex of all that a file of weights holds; `digests`: name → digest of each tensor, in hex."""
    held = sorted((spec.name, spec.dtype, list(spec.shape), digests[spec.name]) for spec in specs)
    return blake3(json.dumps([held, dict(metadata)], sort_keys=True).encode("utf-8")).hexdigest()


def plan_shards(
    specs: Sequence[TensorSpec],
    max_shard_size: int | None = None,
    *,
    shards: Sequence[Shard] = (),
    shard_of: Sequence[int] = (),
) -> list[ShardLayout]:
    """The files to write `specs` into.

    Without `max_shard_size` (bytes of tensors in one file) they are the base's; its `shards` and `shard_of`
    (an index into `shards` for each of `specs`) are given, and without them there is one file. With
    `max_shard_size` they are filled in the base's order of shards, then by name with numbers by value; a
    larger tensor has a file of its own. Metadata is the base's, and gets `format` if it lacks one, because
    transformers does not load a file without. Raises InvalidInput for a size below 1.
    """
    if max_shard_size is not None and max_shard_size < 1:
        raise InvalidInput(
            f"a shard size of {max_shard_size} bytes is too small; give one of at least 1 (like 5GB)"
        )
    if shard_of and len(shard_of) != len(specs):
        raise ValueError(f"{len(specs)} tensors but {len(shard_of)} places")
    places = shard_of or [0] * len(specs)
    groups: list[list[TensorSpec]] = []
    metadata: list[dict[str, str]] = []
    if max_shard_size is None:
        for index in sorted(set(places)):
            groups.append([spec for spec, place in zip(specs, places, strict=True) if place == index])
            metadata.append(_FORMAT | (shards[index].metadata if index < len(shards) else {}))
    else:
        common = _FORMAT | _common([shard.metadata for shard in shards])
        free = 0
        for _, spec in sorted(
            zip(places, specs, strict=True), key=lambda pair: (pair[0], _natural(pair[1].name))
        ):
            if not groups or spec.nbytes > free:
                groups.append([])
                metadata.append(common)
                free = max_shard_size
            groups[-1].append(spec)
            free -= spec.nbytes
    if not groups:
        groups, metadata = [[]], [_FORMAT]
    if len(groups) > limits.MAX_SHARDS:
        raise InvalidInput(
            f"{len(groups)} shards are more than {limits.MAX_SHARDS}",
            hint=("give a larger ", Keyword("max_shard_size")),
        )
    return _named(groups, metadata)


def by_layers(layout: Sequence[ShardLayout], size: int) -> list[ShardLayout]:
    """The same files, each cut into files of at most `size` bytes of tensors.

    So a change of one layer is written without its neighbours. A layer that fits stays whole, and a larger
    tensor has a file of its own. A single file stays as it is. So do all files if there would be too many.
    """
    if len(layout) == 1:
        return list(layout)
    groups: list[list[TensorSpec]] = []
    metadata: list[dict[str, str]] = []
    for shard in layout:
        free = -1
        ordered = sorted(shard.specs, key=lambda spec: _natural(spec.name))
        for _, found in groupby(ordered, key=_layer):
            layer = list(found)
            whole = sum(spec.nbytes for spec in layer) <= size
            for part in [layer] if whole else [[spec] for spec in layer]:
                nbytes = sum(spec.nbytes for spec in part)
                if free < nbytes:
                    groups.append([])
                    metadata.append(shard.metadata)
                    free = size
                groups[-1] += part
                free -= nbytes
    return list(layout) if len(groups) > limits.MAX_SHARDS else _named(groups, metadata)


def planned_name(index: int, count: int) -> str:
    """The name of file `index` (from 0) of `count` before publication."""
    return SINGLE_NAME if count == 1 else f"model-{index + 1:05}-of-{count:05}.safetensors"


def published_name(name: str, unique: str) -> str:
    """The planned name of one of several shards, made unique by twelve hex digits."""
    if not _PLANNED.fullmatch(name):
        raise ValueError(f"{name!r} is not a planned name")
    return f"{name.removesuffix('.safetensors')}-{unique}.safetensors"


def is_published_name(name: str) -> bool:
    """Whether a writer of persona gave a shard this name."""
    return _PUBLISHED.fullmatch(name) is not None


def _named(groups: Sequence[list[TensorSpec]], metadata: Sequence[dict[str, str]]) -> list[ShardLayout]:
    return [
        ShardLayout(planned_name(index, len(groups)), tuple(group), text)
        for index, (group, text) in enumerate(zip(groups, metadata, strict=True))
    ]


def _layer(spec: TensorSpec) -> str:
    """The start of a tensor's name, up to its first number; all of it without one."""
    found = _LAYER.match(spec.name)
    return found[0] if found else spec.name


def _common(texts: Sequence[dict[str, str]]) -> dict[str, str]:
    """The entries that all shards agree on."""
    first = texts[0] if texts else {}
    return {key: value for key, value in first.items() if all(text.get(key) == value for text in texts)}


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts layers.2 before layers.10."""
    return tuple(
        (0, int(part), "") if part.isdigit() and part.isascii() else (1, 0, part)
        for part in _DIGITS.split(name)
    )
