"""The stream equals the reference bit for bit, over whole models, in chunks, on any number of threads."""

from __future__ import annotations

import json
import tempfile
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import InvalidInput, Refused
from persona.merge import reference
from persona.merge.rules import MergeRules, MergeTerm
from persona.merge.run import merger
from persona.merge.run.materialise import materialise
from persona.objects.recipe import Term
from persona.objects.rules import PRESETS, Rules
from persona.store.files import replaced_calls
from tests.disks import Quick
from tests.merge import chunks
from tests.merge.models import Memory, Model, Sandbox, run
from tests.merge.strategies import (
    SETTINGS,
    SHAPES,
    draw_model,
    draw_rules,
    draw_terms,
    elements,
    one_model,
)


def by_reference(
    base: Model, afters: list[dict[str, Any]], terms: list[Term], rules: Rules
) -> tuple[Any, Any]:
    def tensors(model: Model) -> dict[str, Any]:
        return {
            name: chunks.tensor(bits, dtype).reshape(shape)
            for name, (dtype, shape, bits) in model.items()
            if dtype in chunks.TORCH
        }

    merged = reference.merge(
        tensors(base),
        [tensors(after) for after in afters],
        [MergeTerm.of(term) for term in terms],
        MergeRules.of(rules),
    )
    return merged, reference.not_finite(tensors(base), merged)


