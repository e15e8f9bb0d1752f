"""Checkpoints on disk, written and read from the format's own description, without the library under test.

A tensor may be given as a `Tensor`, as bytes (U8), as an array of bits of its shape (16 bits wide: BF16, 32:
F32), as (dtype, shape, bits), or as floats (F32 with one dimension).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from blake3 import blake3

Bits: TypeAlias = np.ndarray[Any, Any]

UNSIGNED = {
    "BF16": np.uint16,
    "F16": np.uint16,
    "F32": np.uint32,
    "I32": np.uint32,
    "I64": np.uint64,
    "U8": np.uint8,
}
"""The unsigned integers that hold the bits of a dtype's elements."""
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Tensor:
    """The elements of a tensor as the bits they are stored with."""

    dtype: str
    bits: Bits

    def same(self, other: Tensor) -> bool:
        return self.dtype == other.dtype and np.array_equal(self.bits, other.bits)


Model: TypeAlias = dict[str, Tensor]
Given: TypeAlias = Tensor | bytes | Bits | tuple[str, Sequence[int], Bits] | Sequence[float]


def tensor_of(given: Given) -> Tensor:
    """A tensor, however it is given."""
    if isinstance(given, Tensor):
        return given
    if isinstance(given, bytes):
        return Tensor("U8", np.frombuffer(given, np.uint8))
    if isinstance(given, np.ndarray):
        return Tensor({2: "BF16", 4: "F32"}[given.itemsize], given)
    if isinstance(given, tuple):
        dtype, shape, bits = given
        return Tensor(dtype, bits.reshape(shape))
    return Tensor("F32", np.array(given, np.float32).view(np.uint32))


def bf16(values: Bits) -> Bits:
    """The bits of floats cut off to bf16."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


# -- written


def file_of(header: bytes | str | object, data: bytes = b"") -> bytes:
    """A file with this header (bytes, text, or an object to write as JSON), whatever it says."""
    if not isinstance(header, (bytes, str)):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode()
    return len(header).to_bytes(8, "little") + header + data


def write_file(path: Path, tensors: Mapping[str, Given], metadata: Mapping[str, str] | None = None) -> Path:
    """A safetensors file, its tensors in the order that they are given in."""
    header: dict[str, object] = {"__metadata__": metadata or {"format": "pt"}}
    data = b""
    for name, given in tensors.items():
        tensor = tensor_of(given)
        raw = tensor.bits.tobytes()
        shape, offsets = list(tensor.bits.shape), [len(data), len(data) + len(raw)]
        header[name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": offsets}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    path.write_bytes(file_of(text + b" " * (-len(text) % 8), data))
    return path


def write_shards(directory: Path, shards: Mapping[str, Mapping[str, Given]]) -> Path:
    """Safetensors files with their index: the name of each file → its tensors."""
    directory.mkdir(parents=True, exist_ok=True)
    size = sum(write_file(directory / file, tensors).stat().st_size for file, tensors in shards.items())
    weight_map = {name: file for file, tensors in shards.items() for name in tensors}
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (directory / INDEX).write_text(json.dumps(index))
    return directory


def write_weights(directory: Path, tensors: Mapping[str, Given], shards: int = 1) -> Path:
    """The weights of a model directory: one file, or `shards` of them with their index."""
    if shards > 1:
        names = list(tensors)
        parts = [{name: tensors[name] for name in names[number::shards]} for number in range(shards)]
        return write_shards(
            directory,
            {
                f"model-{number:05}-of-{shards:05}.safetensors": part
                for number, part in enumerate(parts, start=1)
            },
        )
    directory.mkdir(parents=True, exist_ok=True)
    write_file(directory / "model.safetensors", tensors)
    return directory


def write_model(directory: Path, tensors: Mapping[str, Given], **files: str) -> Path:
    """A model directory: weights in one file, a config.json, and text files by their names."""
    write_weights(directory, tensors)
    for name, content in ({"config.json": '{"model_type": "tiny"}\n'} | files).items():
        (directory / name).write_text(content)
    return directory


# -- read


def read_file(path: Path) -> Model:
    """The tensors of a safetensors file."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    found: Model = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            bits = np.frombuffer(data[start + first : start + last], UNSIGNED[entry["dtype"]])
            found[name] = Tensor(entry["dtype"], bits.reshape(entry["shape"]))
    return found


def read_weights(directory: Path) -> Model:
    """Every tensor of a model directory. As in transformers, one file goes before an index."""
    if (directory / "model.safetensors").exists():
        return read_file(directory / "model.safetensors")
    weight_map = json.loads((directory / INDEX).read_text())["weight_map"]
    files = {file: read_file(directory / file) for file in set(weight_map.values())}
    return {name: files[file][name] for name, file in weight_map.items()}


def same(one: Mapping[str, Given], other: Mapping[str, Given]) -> bool:
    """Whether two models are equal bit for bit."""
    return one.keys() == other.keys() and all(
        tensor_of(one[name]).same(tensor_of(other[name])) for name in one
    )


def digest_of(tensors: Mapping[str, Given]) -> str:
    """The weights digest, from its definition in docs/numerics.md."""
    whole = blake3()
    for name in sorted(tensors, key=str.encode):
        tensor = tensor_of(tensors[name])
        for text in (name.encode(), tensor.dtype.encode()):
            whole.update(struct.pack("<Q", len(text)) + text)
        shape = tensor.bits.shape
        whole.update(struct.pack(f"<{1 + len(shape)}Q", len(shape), *shape))
        whole.update(tensor_digest(tensor.bits.tobytes()))
    return "blake3:" + whole.hexdigest()


def tensor_digest(data: bytes) -> bytes:
    """The digest of a tensor of these bytes, from its definition in docs/numerics.md."""
    blocks = [blake3(data[at : at + (4 << 20)]).digest() for at in range(0, len(data), 4 << 20)]
    return blake3(b"".join(blocks)).digest()


def digest_of_files(directory: Path) -> str:
    """The weights digest of the safetensors files that lie in a directory."""
    found: Model = {}
    for file in directory.glob("*.safetensors"):
        found |= read_file(file)
    return digest_of(found)
