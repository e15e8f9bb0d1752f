"""**index** — `model.safetensors.index.json`: which tensor lies in which shard.

persona's own index also lists, under `metadata.replaced`, the weight files that the publication was about to
remove. So a cut between the two leaves no file that nothing names. Each entry has the file's inode and the
time of the inode's last change (`replaced_entry`), which no program sets. So the list of a downloaded index
names no file of this machine, and an old list names no file that was put back later.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from persona import limits
from persona.errors import InvalidInput
from persona.frozen import dataclass
from persona.weights.inputs import Fingerprint, read_watched
from persona.weights.scan import Scan, shorten

SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_PICKLE = "adapter_model.bin"
ADAPTER_FILES = frozenset({ADAPTER_CONFIG, ADAPTER_WEIGHTS, ADAPTER_PICKLE})
"""The names that PEFT gives the files of an adapter."""
_MAX_MEMBERS = 64


@dataclass(frozen=True)
class ShardIndex:
    """The content of an index.

    `weight_map`: tensor name → shard file name, each checked to be a plain name. `replaced`: entries of
    `replaced_entry`, not checked.
    """

    weight_map: dict[str, str]
    replaced: tuple[str, ...] = ()

    def shard_names(self) -> list[str]:
        """The names of the shards, sorted."""
        return sorted(set(self.weight_map.values()))


def read_index(path: Path) -> ShardIndex:
    """The index at `path`.

    Raises InvalidInput for anything that is not an index, and for shard names that are path tricks.
    """
    return read_watched_index(path)[0]


def read_watched_index(path: Path) -> tuple[ShardIndex, Fingerprint]:
    """Like `read_index`, with the file's fingerprint when it was opened."""
    data, seen = read_watched(path, limit=limits.MAX_INDEX_BYTES)
    scan = Scan(data, f"{path}: the index")
    weight_map: dict[str, str] | None = None
    replaced: tuple[str, ...] = ()
    for count, key in enumerate(scan.members()):
        if count == _MAX_MEMBERS:
            scan.fail(f"more than {_MAX_MEMBERS} members")
        if key == "weight_map":
            weight_map = scan.strings()
        elif key == "metadata":
            metadata = scan.value()
            names = metadata.get("replaced", []) if isinstance(metadata, dict) else []
            if isinstance(names, list):
                replaced = tuple(name for name in names if isinstance(name, str))
        else:
            scan.value()
    scan.end()
    if weight_map is None:
        raise InvalidInput(
            f"{path} is not an index of weights, as it has no weight_map; give the directory of the model"
        )
    if not weight_map:
        raise InvalidInput(f"{path}: the index lists no tensor; save or download the checkpoint again")
    for tensor, shard in weight_map.items():
        if not is_shard_name(shard):
            raise InvalidInput(
                f"{path}: the tensor {shorten(tensor)} is said to lie in {shorten(shard)}, which is not the"
                " plain name of a .safetensors file beside the index; give a safetensors checkpoint"
            )
    return ShardIndex(weight_map, replaced), seen


def encode_index(weight_map: Mapping[str, str], total_bytes: int, replaced: Iterable[str] = ()) -> bytes:
    """The bytes of an index, as `save_pretrained` writes it; `total_bytes` counts the tensors' own bytes."""
    metadata: dict[str, object] = {"total_size": total_bytes}
    if names := sorted(replaced):
        metadata["replaced"] = names
    text = json.dumps(
        {"metadata": metadata, "weight_map": dict(weight_map)}, indent=2, sort_keys=True, ensure_ascii=False
    )
    return text.encode("utf-8") + b"\n"


def is_shard_name(name: str) -> bool:
    """Whether `name` is the plain name of a visible .safetensors file, without a directory."""
    return (
        name.endswith(".safetensors")
        and not name.startswith((".", "-"))
        and not any(char in "/\\" or ord(char) < 0x20 or 0xD800 <= ord(char) <= 0xDFFF for char in name)
        and len(name.encode("utf-8")) <= limits.MAX_NAME_BYTES
    )


def replaced_entry(path: Path) -> str:
    """The entry in an index for a file that is to be removed, or for one that took its place.

    It has the name, the inode and the time of the inode's last change in nanoseconds.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return path.name
    return f"{status.st_ino} {status.st_ctime_ns} {path.name}"
