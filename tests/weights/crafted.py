"""Checkpoints of a few bytes: what is in them, and what a writer makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from blake3 import blake3

from persona.objects.tensors import TensorSpec
from persona.weights.checkpoint import Checkpoint
from persona.weights.shards import plan_shards
from persona.weights.writer import ModelWriter

Contents = Mapping[str, bytes]


def entry(
    dtype: str = "U8", shape: list[int] | None = None, begin: int = 0, end: int = 2
) -> dict[str, object]:
    """A header's entry; by default of two bytes."""
    return {"dtype": dtype, "shape": [2] if shape is None else shape, "data_offsets": [begin, end]}


def specs_of(contents: Contents) -> list[TensorSpec]:
    """A U8 tensor for each of the contents."""
    return [TensorSpec(name, "U8", (len(data),)) for name, data in sorted(contents.items())]


def publish(directory: Path, contents: Contents, max_shard_size: int | None = None) -> list[str]:
    """Write these contents into `directory` with a ModelWriter."""
    with ModelWriter(directory, plan_shards(specs_of(contents), max_shard_size)) as writer:
        for name, data in contents.items():
            writer.write(name, 0, data)
        return writer.publish(digests_of(contents))


def digests_of(contents: Contents) -> dict[str, str]:
    """The BLAKE3 of each tensor."""
    return {name: blake3(data).hexdigest() for name, data in contents.items()}


def contents_of(path: Path) -> dict[str, bytes]:
    """Every tensor's bytes, as a Checkpoint reads them."""
    with Checkpoint.open(path) as checkpoint:
        found = {}
        for name, (spec, _) in checkpoint.tensors.items():
            found[name] = bytearray(spec.nbytes)
            checkpoint.read_into(name, 0, found[name])
        return {name: bytes(data) for name, data in found.items()}


def names_in(directory: Path) -> list[str]:
    """The names in a directory, sorted."""
    return sorted(path.name for path in directory.iterdir())
