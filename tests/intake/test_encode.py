"""What becomes a vector, and what is refused before any arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import InvalidInput, Refused
from persona.merge.arithmetic import casts
from persona.objects.recipe import Term
from persona.objects.rules import Rules
from tests.merge import chunks
from tests.merge.models import Model, Sandbox, run

SMALL = np.linspace(-1, 1, 100, dtype=np.float32)


def bf16(values: Any) -> np.ndarray[Any, Any]:
    return chunks.rounded(np.array(values, np.float32), "BF16")


def base_model() -> dict[str, Any]:
    return {
        "a.weight": ("BF16", (10, 10), bf16(SMALL)),
        "b.weight": ("BF16", (100,), bf16(SMALL[::-1])),
        "ids": ("I64", (3,), np.arange(3)),
    }


def changed(**tensors: Any) -> dict[str, Any]:
    return base_model() | {"a.weight": ("BF16", (10, 10), bf16(SMALL * 1.5))} | tensors


def refused(tmp_path: Path, after: Model, **options: Any) -> str:
    sandbox = Sandbox(tmp_path, base_model())
    before = sorted(path for path in (tmp_path / ".persona").rglob("*") if path.is_file())
    with pytest.raises(InvalidInput) as caught:
        sandbox.vector(after, **options)
    assert sorted(path for path in (tmp_path / ".persona").rglob("*") if path.is_file()) == before
    return str(caught.value)


def test_a_missing_tensor_is_listed_and_may_count_as_unchanged(tmp_path: Path) -> None:
    after = changed()
    del after["b.weight"]
    message = refused(tmp_path, after)
    assert "1 tensor of the base is missing: b.weight" in message
    assert "missing='zero'" in message


def test_missing_zero_counts_as_unchanged(tmp_path: Path) -> None:
    after = changed()
    full = Sandbox(tmp_path, base_model())
    want = full.vector(after).id
    del after["b.weight"]
    assert full.vector(after, missing="zero").id == want


def test_an_extra_tensor_is_listed_and_may_be_left_out(tmp_path: Path) -> None:
    after = changed(extra=("BF16", (2,), bf16([1, 2])))
    message = refused(tmp_path, after)
    assert "1 tensor that the base does not have: extra" in message
    assert "extra='ignore'" in message
    (tmp_path / "other").mkdir()
    assert Sandbox(tmp_path / "other", base_model()).vector(after, extra="ignore").changed_fraction > 0


def test_missing_and_extra_tensors_are_named_together(tmp_path: Path) -> None:
    after = changed(extra=("BF16", (2,), bf16([1, 2])))
    del after["b.weight"]
    message = refused(tmp_path, after)
    assert (
        "1 tensor of the base is missing: b.weight; and 1 tensor that the base does not have: extra"
        in message
    )
    assert "missing='zero'" in message
    assert "extra='ignore'" in message


def test_another_shape_is_refused_with_both(tmp_path: Path) -> None:
    message = refused(tmp_path, changed(**{"b.weight": ("BF16", (50, 2), bf16(SMALL))}))
    assert "b.weight has the shape [50, 2], but the base has [100]" in message


def test_a_grown_vocabulary_is_named_with_both_sizes(tmp_path: Path) -> None:
    base: Model = {"model.embed_tokens.weight": ("BF16", (10, 10), bf16(SMALL))}
    grown: Model = {"model.embed_tokens.weight": ("BF16", (12, 10), bf16(np.ones(120)))}
    with pytest.raises(InvalidInput, match="vocabulary of 12, but the base has 10"):
        Sandbox(tmp_path, base).vector(grown)


def test_an_explicit_head_that_equals_the_tied_embedding_passes_with_a_note(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, base_model())
    sandbox.base.tied["lm_head.weight"] = "a.weight"
    tuned = changed()
    found = sandbox.vector(tuned | {"lm_head.weight": tuned["a.weight"]})
    assert "lm_head.weight equals a.weight" in found.notes[0]
    other = ("BF16", (10, 10), bf16(SMALL))
    with pytest.raises(InvalidInput, match=r"lm_head\.weight"):
        sandbox.vector(tuned | {"lm_head.weight": other})


def test_a_wider_fine_tune_is_rounded_once_and_says_by_how_much(tmp_path: Path) -> None:
    values = (SMALL * 1.5).astype(np.float32)
    sandbox = Sandbox(tmp_path, base_model())
    found = sandbox.vector(changed(**{"a.weight": ("F32", (10, 10), values.view(np.uint32))}))
    assert found.id == sandbox.vector(changed()).id
    rounded = torch.from_numpy(values).to(torch.bfloat16).double().numpy()
    assert found.largest_rounding == float(np.abs(rounded - values.astype(np.float64)).max()) > 0
    assert "rounded from F32" in found.notes[0]


def test_a_difference_that_rounding_takes_away_whole_is_reported_too(tmp_path: Path) -> None:
    nudged = np.full(100, np.float32(2.0))
    base = base_model() | {"b.weight": ("BF16", (100,), bf16(nudged))}
    nudged[7] += 0.0078125 / 4
    after = base | {"a.weight": ("BF16", (10, 10), bf16(SMALL * 1.5))}
    found = Sandbox(tmp_path, base).vector(after | {"b.weight": ("F32", (100,), nudged.view(np.uint32))})
    assert [spec.name for spec in found.vector.tensors] == ["a.weight"]
    assert found.largest_rounding == 0.0078125 / 4


def test_another_dtype_of_the_same_width_needs_cast(tmp_path: Path) -> None:
    half = ("F16", (10, 10), (SMALL * 1.5).astype(np.float16).view(np.uint16))
    said = refused(tmp_path, changed(**{"a.weight": half}))
    assert "cannot hold every value of BF16, the base's dtype\nhint: cast=True converts it" in said
    (tmp_path / "other").mkdir()
    found = Sandbox(tmp_path / "other", base_model()).vector(changed(**{"a.weight": half}), cast=True)
    assert found.largest_rounding is not None


def test_an_element_that_is_not_finite_is_refused_with_count_and_place(tmp_path: Path) -> None:
    bits = bf16(SMALL * 1.5)
    bits[[70, 90]] = 0x7FC0
    message = refused(tmp_path, changed(**{"a.weight": ("BF16", (10, 10), bits)}))
    assert "tensor a.weight: 2 elements" in message
    assert "the first at index 70" in message


def test_a_nan_with_the_same_payload_in_both_is_unchanged(tmp_path: Path) -> None:
    base = base_model()
    base["b.weight"][2][[3, 4]] = [0x7FC1, 0xFF80]
    sandbox = Sandbox(tmp_path, base)
    after = base | {"a.weight": changed()["a.weight"]}
    found = sandbox.vector(after)
    assert [spec.name for spec in found.vector.tensors] == ["a.weight"]
    assert run(sandbox.plan([Term("v", found.id)], Rules.of("ties")), base)[0] == {
        name: bits.tobytes() for name, (_, _, bits) in after.items()
    }


def test_a_changed_tensor_of_integers_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, changed(ids=("I64", (3,), np.arange(1, 4))))
    assert "tensor ids of dtype I64 differs from the base's" in message


def test_nothing_changed_is_an_answer_of_no(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no element changed"):
        Sandbox(tmp_path, base_model()).vector(base_model())


def test_a_vector_trained_onto_a_mixture_comes_back_within_a_rounding(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    base: Model = {"w": ("BF16", (1000,), bf16(random.normal(size=1000)))}
    first: Model = {"w": ("BF16", (1000,), bf16(random.normal(size=1000)))}
    sandbox = Sandbox(tmp_path, base)
    one = Term("one", sandbox.vector(first).id, alpha="0.6")
    mixture = sandbox.plan([one], Rules.of("ties"))
    w = np.frombuffer(run(mixture, base)[0]["w"], np.uint16)
    trained = bf16(casts.widen32(w, "BF16") + random.normal(scale=0.01, size=1000).astype(np.float32))
    trained[::5] = w[::5]
    found = sandbox.vector({"w": ("BF16", (1000,), trained)}, onto=mixture)
    both = sandbox.plan([one, Term("two", found.id, join="add")], Rules.of("ties"))
    out = np.frombuffer(run(both, base)[0]["w"], np.uint16)
    difference = np.abs(casts.widen(out, "BF16") - casts.widen(trained, "BF16"))
    assert found.largest_rounding is not None
    assert difference.max() <= 2 * found.largest_rounding + 2.0**-7
    assert (out[::5] == w[::5]).all()


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_narrowing_binary32_rounds_as_torch_does(values: list[float]) -> None:
    numbers = np.array(values, np.float32)
    for dtype in ("BF16", "F16"):
        want = chunks.bits(torch.from_numpy(numbers).to(chunks.TORCH[dtype]))
        np.testing.assert_array_equal(casts.narrow32(numbers, dtype), want)


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=50))
def test_narrowing_binary64_rounds_once(values: list[float]) -> None:
    numbers = np.array(values, np.float64)
    got = casts.widen(casts.narrow(numbers, "BF16"), "BF16")
    for value, rounded in zip(values, got.tolist(), strict=True):
        below, above = neighbours(rounded)
        error = abs(value - rounded) if np.isfinite(rounded) else 0.0
        if np.isfinite(rounded):
            assert error <= abs(value - below)
            assert error <= abs(value - above)
        else:
            assert abs(value) >= 2.0**128 - 2.0**119


def neighbours(value: float) -> tuple[float, float]:
    bits = int(np.float32(abs(value)).view(np.uint32)) >> 16
    found = [np.uint32(near << 16).view(np.float32) for near in (max(bits - 1, 0), min(bits + 1, 0x7F7F))]
    return tuple(float(np.copysign(near, np.float32(value))) for near in found)  # type: ignore[return-value]
