"""The rows of an adapter are those of the reference, wherever chunks, blocks and slices begin and end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from persona.codec.base import encode_base
from persona.codec.native.golden import digest_of
from persona.intake.encode import import_base
from persona.merge import reference
from persona.merge.arithmetic import casts, lowrank, lowrank_golden
from persona.merge.plan import plan
from persona.merge.rows.growth import KnownBase
from persona.merge.rows.lowrank import LowRankSource
from persona.merge.rows.reader import BaseChunks, Workspaces
from persona.merge.rows.source import OpenedChunk
from persona.merge.rows.sources import Sources
from persona.objects.ids import object_id
from persona.objects.recipe import Recipe, Term, from_binary32
from persona.objects.rules import Rules
from persona.objects.table import decode_vector_table, encode_table, factor_chunks
from persona.objects.tensors import TensorSpec, chunk_count, chunk_span
from persona.objects.vector import LowRankFactor, Vector
from persona.store.records import pack_record
from persona.store.store import Store
from persona.weights.checkpoint import Checkpoint
from tests.checkpoints import Tensor, write_model

CHUNK = 64
DTYPES = ("BF16", "F16", "F32")
Bits = np.ndarray[Any, Any]


def numbers(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Bits:
    """Random elements of a dtype, as bits."""
    return casts.narrow32(random.standard_normal(shape).astype(np.float32), dtype).reshape(shape)


class Stored:
    """A repository of a base of one tensor and a vector of one factor of it."""

    def __init__(self, place: Path, spec: TensorSpec, factor: LowRankFactor, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.spec, self.factor = spec, factor
        self.bits = numbers(random, spec.shape, spec.dtype)
        write_model(place / "base", {spec.name: Tensor(spec.dtype, self.bits)})
        self.store = Store.create(place / ".persona")
        self.parts = [numbers(random, part.shape, part.dtype) for part in (factor.a(spec), factor.b(spec))]
        ids: list[str] = []
        with self.store.transaction() as tx:
            with Checkpoint.open(place / "base") as checkpoint:
                self.base, self.base_id = import_base(tx, checkpoint, {}, chunk=CHUNK)
            for part, bits in zip((factor.a(spec), factor.b(spec)), self.parts, strict=True):
                for index in range(chunk_count(part, CHUNK)):
                    start, stop = chunk_span(part, index, CHUNK)
                    chunk = bits.reshape(-1)[start:stop]
                    id = object_id("chunk", chunk.view(np.uint8).data)
                    ids.append(id)
                    tx.append(pack_record("chunk", id, *encode_base(chunk, part.dtype)))
            table = tx.put_bulk("table", encode_table(ids))
            self.vector = Vector(self.base.digest, "lowrank", CHUNK, (spec,), table, (factor,))
            self.id = tx.put("vector", self.vector.encode())

    def expected(self) -> Bits:
        """t of the whole tensor by the reference: float32, flat."""
        a, b = (
            torch.tensor(casts.widen32(bits.reshape(-1), self.factor.dtype).reshape(bits.shape))
            for bits in self.parts
        )
        scale = float(self.factor.scale)
        blocks = [reference.low_rank(one, other, scale) for one, other in zip(a, b, strict=True)]
        return torch.stack(blocks).numpy().reshape(-1)

    def source(self) -> LowRankSource:
        known = KnownBase.of(self.store.objects, self.base)
        found = Sources(self.store.objects, known, known, {self.id: self.vector}).source(self.id)
        assert isinstance(found, LowRankSource)
        return found

    def rows(self, cuts: int) -> Bits:
        """t of the whole tensor from the source, in slices of `cuts` elements of a chunk."""
        source, chunks = self.source(), BaseChunks.of(self.store.objects, self.base)
        space = Workspaces([self.spec], CHUNK).get(self.spec)
        found = np.full(self.spec.elements, np.nan, np.float32)
        for index in range(chunk_count(self.spec, CHUNK)):
            chunk = OpenedChunk.open(chunks, self.spec, index, space)
            for start in range(0, chunk.size, cuts):
                stop = min(start + cuts, chunk.size)
                out = found[chunk.first + start : chunk.first + stop]
                source.read_numbers(chunk, start, stop, out)
        return found


def same(one: Bits, other: Bits) -> bool:
    return np.array_equal(one.view(np.uint32), other.view(np.uint32))


@st.composite
def factors(draw: st.DrawFn) -> tuple[TensorSpec, LowRankFactor]:
    """Odd shapes: rows, columns, several dimensions, blocks, ranks that no chunk is a multiple of."""
    dimensions = draw(st.sampled_from([1, 2, 2, 2, 3, 4]))
    shape = tuple(draw(st.integers(1, 12 if dimensions > 2 else 40)) for _ in range(dimensions))
    blocks = shape[0] if dimensions > 2 and draw(st.booleans()) else 1
    spec = TensorSpec("w", draw(st.sampled_from(DTYPES)), shape)
    scale = from_binary32(float(np.float32(draw(st.floats(-4, 4)))))
    return spec, LowRankFactor(draw(st.integers(1, 70)), scale, draw(st.sampled_from(DTYPES)), blocks)


@settings(max_examples=40)
@given(factors(), st.sampled_from([1, 7, 16, CHUNK]), st.integers(0, 99))
def test_rows_are_those_of_the_reference(
    tmp_path_factory: pytest.TempPathFactory, given: tuple[TensorSpec, LowRankFactor], cuts: int, seed: int
) -> None:
    stored = Stored(tmp_path_factory.mktemp("stored"), *given, seed)
    assert same(stored.rows(cuts), stored.expected())


@pytest.mark.parametrize("shape", [(1, 200), (200, 1), (200,), (13, 64), (64, 13), (3, 5, 2, 7)])
def test_a_row_a_column_and_a_kernel_have_factors_too(tmp_path: Path, shape: tuple[int, ...]) -> None:
    stored = Stored(tmp_path, TensorSpec("w", "BF16", shape), LowRankFactor(3, "0.1", "F32"))
    assert same(stored.rows(CHUNK), stored.expected())


def test_a_source_knows_what_it_reaches_and_needs(tmp_path: Path) -> None:
    spec = TensorSpec("w", "BF16", (40, 8))
    stored = Stored(tmp_path, spec, LowRankFactor(5, "1", "F32"))
    source = stored.source()
    assert source.reaches("w")
    assert not source.reaches("v")
    assert not source.steps(spec)
    assert not source.keep
    assert source.scratch_bytes(spec) >= 4 * 5 * (8 + CHUNK // 8)
    ids = {source.chunk_id(spec, index) for index in range(5)}
    assert len(ids) == 5
    assert None not in ids


def test_equal_bits_of_two_dtypes_are_other_numbers(tmp_path: Path) -> None:
    """The store has equal bytes once, so two adapters may share chunks and differ in dtype."""
    spec, factor = TensorSpec("w", "BF16", (40, 8)), LowRankFactor(5, "1", "BF16")
    stored = Stored(tmp_path, spec, factor)
    known = KnownBase.of(stored.store.objects, stored.base)
    reader = Sources(stored.store.objects, known, known, {stored.id: stored.vector}).factors
    table = decode_vector_table(stored.store.objects.get(stored.vector.table or "", "table"), stored.vector)
    ids, _ = factor_chunks(table, stored.vector, spec)
    for dtype in ("BF16", "F16"):
        part = replace(factor.a(spec), dtype=dtype)
        found = reader.matrix(part, ids, 0, part.elements, keep=True)
        assert same(found, casts.widen32(stored.parts[0].reshape(-1), dtype))


def test_a_plan_with_an_adapter_has_the_way_of_a_merge(tmp_path: Path) -> None:
    """Numbers have no fine-tuned element, so no rule gives the tensor its own bytes."""
    stored = Stored(tmp_path, TensorSpec("w", "BF16", (40, 8)), LowRankFactor(5, "1", "F32"))
    recipe = Recipe.of(stored.base_id, [Term("adapter", stored.id)], Rules.of())
    made = plan(stored.store, recipe, stored.base, {stored.id: stored.vector})
    assert [tensor.way for tensor in made.tensors] == ["merge"]


def test_the_golden_cases_are_those_of_the_reference() -> None:
    for case, shape in zip(lowrank_golden.cases("low_rank", 0), lowrank_golden.SHAPES, strict=True):
        a, b = (torch.tensor(part) for part in lowrank_golden.factors(*shape))
        t = reference.low_rank(a, b, float(lowrank_golden.SCALE)).numpy().reshape(-1)
        assert case.digest == digest_of(0, (t[lowrank_golden.FIRST : -1],))


@pytest.mark.parametrize("rank", [*range(1, 10), 63, 64, 255])
def test_every_rank_and_width_gives_the_same_bits(rank: int) -> None:
    random = np.random.default_rng(rank)
    for columns in (1, 2, 63, 256, 257, 1000):
        a, b = (random.standard_normal(shape).astype(np.float32) for shape in ((rank, columns), (3, rank)))
        whole = reference.low_rank(torch.tensor(a), torch.tensor(b), 0.3).numpy().reshape(-1)
        for first in {0, columns // 2, columns - 1}:
            out = np.full(3 * columns - first - 1, np.nan, np.float32)
            lowrank.low_rank(a, b, float(np.float32(0.3)), first, out)
            assert same(out, whole[first : first + out.size])


@pytest.mark.parametrize(
    ("a", "b", "first", "size"),
    [((2, 3), (4, 3), 0, 1), ((2, 3), (4, 2), 3, 1), ((2, 3), (4, 2), -1, 1), ((2, 3), (4, 2), 1, 12)],
)
def test_arrays_that_do_not_fit_are_refused(
    a: tuple[int, ...], b: tuple[int, ...], first: int, size: int
) -> None:
    with pytest.raises(ValueError, match="must"):
        lowrank.low_rank(
            np.ones(a, np.float32), np.ones(b, np.float32), 1.0, first, np.empty(size, np.float32)
        )


def test_numbers_of_another_type_are_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        lowrank.low_rank(np.ones((1, 1)), np.ones((1, 1)), 1.0, 0, np.empty(1))
