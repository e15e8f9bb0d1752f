"""Checkpoints made by hand: safetensors files with any header, and model directories of a few bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from blake3 import blake3

from persona.objects.tensors import TensorSpec
from persona.weights.checkpoint import Checkpoint
from persona.weights.safetensors import encode_header
from persona.weights.shards import plan_shards
from persona.weights.writer import ModelWriter

Contents = Mapping[str, bytes]


def file_of(header: bytes | str | object, data: bytes = b"") -> bytes:
    """A file with this header (bytes, text, or an object to write as JSON), whatever it says."""
    if not isinstance(header, (bytes, str)):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode()
    return len(header).to_bytes(8, "little") + header + data


def entry(
    dtype: str = "U8", shape: list[int] | None = None, begin: int = 0, end: int = 2
) -> dict[str, object]:
    """A header's entry; by default of two bytes."""
    return {"dtype": dtype, "shape": [2] if shape is None else shape, "data_offsets": [begin, end]}


def specs_of(contents: Contents) -> list[TensorSpec]:
    """A U8 tensor for each of the contents."""
    return [TensorSpec(name, "U8", (len(data),)) for name, data in sorted(contents.items())]


def save(path: Path, contents: Contents, metadata: Mapping[str, str] | None = None) -> Path:
    """A valid safetensors file of U8 tensors."""
    header, entries = encode_header(specs_of(contents), metadata)
    path.write_bytes(header + b"".join(contents[name] for name in entries))
    return path


def save_sharded(directory: Path, shards: Mapping[str, Contents]) -> Path:
    """A valid sharded checkpoint: file name → contents."""
    directory.mkdir(exist_ok=True)
    for name, contents in shards.items():
        save(directory / name, contents)
    weight_map = {tensor: name for name, contents in shards.items() for tensor in contents}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


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
