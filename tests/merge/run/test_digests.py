"""The digests of a run are those of the bytes that it writes, however chunks and blocks cut the tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from persona.merge.arithmetic import casts
from persona.merge.run import hashes
from persona.objects.recipe import Term
from persona.objects.rules import Rules
from persona.objects.tensors import TensorSpec
from tests.merge.models import Model, Sandbox, run

BLOCKS = (4, 120, 192, 1024, 1 << 22)
"""Bytes of a block: below a chunk, across chunks, of several chunks, of the whole tensor."""


class ToFloat32:
    """BF16 tensors in F32."""

    def spec(self, spec: TensorSpec) -> TensorSpec:
        return replace(spec, dtype="F32") if spec.dtype == "BF16" else spec

    def convert(self, spec: TensorSpec, data: Any) -> Any:
        if spec.dtype != "BF16":
            return data
        bits = np.frombuffer(data, np.uint16)
        return casts.narrow32(casts.widen32(bits, "BF16"), "F32").view(np.uint8).data


def models() -> tuple[Model, Model]:
    """A base and a fine-tune: tensors of 1, 2, 4 and 8 bytes an element, one empty, lengths around chunks."""
    random = np.random.default_rng(0)
    base: dict[str, Any] = {"empty": ("F32", (0, 2), np.empty(0, np.uint32))}
    for length in (1, 63, 64, 65, 200):
        base[f"bf16.{length}"] = "BF16", (length,), random.integers(0x3C00, 0x3F00, length, np.uint16)
        base[f"f32.{length}"] = "F32", (length,), random.integers(0x3C000000, 0x3F000000, length, np.uint32)
        base[f"u8.{length}"] = "U8", (length,), random.integers(0, 256, length, np.uint8)
        base[f"i64.{length}"] = "I64", (length,), random.integers(0, 1 << 60, length, np.uint64)
    moved = {
        name: (dtype, shape, bits + bits.dtype.type(3) if dtype in ("BF16", "F32") else bits)
        for name, (dtype, shape, bits) in base.items()
    }
    return base, moved


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("cast", [None, ToFloat32()], ids=["as it is", "in float32"])
def test_each_tensor_has_the_digest_of_its_blocks(
    block: int, threads: int, cast: ToFloat32 | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "BLOCK_BYTES", block)
    base, moved = models()
    sandbox = Sandbox(tmp_path, base)
    made = sandbox.plan([Term("v", sandbox.vector(moved).id, alpha="0.5")], Rules.of())
    room = {
        name: (dtype, shape, np.zeros(8 * bits.size, np.uint8)) for name, (dtype, shape, bits) in base.items()
    }
    written, found = run(made, room, cast=cast, threads=threads)
    for spec in made.base.tensors:
        data = written[spec.name][: (cast.spec(spec) if cast else spec).nbytes]
        blocks = [blake3(data[at : at + block]).digest() for at in range(0, len(data), block)]
        assert found.tensor_digests[spec.name] == blake3(b"".join(blocks)).hexdigest(), spec.name
