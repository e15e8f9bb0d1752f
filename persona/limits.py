"""Every limit, with its unit. A cap bounds the memory that is allocated before bytes are trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

CHUNK_ELEMENTS: Final = 1 << 20
"""Elements of one tensor in a chunk of a new base."""
MIN_CHUNK_ELEMENTS: Final = 1 << 6
MAX_CHUNK_ELEMENTS: Final = 1 << 24
"""Bounds of the chunk length, in elements, that a base may declare (a power of two)."""

CHUNK_MEMORY: Final = 384 * MIB
"""Bytes of chunks that the threads of a merge may hold together; if they need more, fewer run."""
DEVICE_MEMORY: Final = 1 * GIB
"""Default bytes of chunks on each GPU: enough for four lanes of about 120 bf16 vectors."""
DEVICE_RESERVE: Final = 256 * MIB
"""Least bytes of each GPU that a live model's residents leave free, for the model itself."""
LIVE_CACHE: Final = 1536 * MIB
"""Default bytes of decoded chunks that a live model keeps for its next change.

As many again on each GPU that it lies on.
"""
LIVE_TIMEOUT_SECONDS: Final = 600.0
"""Default seconds that a change of a live model's weights waits for its users."""
MAX_PACK_BYTES: Final = 1 * GIB
"""Bytes of one pack; a transaction goes on in the next."""
MAX_SEGMENTS: Final = 64
"""Segments of one record."""
MAX_PACK_RECORDS: Final = 1 << 20
"""Records of one pack."""
ZSTD_WINDOW_BYTES: Final = 8 * MIB
"""The largest zstd window that a stored frame may ask for (level 1 uses 512 KiB)."""
MAX_REF_BYTES: Final = 4 * KIB
MAX_REFLOG_BYTES: Final = 256 * MIB
MAX_STATE_BYTES: Final = 256 * MIB
MAX_RECIPE_BYTES: Final = 16 * MIB
"""Bytes of recipe.toml."""
MAX_TEXT_FILE_BYTES: Final = 64 * MIB
"""Bytes of one tracked text file of a model directory."""
MAX_FOLDER_FILES: Final = 1000
"""Files below one directory of a model directory; one with more stays behind."""
MAX_SAFETENSORS_HEADER_BYTES: Final = 100_000_000
"""As the safetensors format has it."""
MAX_INDEX_BYTES: Final = 256 * MIB
"""Bytes of model.safetensors.index.json."""
MAX_SHARDS: Final = 1 << 12
"""Files of one checkpoint; each is held open while it is read or written."""
MAX_CONFIG_BYTES: Final = 16 * MIB
"""Bytes of config.json."""
MAX_TENSORS: Final = 1 << 21
"""Tensors of one checkpoint, in all its files together."""
MAX_RANK: Final = 64
"""Dimensions of one tensor."""
MAX_ELEMENTS: Final = 1 << 53
"""Elements of one tensor; every integer of a canonical object stays below it."""
MAX_METADATA_BYTES: Final = 16 * MIB
"""Characters of the `__metadata__` of one safetensors file."""
MAX_NAME_BYTES: Final = 255
"""Bytes of one part of a file, ref or vector name."""
MAX_TENSOR_NAME_BYTES: Final = 4096
MAX_TERMS: Final = 4096
"""Terms of one recipe."""
MAX_LAYER_VALUES: Final = 1024
"""Numbers in a list over layers."""
MAX_JSON_DEPTH: Final = 32
MAX_JSON_CONTAINERS: Final = 1 << 23
"""Lists and objects in one structured object: a manifest of `MAX_TENSORS` has two for each."""
MAX_DECIMAL_CHARS: Final = 64
"""Characters of a canonical decimal string."""

MAX_PAYLOAD_BYTES: Final[Mapping[str, int]] = {
    "chunk": MAX_CHUNK_ELEMENTS * 16,
    "delta": MAX_CHUNK_ELEMENTS * 16,
    "table": 256 * MIB,
    "blob": MAX_TEXT_FILE_BYTES,
    "base": 128 * MIB,
    "vector": 128 * MIB,
    "recipe": 64 * MIB,
    "tree": 16 * MIB,
    "commit": 16 * MIB,
    "tag": 16 * MIB,
    "note": 16 * MIB,
}
"""Bytes of one object of each kind, decompressed (a manifest of 10^6 tensors is about 100 MB)."""
