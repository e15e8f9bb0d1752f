"""The rows of an expression equal the reference's sum, whole and in parts, whatever the parts changed."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import Refused
from persona.merge import reference
from persona.merge.rows.expression import ExpressionSource
from persona.merge.rows.expression import source_of as expression_source
from persona.merge.rows.reader import Workspaces
from persona.merge.rows.source import OpenedChunk, Source
from persona.objects.recipe import Term, to_binary32
from persona.objects.rules import Rules
from persona.objects.tensors import TensorSpec
from persona.store.files import replaced_calls
from tests.disks import Quick
from tests.merge import chunks
from tests.merge.models import CHUNK, Model, Sandbox
from tests.merge.strategies import SETTINGS, draw_model, one_model

COEFFICIENTS = ["1", "-1", "0.5", "-0.3", "2", "0.1", "3", "-12.5", "0.0000001", "1" + "0" * 30]


def source_of(sandbox: Sandbox, id: str) -> Source:
    return sandbox.plan([Term("v", id)], Rules.of("ties")).sources[0]


def numbers(
    sandbox: Sandbox, source: Source, spec: TensorSpec, cuts: list[int], *, in_exponent_order: bool = False
) -> Any:
    """t of a whole tensor, each chunk read in the parts that `cuts` makes."""
    plan = sandbox.plan([], Rules.of("ties"))
    space = Workspaces(plan.base.tensors, CHUNK).get(spec)
    found = [np.empty(0, np.float32)]
    for index in range(plan.chunks_of(spec)):
        chunk = OpenedChunk.open(plan.rows.chunks, spec, index, space)
        bounds = sorted({0, chunk.size, *(cut for cut in cuts if cut < chunk.size)})
        whole = np.full(chunk.size, np.nan, np.float32)
        for start, stop in pairwise(bounds):
            read = chunk.sorted() if in_exponent_order else chunk
            source.read_numbers(read, start, stop, whole[start:stop])
        if in_exponent_order:
            whole[chunk.order] = whole.copy()
        found.append(whole)
    return np.concatenate(found)


def tau(model: Model, after: Model, name: str) -> torch.Tensor:
    """f − b in binary32, 0 where the bits are the same."""
    dtype, _, before = model[name]
    b, f = chunks.tensor(before, dtype), chunks.tensor(after[name][2], dtype)
    return torch.where(torch.from_numpy(before == after[name][2]), torch.zeros(()), f.float() - b.float())


def same(found: Any, want: torch.Tensor) -> bool:
    """Equal to the bit, but for the signs of zeros, which change no weight."""
    zero = np.float32(0)
    return np.array_equal((found + zero).view(np.uint32), (want.numpy() + zero).view(np.uint32))


@SETTINGS
@given(st.data())
def test_the_rows_equal_the_reference(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 5))
    base, afters = draw_model(data.draw, count)
    cuts = data.draw(st.lists(st.integers(1, CHUNK - 1), max_size=2))
    with tempfile.TemporaryDirectory() as folder, replaced_calls(Quick()):
        sandbox = Sandbox(Path(folder), base)
        fine_tunes: dict[str, Model] = {}
        for after in afters:
            try:
                fine_tunes[sandbox.vector(after).id] = after
            except Refused:
                continue
        if not fine_tunes:
            return
        coefficients = {id: data.draw(st.sampled_from(COEFFICIENTS)) for id in sorted(fine_tunes)}
        source = source_of(sandbox, sandbox.expression(**coefficients))
        reached = {spec.name: spec for spec in sandbox.base.tensors if source.reaches(spec.name)}
        assert all(source.elementwise(spec) for spec in reached.values())
        found = {name: numbers(sandbox, source, spec, cuts) for name, spec in reached.items()}
        in_exponent_order = {
            name: numbers(sandbox, source, spec, cuts, in_exponent_order=True)
            for name, spec in reached.items()
        }
    changed = {name for name in base for after in afters if not np.array_equal(base[name][2], after[name][2])}
    assert set(reached) == changed
    for name, row in found.items():
        taus = [tau(base, fine_tunes[id], name) for id in coefficients]
        want = reference.expression(taus, [to_binary32(text) for text in coefficients.values()])
        assert same(row, want.flatten())
        assert same(in_exponent_order[name], want.flatten())


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    """Two vectors of a model."""
    base, first, second = one_model()
    made = Sandbox(tmp_path, base)
    made.vector(first)
    made.vector(second)
    return made


def test_one_vector_times_one_is_that_vector(sandbox: Sandbox) -> None:
    one, _ = sandbox.imported
    lone = source_of(sandbox, sandbox.expression(**{one: "1"}))
    assert lone.identity == one
    assert lone == source_of(sandbox, one)
    assert isinstance(source_of(sandbox, sandbox.expression(**{one: "-1"})), ExpressionSource)


def test_the_identity_and_the_chunks_follow_from_coefficients_and_vectors(sandbox: Sandbox) -> None:
    one, other = sandbox.imported
    spec = sandbox.base.spec["model.embed.weight"]
    texts = [{one: "1", other: "-1"}, {one: "-1", other: "1"}, {one: "1", other: "0.5"}, {one: "0.5"}]
    sources = [source_of(sandbox, sandbox.expression(**text)) for text in texts]
    assert [source.identity for source in sources] == [sandbox.expression(**text) for text in texts]
    assert len({source.chunk_id(spec, 0) for source in sources}) == len(texts)
    again = source_of(sandbox, sandbox.expression(**texts[0]))
    assert (again.identity, again.chunk_id(spec, 0)) == (sources[0].identity, sources[0].chunk_id(spec, 0))


def test_a_chunk_that_no_vector_changed_has_no_row(tmp_path: Path) -> None:
    bits = np.full(3 * CHUNK, 0x3F80, np.uint16)
    first, second = bits.copy(), bits.copy()
    first[5] += 1
    second[CHUNK + 5] += 1
    base: Model = {"w": ("BF16", (bits.size,), bits)}
    made = Sandbox(tmp_path, base)
    ids = [made.vector({"w": ("BF16", (bits.size,), after)}).id for after in (first, second)]
    source = source_of(made, made.expression(**dict.fromkeys(ids, "1")))
    spec = made.base.spec["w"]
    assert [source.chunk_id(spec, index) is None for index in range(3)] == [False, False, True]
    row = numbers(made, source, spec, [])
    assert np.flatnonzero(row).tolist() == [5, CHUNK + 5]


class Fixed:
    """A source of numbers for one tensor, such as an adapter's: they need the order of the elements."""

    identity, keep = "f" * 64, False

    def __init__(self, name: str, t: Any) -> None:
        self.name = name
        self.t = t

    def reaches(self, name: str) -> bool:
        return name == self.name

    def steps(self, spec: TensorSpec) -> bool:
        return False

    def elementwise(self, spec: TensorSpec) -> bool:
        return False

    def chunk_id(self, spec: TensorSpec, index: int) -> str | None:
        return f"{index:064x}"

    def scratch_bytes(self, spec: TensorSpec) -> int:
        return 100

    def read_steps(self, spec: TensorSpec, index: int, out: Any) -> None:
        raise AssertionError("it has no steps")

    def read_numbers(self, chunk: OpenedChunk, start: int, stop: int, out: Any) -> None:
        out[:] = self.t[chunk.first + start : chunk.first + stop]


