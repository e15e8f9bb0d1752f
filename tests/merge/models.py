"""Small whole models on disk and in a store, for the tests of intake, plan and stream."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from persona.codec.base import encode_base
from persona.intake.encode import ImportedVector, import_base, import_vector
from persona.merge.plan import Plan, plan
from persona.merge.run.materialise import Materialised, materialise
from persona.objects.base import Base
from persona.objects.ids import object_id
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import Rules
from persona.objects.table import decode_vector_table, encode_table
from persona.objects.tensors import chunk_count, chunk_span
from persona.objects.vector import LowRankFactor, Vector
from persona.store.records import pack_record
from persona.store.store import Store
from persona.weights.checkpoint import Checkpoint
from tests.checkpoints import Bits, write_file

Model = Mapping[str, tuple[str, tuple[int, ...], Bits]]
"""name → (safetensors dtype, shape, bits)."""

CHUNK = 64


class Sandbox:
    """A store with one base, and the vectors imported into it."""

    def __init__(self, folder: Path, base: Model, *, chunk: int = CHUNK) -> None:
        self.folder = folder
        self.store = Store.create(folder)
        self.imported: dict[str, ImportedVector] = {}
        self.vectors: dict[str, Vector] = {}
        path = write_file(folder / "base.safetensors", base)
        with Checkpoint.open(path) as checkpoint, self.store.transaction() as tx:
            self.base, self.base_id = import_base(tx, checkpoint, {}, chunk=chunk)

    def vector(self, after: Model, *, config: str | None = "{}", **options: Any) -> ImportedVector:
        """Imports a fine-tune. `config`: the text of its config.json."""
        path = write_file(self.folder / f"ft-{len(self.imported)}.safetensors", after)
        with Checkpoint.open(path) as checkpoint, self.store.transaction() as tx:
            if checkpoint.config is None and config is not None:
                checkpoint.config = json.loads(config)
            found = import_vector(self.store, tx, self.base, checkpoint, **options)
        self.imported[found.id] = found
        self.vectors[found.id] = found.vector
        return found

    def expression(self, **coefficients: str) -> str:
        """Stores a sum of imported vectors, by id, and returns its id."""
        made = Vector(self.base.digest, "expression", expression=tuple(sorted(coefficients.items())))
        with self.store.transaction() as tx:
            id = tx.put("vector", made.encode())
        self.vectors[id] = made
        return id

    def adapter(
        self, factors: Mapping[str, tuple[LowRankFactor, Bits, Bits]], dense: str | None = None
    ) -> str:
        """Stores factors, by the names of their tensors, as an adapter; returns its id.

        `dense`: the id of an imported vector, whose other tensors the adapter holds whole.
        """
        ids: dict[str, list[str]] = {}
        with self.store.transaction() as tx:
            if dense is not None:
                vector = self.vectors[dense]
                table = decode_vector_table(self.store.objects.get(vector.table or "", "table"), vector)
                ids = {spec.name: table.chunks(spec.name) for spec in vector.tensors}
            for name, (factor, *parts) in factors.items():
                spec, ids[name] = self.base.spec[name], []
                for part, bits in zip((factor.a(spec), factor.b(spec)), parts, strict=True):
                    for index in range(chunk_count(part, self.base.chunk)):
                        start, stop = chunk_span(part, index, self.base.chunk)
                        chunk = bits.reshape(-1)[start:stop]
                        ids[name].append(object_id("chunk", chunk.view(np.uint8).data))
                        tx.append(pack_record("chunk", ids[name][-1], *encode_base(chunk, part.dtype)))
            tensors = tuple(spec for spec in self.base.tensors if spec.name in ids)
            made = Vector(
                self.base.digest,
                "lowrank",
                self.base.chunk,
                tensors,
                tx.put_bulk("table", encode_table([id for spec in tensors for id in ids[spec.name]])),
                tuple(factors[spec.name][0] if spec.name in factors else None for spec in tensors),
            )
            id = tx.put("vector", made.encode())
        self.vectors[id] = made
        return id

    def plan(self, terms: Sequence[Term], rules: Rules) -> Plan:
        """The plan of a recipe of imported vectors."""
        recipe = Recipe.of(self.base_id, list(terms), rules)
        base = Base.decode(self.store.objects.get(self.base_id, "base"))
        return plan(self.store, recipe, base, self.vectors)


class Memory:
    """A sink that keeps what it is given."""

    def __init__(self, model: Model) -> None:
        self.data = {name: bytearray(bits.nbytes) for name, (_, _, bits) in model.items()}

    def write(self, name: str, offset: int, data: Any) -> None:
        self.data[name][offset : offset + len(data)] = data

    def restart(self, name: str) -> None:
        self.data[name][:] = bytes(len(self.data[name]))


def run(made: Plan, model: Model, **options: Any) -> tuple[dict[str, bytes], Materialised]:
    """What a plan materialises, by name."""
    memory = Memory(model)
    result = materialise(made, memory, **options)
    return {name: bytes(data) for name, data in memory.data.items()}, result
