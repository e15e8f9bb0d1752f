"""Checkpoints in the world: what is read from them, what is written as one.

    header       the JSON at the start of a safetensors file: names, dtypes, shapes, spans of bytes
    shard        one safetensors file of a checkpoint
    index        `model.safetensors.index.json`: which tensor lies in which shard
    checkpoint   a model directory, one safetensors file, or an index with its shards
    writer       a checkpoint being filled chunk by chunk beside its target, published whole

Invariants: nothing from a file is believed before it is checked, and every refusal names the file; no pickle
    is ever opened; a tensor's or shard's name never becomes a path unchecked; what is being read is never
    truncated in place.
"""

from __future__ import annotations