@SETTINGS
@given(st.data())
def test_the_stream_equals_the_reference(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    base, afters = draw_model(data.draw, count)
    rules = data.draw(draw_rules())
    threads = data.draw(st.integers(1, 8))
    with tempfile.TemporaryDirectory() as folder, replaced_calls(Quick()):
        sandbox = Sandbox(Path(folder), base)
        ids, kept = [], []
        for after in afters:
            try:
                ids.append(sandbox.vector(after).id)
                kept.append(after)
            except Refused:
                continue
        terms = draw_terms(data.draw, ids, rules)
        made = sandbox.plan(terms, rules)
        shuffled = sandbox.plan(data.draw(st.permutations(terms)), rules)
        found, result = run(made, base, threads=threads, allow_nonfinite=True)
        again, second = run(shuffled, base, threads=1, allow_nonfinite=True)
        chunked = {name: np.frombuffer(raw, base[name][2].dtype) for name, raw in found.items()}
    want, strange = by_reference(base, kept, terms, rules)
    for name, merged in want.items():
        np.testing.assert_array_equal(chunked[name], chunks.bits(merged), err_msg=name)
    assert found["model.positions"] == base["model.positions"][2].tobytes()
    assert result.not_finite == strange
    assert again == found
    assert second.weights == result.weights


def raw(model: Model) -> dict[str, bytes]:
    return {name: bits.tobytes() for name, (_, _, bits) in model.items()}


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_a_lone_vector_gives_the_fine_tune_byte_for_byte(tmp_path: Path, dtype: str) -> None:
    base, _, _ = one_model(dtype=dtype)
    after: dict[str, Any] = {}
    for i, (name, (_, shape, bits)) in enumerate(base.items()):
        _, (tuned,) = elements(40 + i, dtype, 1, "bits", bits.size)
        strange = chunks.EXPONENT[dtype]
        infinite = ((tuned >> strange[0]) & strange[1]) == strange[1]
        tuned[infinite] = bits[infinite]
        sign = bits.dtype.type(1 << (bits.itemsize * 8 - 1))
        tuned[::3] = bits[::3] ^ np.where(bits[::3] << bits.dtype.type(1) == 0, sign, bits.dtype.type(0))
        after[name] = (dtype, shape, tuned)
    sandbox = Sandbox(tmp_path, base)
    found = sandbox.vector(after)
    written, result = run(sandbox.plan([Term("v", found.id)], Rules.of("ties")), base)
    assert written == raw(after)
    assert result.weights != sandbox.base.digest


def test_a_zero_whose_sign_alone_changed_is_kept_by_the_vector_that_owns_its_tensor(tmp_path: Path) -> None:
    zeros = np.zeros(70, np.uint16)
    base: Model = {"w": ("BF16", (70,), zeros)}
    after: Model = {"w": ("BF16", (70,), zeros | np.uint16(0x8000))}
    sandbox = Sandbox(tmp_path, base)
    found = sandbox.vector(after)
    assert run(sandbox.plan([Term("v", found.id)], Rules.of("ties")), base)[0] == raw(after)
    weaker = sandbox.plan([Term("v", found.id, alpha="0.5")], Rules.of("ties"))
    assert run(weaker, base)[0] == raw(base)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_alpha_zero_everywhere_is_the_base_byte_for_byte(tmp_path: Path, preset: str) -> None:
    base, first, second = one_model()
    sandbox = Sandbox(tmp_path, base)
    terms = [Term("a", sandbox.vector(first).id, alpha="0"), Term("b", sandbox.vector(second).id, alpha="-0")]
    written, result = run(sandbox.plan(terms, Rules.of(preset)), base)
    assert written == raw(base)
    assert result.weights == sandbox.base.digest


def test_the_same_fine_tune_is_the_same_vector_in_another_store(tmp_path: Path) -> None:
    base, first, second = one_model()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = Sandbox(tmp_path / "a", base), Sandbox(tmp_path / "b", base)
    ids = [one.vector(first).id, one.vector(second).id]
    assert [other.vector(second).id, other.vector(first).id] == ids[::-1]


def test_only_tensors_whose_inputs_changed_get_another_key(tmp_path: Path) -> None:
    base, first, second = one_model()
    sandbox = Sandbox(tmp_path, base)
    one, two = sandbox.vector(first).id, sandbox.vector(second).id
    layer = ("model.layers.1.*",)
    before = sandbox.plan([Term("a", one), Term("b", two, only=layer)], Rules.of("ties"))
    after = sandbox.plan([Term("a", one), Term("b", two, alpha="0.5", only=layer)], Rules.of("ties"))
    changed = {name for name in base if before.by_name[name].key != after.by_name[name].key}
    assert changed == {"model.layers.1.mlp.up.weight", "model.layers.1.norm.weight"}


class Earlier:
    """An earlier checkout in memory, as a source of finished tensors."""

    def __init__(self, keys: dict[str, str], digests: dict[str, str], data: dict[str, bytes]) -> None:
        self.keys, self.digests, self.data = keys, digests, data

    def holds(self, tensor: Any) -> str | None:
        name = tensor.spec.name
        return self.digests[name] if self.keys.get(name) == tensor.key else None

    def read_into(self, name: str, start: int, out: memoryview) -> bool:
        out[:] = self.data[name][start : start + len(out)]
        return True


def test_a_tensor_that_was_tampered_with_is_computed_again(tmp_path: Path) -> None:
    base, first, second = one_model()
    sandbox = Sandbox(tmp_path, base)
    made = sandbox.plan(
        [Term("a", sandbox.vector(first).id), Term("b", sandbox.vector(second).id)], Rules.of("ties")
    )
    written, result = run(made, base)
    keys = {tensor.spec.name: tensor.key for tensor in made.tensors}
    tampered = dict(written)
    tampered["model.embed.weight"] = bytes(len(written["model.embed.weight"]))
    memory = Memory(base)
    again = materialise(made, memory, source=Earlier(keys, result.tensor_digests, tampered))
    assert {name: bytes(data) for name, data in memory.data.items()} == written
    assert (again.computed, again.reused) == (1, len(SHAPES) - 1)
    assert again.weights == result.weights


def test_weights_that_are_not_finite_stop_the_stream_and_name_the_tensor(tmp_path: Path) -> None:
    big = np.full(70, 0x7F00, np.uint16)
    base: Model = {"w": ("BF16", (70,), np.zeros(70, np.uint16))}
    sandbox = Sandbox(tmp_path, base)
    found = sandbox.vector({"w": ("BF16", (70,), big)})
    made = sandbox.plan([Term("v", found.id, alpha="8")], Rules.of("linear"))
    with pytest.raises(InvalidInput, match="tensor w: 70 merged elements"):
        run(made, base)
    written, result = run(made, base, allow_nonfinite=True)
    assert set(np.frombuffer(written["w"], np.uint16).tolist()) == {0x7FC0}
    assert result.not_finite == {"w": 70}


def test_a_vector_of_another_base_is_refused(tmp_path: Path) -> None:
    base, first, second = one_model()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = Sandbox(tmp_path / "a", base), Sandbox(tmp_path / "b", second)
    stranger = other.vector(first)
    one.vectors[stranger.id] = stranger.vector
    with pytest.raises(InvalidInput, match="belongs to the base with weights"):
        one.plan([Term("v", stranger.id)], Rules.of("ties"))


GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "golden-ties.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["preset"])
def test_the_stream_gives_the_peers_outputs_in_every_order_of_adding(
    tmp_path: Path, case: dict[str, Any]
) -> None:
    def numbers(values: list[float]) -> Model:
        return {"w": ("F32", (8,), np.array(values, np.float32).view(np.uint32))}

    axes = {axis: case[axis] for axis in ("density", "merge", "elect", "lambda") if axis in case}
    for place, order in enumerate(permutations(range(3))):
        (tmp_path / str(place)).mkdir()
        sandbox = Sandbox(tmp_path / str(place), numbers([0.0] * 8))
        terms = [
            Term("ABC"[k], sandbox.vector(numbers(GOLDEN["ABC"[k]])).id, alpha=str(case["alpha"][k]))
            for k in order
        ]
        written, _ = run(sandbox.plan(terms, Rules.of(case["preset"], **axes)), numbers([0.0] * 8))
        assert np.frombuffer(written["w"], np.float32).tolist() == case["out"]


def test_fewer_threads_run_where_their_chunks_need_much_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, first, _ = one_model(dtype="F32")
    sandbox = Sandbox(tmp_path, base)
    made = sandbox.plan([Term("v", sandbox.vector(first).id)], Rules.of("ties"))
    wanted: list[int] = []
    ordered = merger.in_order

    def counting(work: Any, items: Any, *, threads: int, **options: Any) -> Any:
        wanted.append(threads)
        return ordered(work, items, threads=threads, **options)

    monkeypatch.setattr(merger, "in_order", counting)
    for memory in (None, 64 * (4 * 9 + 4) * 3, 64 * (4 * 9 + 4)):
        assert run(made, base, threads=8, memory=memory)[0] == raw(first)
    assert wanted == [8, 3, 1]