@pytest.mark.parametrize("fixed_first", [False, True])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_steps_and_numbers_are_added_in_the_order_of_the_vectors(
    tmp_path: Path, dtype: str, fixed_first: bool
) -> None:
    base, first, second = one_model(dtype=dtype)
    sandbox = Sandbox(tmp_path, base)
    deltas = [(source_of(sandbox, sandbox.vector(after).id), after) for after in (first, second)]
    name = "model.embed.weight"
    spec = sandbox.base.spec[name]
    t = torch.randn(spec.elements, generator=torch.Generator().manual_seed(1))
    parts = [(source, tau(base, after, name)) for source, after in deltas]
    parts.insert(0 if fixed_first else 1, (Fixed(name, t.numpy()), t))
    texts = ["0.3", "-1.7", "0.1"]
    source = expression_source(
        "e" * 64, [(text, part) for text, (part, _) in zip(texts, parts, strict=True)], CHUNK
    )
    assert not source.elementwise(spec)
    assert source.elementwise(sandbox.base.spec["model.layers.1.norm.weight"])
    assert source.scratch_bytes(spec) == 100 + 4 * CHUNK
    want = reference.expression([t for _, t in parts], [to_binary32(text) for text in texts])
    assert same(numbers(sandbox, source, spec, [20, 41]), want)


def test_numbers_that_overflow_are_no_warning(tmp_path: Path) -> None:
    base, first, _ = one_model()
    sandbox = Sandbox(tmp_path, base)
    sandbox.vector(first)
    name = "model.embed.weight"
    huge = Fixed(name, np.full(sandbox.base.spec[name].elements, 3e38, np.float32))
    source = expression_source("e" * 64, [("3", huge), ("-3", huge)], CHUNK)
    assert np.isnan(numbers(sandbox, source, sandbox.base.spec[name], [])).all()
