"""Vectors of every kind in a store, and their changes as the reference takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from persona.codec.base import encode_base
from persona.intake.encode import ImportedVector
from persona.merge import reference
from persona.merge.reference import Changes, Numbers
from persona.objects.ids import NULL_ID, object_id
from persona.objects.recipe import from_binary32, to_binary32
from persona.objects.table import decode_vector_table, encode_table
from persona.objects.tensors import TensorSpec, chunk_count, chunk_span, sort_key
from persona.objects.vector import LowRankFactor, Vector
from persona.store.records import pack_record
from persona.store.transaction import Transaction
from tests.merge.chunks import TORCH, tensor
from tests.merge.models import Model, Sandbox

Factor = tuple[LowRankFactor, Any, Any]
"""The factor of a tensor, and A and B as bits of its dtype."""


def dense(model: Model) -> dict[str, torch.Tensor]:
    """A fine-tune as the reference takes it."""
    return {
        name: tensor(bits, dtype).reshape(shape)
        for name, (dtype, shape, bits) in model.items()
        if dtype in TORCH
    }


def taus_of(factors: Mapping[str, Factor], specs: Mapping[str, TensorSpec]) -> Changes:
    """t of every tensor that has a factor, by the reference."""
    found: dict[str, Numbers] = {}
    for name, (factor, a, b) in factors.items():
        spec = specs[name]
        wide_a = tensor(a, factor.dtype).float().reshape(factor.a(spec).shape)
        wide_b = tensor(b, factor.dtype).float().reshape(factor.b(spec).shape)
        scale = to_binary32(factor.scale)
        blocks = [reference.low_rank(wide_a[e], wide_b[e], scale) for e in range(factor.blocks)]
        found[name] = Numbers(torch.stack(blocks).reshape(spec.shape))
    return found


def low_rank_vector(
    sandbox: Sandbox, factors: Mapping[str, Factor], delta: ImportedVector | None = None
) -> str:
    """Stores a low-rank vector; `delta` has its dense tensors."""
    base = sandbox.base
    ids: dict[str, list[str]] = {}
    kept: dict[str, LowRankFactor | None] = {}
    with sandbox.store.transaction() as tx:
        if delta is not None and delta.vector.table is not None:
            data = sandbox.store.objects.get(delta.vector.table, "table")
            table = decode_vector_table(data, delta.vector)
            for spec in delta.vector.tensors:
                if spec.name not in factors:
                    ids[spec.name], kept[spec.name] = table.chunks(spec.name), None
        for name, (factor, a, b) in factors.items():
            spec = base.spec[name]
            parts = (factor.a(spec), a), (factor.b(spec), b)
            ids[name] = [id for part, bits in parts for id in _chunks(tx, part, bits, base.chunk)]
            kept[name] = factor
        specs = tuple(base.spec[name] for name in sorted(ids, key=sort_key))
        table_id = tx.put_bulk("table", encode_table(id for spec in specs for id in ids[spec.name]))
        vector = Vector(
            base=base.digest,
            kind="lowrank",
            chunk=base.chunk,
            tensors=specs,
            table=table_id,
            factors=tuple(kept[spec.name] for spec in specs),
        )
        id = tx.put("vector", vector.encode())
    sandbox.vectors[id] = vector
    return id


def _chunks(tx: Transaction, spec: TensorSpec, bits: Any, chunk: int) -> list[str]:
    found: list[str] = []
    for index in range(chunk_count(spec, chunk)):
        start, stop = chunk_span(spec, index, chunk)
        part = np.ascontiguousarray(bits[start:stop])
        id = object_id("chunk", part.view(np.uint8).data)
        tx.append(pack_record("chunk", id, *encode_base(part, spec.dtype)))
        found.append(id)
    assert NULL_ID not in found
    return found


def expression_vector(sandbox: Sandbox, coefficients: Mapping[str, float]) -> str:
    """Stores an expression of vectors by id with binary32 coefficients."""
    pairs = tuple((id, from_binary32(coefficients[id])) for id in sorted(coefficients))
    vector = Vector(base=sandbox.base.digest, kind="expression", expression=pairs)
    with sandbox.store.transaction() as tx:
        id = tx.put("vector", vector.encode())
    sandbox.vectors[id] = vector
    return id


def combined(base: Changes, parts: list[tuple[str, float, Changes]]) -> Changes:
    """The changes of an expression: its vectors by id, coefficient and changes."""
    parts = sorted(parts, key=lambda part: part[0])
    if len(parts) == 1 and parts[0][1] == 1:
        return parts[0][2]
    names = dict.fromkeys(name for _, _, changes in parts for name in changes)
    found: dict[str, Numbers] = {}
    for name in names:
        before = base[name]
        assert isinstance(before, torch.Tensor)
        taus = [reference.tau(before, changes.get(name, before)) for _, _, changes in parts]
        if any(_reaches(changes.get(name, before), before) for _, _, changes in parts):
            found[name] = Numbers(reference.expression(taus, [c for _, c, _ in parts]))
    return found


def _reaches(change: torch.Tensor | Numbers, before: torch.Tensor) -> bool:
    if isinstance(change, Numbers):
        return True
    signed = torch.int32 if before.dtype == torch.float32 else torch.int16
    return not torch.equal(change.view(signed), before.view(signed))
