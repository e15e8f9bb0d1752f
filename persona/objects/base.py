"""**base** — an immutable snapshot of a checkpoint: its tensors and the files that make it load.

**shard** — one weights file of a checkpoint, with its safetensors metadata verbatim.
**tied name** — a name that the model shares with a stored tensor and that no file holds: `lm_head.weight` for
the embedding, say.

A vector is bound to its base's weights digest, not to its base's id, because metadata and text files may
differ.
"""

from __future__ import annotations

from functools import cached_property

from persona.errors import IntegrityError, InvalidInput
from persona.frozen import dataclass
from persona.limits import MAX_CHUNK_ELEMENTS, MAX_TENSORS, MIN_CHUNK_ELEMENTS
from persona.objects import canonical, fields
from persona.objects.digest import require_digest
from persona.objects.ids import require_id
from persona.objects.names import check_file_path, check_tensor_name
from persona.objects.tensors import TensorSpec, specs_from_json, specs_to_json


@dataclass(frozen=True)
class Shard:
    """One weights file: its name, and the text of its `__metadata__`."""

    name: str
    metadata: dict[str, str]


@dataclass(frozen=True)
class Base:
    """The manifest of a base.

    `tensors` are in byte order of names; `shard_of[i]` is the shard of `tensors[i]`.
    """

    chunk: int
    digest: str
    files: dict[str, str]
    shards: tuple[Shard, ...]
    table: str
    tensors: tuple[TensorSpec, ...]
    shard_of: tuple[int, ...]
    tied: dict[str, str]

    @cached_property
    def spec(self) -> dict[str, TensorSpec]:
        """The tensors by name."""
        return {spec.name: spec for spec in self.tensors}

    @cached_property
    def merged_elements(self) -> int:
        """Elements of all tensors that recipes can change."""
        return sum(spec.elements for spec in self.tensors if spec.merged)

    @cached_property
    def merged_bytes(self) -> int:
        """Bytes of all tensors that recipes can change: `raw_bytes` of a vector."""
        return sum(spec.nbytes for spec in self.tensors if spec.merged)

    def encode(self) -> bytes:
        """The canonical payload."""
        return canonical.encode(
            {
                "chunk": self.chunk,
                "digest": self.digest,
                "files": self.files,
                "shard_of": list(self.shard_of),
                "shards": [{"metadata": shard.metadata, "name": shard.name} for shard in self.shards],
                "table": self.table,
                "tensors": specs_to_json(self.tensors),
                "tied": self.tied,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Base:
        """The manifest of canonical bytes; `IntegrityError` for anything else."""
        value = fields.mapping(
            canonical.decode(data, "base"),
            "base",
            ("chunk", "digest", "files", "shard_of", "shards", "table", "tensors", "tied"),
        )
        tensors = specs_from_json(value["tensors"], "base")
        shards = tuple(_shard(item) for item in fields.items(value["shards"], "base shards", MAX_TENSORS))
        if len({shard.name for shard in shards}) != len(shards):
            raise IntegrityError("base shards: two shards have the same name")
        shard_of = fields.items(value["shard_of"], "base shard_of", MAX_TENSORS)
        if len(shard_of) != len(tensors):
            raise IntegrityError("base shard_of must have one entry for each tensor")
        for index in shard_of:
            fields.integer(index, "base shard_of", 0, len(shards) - 1)
        return cls(
            chunk=chunk_elements(value["chunk"], "base chunk"),
            digest=require_digest(value["digest"], "base digest"),
            files=file_ids(value["files"], "base files"),
            shards=shards,
            table=require_id(value["table"], "base table"),
            tensors=tensors,
            shard_of=tuple(shard_of),
            tied=_tied(value["tied"], {spec.name for spec in tensors}),
        )


def chunk_elements(value: object, where: str) -> int:
    """A chunk length: a power of two within the limits."""
    count = fields.integer(value, where, MIN_CHUNK_ELEMENTS, MAX_CHUNK_ELEMENTS)
    if count & (count - 1):
        raise IntegrityError(f"{where} must be a power of two, not {count}")
    return count


def file_ids(value: object, where: str) -> dict[str, str]:
    """A mapping of checked file paths to blob ids."""
    if type(value) is not dict:
        raise IntegrityError(f"{where} must be a mapping")
    for path, blob in value.items():
        try:
            check_file_path(path)
        except InvalidInput as error:
            raise IntegrityError(f"{where}: {error.message}") from None
        require_id(blob, f"{where} {path}")
    return value


def _shard(value: object) -> Shard:
    item = fields.mapping(value, "base shard", ("metadata", "name"))
    name = fields.text(item["name"], "base shard name")
    try:
        check_file_path(name)
    except InvalidInput as error:
        raise IntegrityError(f"base shard: {error.message}") from None
    if "/" in name:
        raise IntegrityError(f"base shard: {name!r} must be the name of a file, without a directory")
    metadata = item["metadata"]
    if type(metadata) is not dict or any(type(text) is not str for text in metadata.values()):
        raise IntegrityError("base shard metadata must be a mapping of text to text")
    return Shard(name, metadata)


def _tied(value: object, names: set[str]) -> dict[str, str]:
    if type(value) is not dict:
        raise IntegrityError("base tied must be a mapping")
    for alias, name in value.items():
        try:
            check_tensor_name(alias)
        except InvalidInput as error:
            raise IntegrityError(f"base tied: {error.message}") from None
        if type(name) is not str or alias in names or name not in names:
            raise IntegrityError(
                f"base tied: {alias!r:.100} is tied to {name!r:.100}, so the first must not be a tensor of"
                " the base, and the second must be one"
            )
    return value
