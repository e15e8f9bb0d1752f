"""Tensors that are left as in the base on request, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona.errors import InvalidInput
from persona.intake.naming import described
from tests.checkpoints import bf16
from tests.merge.models import Model, Sandbox

QUIET_NAN, INFINITY = 0x7FC0, 0x7F80


def weights(seed: int, *shape: int) -> tuple[str, tuple[int, ...], np.ndarray[Any, Any]]:
    return ("BF16", shape, bf16(np.random.default_rng(seed).normal(size=shape)))


def base() -> dict[str, Any]:
    found: dict[str, Any] = {
        "model.embed_tokens.weight": weights(0, 12, 4),
        "lm_head.weight": weights(1, 12, 4),
    }
    for layer in range(12):
        for number, part in enumerate(("self_attn.q_proj", "mlp.up_proj", "norm")):
            found[f"model.layers.{layer}.{part}.weight"] = weights(10 * layer + number + 2, 16)
    return found | {
        "position_ids": ("I64", (3,), np.arange(3)),
        "double": ("F64", (1,), np.ones(1).view(np.uint64)),
    }


def trained(**tensors: Any) -> dict[str, Any]:
    moved = {name: (held[0], held[1], held[2] + 1) for name, held in base().items() if held[0] == "BF16"}
    return base() | moved | {name.replace("__", "."): held for name, held in tensors.items()}


def refused(sandbox: Sandbox, after: Model, **options: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        sandbox.vector(after, **options)
    return caught.value


@pytest.mark.parametrize(
    ("tensors", "name", "said"),
    [
        ({"position_ids": ("I32", (3,), np.arange(3, dtype=np.uint32))}, "position_ids", "dtype I32"),
        ({"position_ids": ("BF16", (3,), bf16(np.arange(3)))}, "position_ids", "dtype BF16"),
        ({"position_ids": ("I64", (3,), np.arange(1, 4))}, "position_ids", "differs from the base's"),
        ({"position_ids": ("I64", (5,), np.arange(5))}, "position_ids", "shape"),
        ({"double": ("F64", (1,), np.zeros(1, np.uint64))}, "double", "differs from the base's"),
    ],
)
def test_a_tensor_that_no_vector_can_change_can_be_left(
    tmp_path: Path, tensors: dict[str, Any], name: str, said: str
) -> None:
    sandbox = Sandbox(tmp_path, base())
    after = trained(**tensors)
    error = str(refused(sandbox, after))
    assert said in error
    assert f"leave='{name}' leaves it as it is in the base" in error
    made = sandbox.vector(after, leave=name)
    assert made.id == sandbox.vector(trained()).id
    assert made.left == (name,)
    assert f"left as in the base: {name}" in made.notes


def test_integers_that_are_missing_are_the_bases(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, base())
    after = trained()
    del after["position_ids"]
    made = sandbox.vector(after)
    assert made.id == sandbox.vector(trained()).id
    assert made.left == ("position_ids",)
    assert made.notes == ("1 tensor missing in ft-0.safetensors, counted as unchanged: position_ids",)
    del after["double"]
    assert "1 tensor of the base is missing: double" in str(refused(sandbox, after))


@pytest.mark.parametrize("mended", [False, True])
def test_a_number_that_is_not_finite_on_one_side_says_on_which(tmp_path: Path, mended: bool) -> None:
    name = "model.layers.3.norm.weight"
    bad = ("BF16", (16,), np.array([1, QUIET_NAN, 2, INFINITY] * 4, np.uint16))
    sandbox = Sandbox(tmp_path, base() | ({name: bad} if mended else {}))
    after = trained() if mended else trained(model__layers__3__norm__weight=bad)
    error = refused(sandbox, after)
    side = "8 elements are not finite in the base" if mended else "8 elements are not finite here"
    assert f"tensor {name}: {side}" in error.message
    assert ("earlier checkpoint" in error.message) is not mended
    assert f"leave='{name}'" in str(error)
    assert sandbox.vector(after, leave=[name]).left == (name,)


def test_leave_takes_globs_and_reaches_tensors_that_could_change(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, base())
    made = sandbox.vector(trained(), leave=["*embed*", "model.layers.1?.*"])
    after = trained() | {
        name: held
        for name, held in base().items()
        if "embed" in name or ".layers.1" in name.replace(".layers.1.", "")
    }
    assert made.id == sandbox.vector(after).id
    assert "left as in the base: all of layers 10 and 11 (6) and model.embed_tokens.weight" in made.notes


def test_words_of_other_options_are_globs_of_leave(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, base())
    for word in ("zero", "ignore", "refuse"):
        said = refused(sandbox, trained(), leave=word).message
        assert said.startswith(f"leave: '{word}' matches none of 40 tensors")


def test_a_glob_that_matches_no_missing_tensor_is_named(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, base())
    after = trained()
    del after["model.layers.2.norm.weight"]
    said = refused(sandbox, after, missing="*q_proj*").message
    assert "missing: model.layers.2.norm.weight ('*q_proj*' matches none of them)" in said
    assert (
        "'*q_proj*' matches no missing tensor" in sandbox.vector(after, missing=["*.2.*", "*q_proj*"]).notes
    )
    assert not any("matches" in said for said in sandbox.vector(after, missing="zero").notes)


def test_new_tokens_that_are_left_are_counted(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, base())
    after = trained(model__embed_tokens__weight=weights(5, 14, 4), lm_head__weight=weights(6, 14, 4))
    notes = sandbox.vector(after, leave=["*embed*", "lm_head*"]).notes
    assert "model.embed_tokens.weight stays as it is, so 2 new tokens are left out" in notes


@pytest.mark.parametrize("parameter", ["leave", "missing"])
def test_a_glob_that_matches_no_tensor_is_refused(tmp_path: Path, parameter: str) -> None:
    sandbox = Sandbox(tmp_path, base())
    error = refused(sandbox, trained(), **{parameter: "model.layer.*"})
    assert error.message.startswith(
        f"{parameter}: 'model.layer.*' matches none of 40 tensors; names look like "
    )
    assert "without a ']'" in refused(sandbox, trained(), **{parameter: "[a"}).message


def test_globs_admit_what_they_match_and_no_more(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, base())
    after = trained(mtp__fc__weight=weights(1, 16), value__weight=weights(2, 16))
    del after["model.layers.11.norm.weight"], after["model.layers.2.norm.weight"]
    some = refused(sandbox, after, missing="model.layers.11.*", extra="mtp.*").message
    assert "1 tensor of the base is missing: model.layers.2.norm.weight" in some
    assert "1 tensor that the base does not have: value.weight" in some
    assert "layers.11" not in some
    assert "mtp" not in some
    made = sandbox.vector(after, missing=["*.11.*", "*.2.*"], extra=["mtp.*", "value.*"])
    assert made.left == ("model.layers.11.norm.weight", "model.layers.2.norm.weight")
    assert made.id == sandbox.vector(after, missing="zero", extra="ignore").id


def test_what_is_missing_is_grouped_by_layer_and_kind(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, base())
    after = {
        name: held
        for name, held in trained().items()
        if "layers.11." not in name and name != "lm_head.weight"
    }
    after |= {
        f"mtp.{name}": weights(1, 16) for name in ("a.weight", "b.weight", "layers.0.weight", "norm.weight")
    }
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 12}')
    said = refused(sandbox, after).message
    assert "4 tensors of the base are missing: the head (lm_head.weight) and all of layer 11 (3)" in said
    assert "4 tensors that the base does not have: mtp.* (4)" in said
    notes = sandbox.vector(after, missing="zero", extra="ignore").notes
    assert any("the head (lm_head.weight) and all of layer 11 (3)" in note for note in notes)
    assert any("mtp.* (4)" in note for note in notes)


LAYERS = [f"a.mtp.{part}.w" for part in "xyz"]
LAYERS += [
    f"{stack}.{n}.{part}" for stack in ("a.layers", "b.blocks") for n in range(9) for part in ("x.w", "y.w")
]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["top.weight"], "top.weight"),
        ([name for name in LAYERS if name.startswith("a.layers.3.")], "all of layer 3 of a.layers (2)"),
        (
            [name for name in LAYERS if name.startswith("a.layers.") and name.split(".")[2] in "15678"],
            "all of layers 1 and 5 to 8 of a.layers (10)",
        ),
        (
            [name for name in LAYERS if name.endswith("y.w") and "mtp" not in name],
            "all y of a.layers (9) and all y of b.blocks (9)",
        ),
        ([name for name in LAYERS if name.startswith("a.")], "a.* (21)"),
        ([f"b.blocks.{n}.x.w" for n in range(5)], "b.blocks.*.x.w (5)"),
        ([f"a.mtp.{part}.w" for part in "xyz"], "a.mtp.* (3)"),
        (["a.layers.0.x.w", "b.blocks.1.y.w"], "a.layers.0.x.w and b.blocks.1.y.w"),
    ],
)
def test_names_are_described_by_layer_and_kind(names: list[str], said: str) -> None:
    assert described(names, [*LAYERS, "top.weight", "other.weight"]) == said


# -- parts of modules that the base has


def test_a_trained_bias_that_the_base_lacks_is_no_extra_to_leave_out(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, base())
    after = trained(model__layers__3__norm__bias=weights(9, 16))
    said = str(refused(sandbox, after))
    assert "model.layers.3.norm.bias; it is a part of a module of the base" in said
    assert "leaving it out changes the model" in said
    assert "extra=" not in said
    assert sandbox.vector(after, extra="*.bias").id == sandbox.vector(trained()).id


@pytest.mark.parametrize("part", ["weight_scale", "weight_zero_point", "input_scale", "scales", "k_scale"])
def test_scales_beside_plain_floats_are_called_quantised(tmp_path: Path, part: str) -> None:
    sandbox = Sandbox(tmp_path, base())
    name = f"model.layers.3.mlp.up_proj.{part}"
    after = trained() | {name: ("BF16", (16, 1), np.full(16, 0x3F80, np.uint16))}
    said = str(refused(sandbox, after))
    assert f"{name} is a part of a quantised layer" in said
    assert "from before the quantisation" in said
    assert "0 for a bias" not in said
    assert "extra=" not in said


def test_a_bias_of_zeros_and_a_counter_change_nothing(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, base())
    after = trained(model__layers__3__norm__bias=("BF16", (16,), np.zeros(16, np.uint16)))
    made = sandbox.vector(after)
    assert made.id == sandbox.vector(trained()).id
    assert "biases of zeros that the base does not have, left out: model.layers.3.norm.bias" in made.notes
    counted = trained(model__layers__3__norm__num_batches_tracked=("I64", (), np.array(3)))
    assert "extra='ignore'" in str(refused(sandbox, counted))


# -- narrower dtypes


def test_a_narrow_copy_of_a_wide_base_changes_only_what_was_trained(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    still = np.random.default_rng(1).normal(size=200).astype(np.float32)
    sandbox = Sandbox(
        tmp_path, {"a": ("F32", (30, 5), wide.view(np.uint32)), "b": ("F32", (200,), still.view(np.uint32))}
    )

    def rounded(values: Any) -> Any:
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)

    after = rounded(wide)
    after[3, 2] += 1
    made = sandbox.vector({"a": ("BF16", (30, 5), after), "b": ("BF16", (200,), rounded(still))}, cast=True)
    assert [spec.name for spec in made.vector.tensors] == ["a"]
    assert made.changed_fraction == 1 / 350
    exact = wide.view(np.uint32).copy()
    exact[3, 2] = np.uint32(after[3, 2]) << 16
    other = sandbox.vector({"a": ("F32", (30, 5), exact), "b": ("F32", (200,), still.view(np.uint32))})
    assert made.id == other.id
    assert made.notes == (
        "BF16 cannot hold the base's numbers: an element that is the base's, rounded to it, counts as"
        " unchanged",
    )
