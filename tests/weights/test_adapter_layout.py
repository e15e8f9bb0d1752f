"""How an adapter names the changes of a model's tensors."""

from __future__ import annotations

import json
import re
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.objects.tensors import TensorSpec
from persona.weights.adapter_layout import (
    PREFIX,
    FactorEntry,
    WholeEntries,
    config_of,
    is_router,
    layout_of,
    whole_entries,
)

NOTHING = WholeEntries({}, (), "none", ())


def spec(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, "BF16", shape)


def factor(name: str, rank: int = 4, scale: float = 1.0, layout: str = "linear") -> FactorEntry:
    return FactorEntry(spec(name, 8, 6), layout, rank, scale, "F32")


def config(factors: list[FactorEntry], base: list[TensorSpec], **of_base: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(config_of(factors, NOTHING, base, "tiny", of_base))
    return found


@pytest.mark.parametrize(
    ("name", "shape", "model_type", "layout"),
    [
        ("model.layers.0.self_attn.q_proj.weight", (8, 6), "llama", "linear"),
        ("model.embed_tokens.weight", (40, 6), "llama", "embedding"),
        ("transformer.wte.weight", (40, 6), "gpt2", "embedding"),
        ("shared.weight", (40, 6), "t5", "embedding"),
        ("gpt_neox.embed_out.weight", (40, 6), "gpt_neox", "linear"),
        ("lm_head.weight", (40, 6), "llama", "linear"),
        ("h.0.attn.c_attn.weight", (6, 18), "gpt2", "transposed"),
        ("h.0.attn.c_attn.weight", (18, 6), "gpt_bigcode", "linear"),
        ("vision.patch_embedding.weight", (8, 3, 2, 2), "clip", "convolution"),
        ("decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (32, 4), "t5", "embedding"),
        ("backbone.layers.0.mixer.out_proj.weight", (8, 6), "mamba", None),
        ("model.norm.weight", (6,), "llama", None),
        ("model.layers.0.self_attn.q_proj.bias", (8,), "qwen2", None),
        ("model.layers.0.mlp.experts.gate_up_proj", (4, 8, 6), "gpt_oss", None),
        ("class_embedding", (1, 6), "vit", None),
    ],
)
def test_the_layout_follows_from_the_tensor(
    name: str, shape: tuple[int, ...], model_type: str, layout: str | None
) -> None:
    assert layout_of(spec(name, *shape), {"model_type": model_type}) == layout


@pytest.mark.parametrize(
    ("layout", "keys"),
    [
        ("linear", {"lora_A.weight": (4, 6), "lora_B.weight": (8, 4)}),
        ("transposed", {"lora_A.weight": (4, 8), "lora_B.weight": (6, 4)}),
        ("embedding", {"lora_embedding_A": (4, 8), "lora_embedding_B": (6, 4)}),
    ],
)
def test_the_file_holds_the_shapes_that_peft_expects(layout: str, keys: dict[str, tuple[int, int]]) -> None:
    found = factor("a.q.weight", layout=layout).specs()
    assert {one.name: one.shape for one in found} == {f"{PREFIX}a.q.{key}": keys[key] for key in keys}


def test_a_convolution_keeps_the_dimensions_of_its_kernel() -> None:
    entry = FactorEntry(spec("conv.weight", 8, 3, 2, 5), "convolution", 4, 1.0, "F32")
    assert [one.shape for one in entry.specs()] == [(4, 3, 2, 5), (8, 4, 1, 1)]


@given(st.integers(1, 4096), st.floats(2.0**-60, 2.0**60, width=32))
def test_lora_alpha_gives_the_scale_again(rank: int, scale: float) -> None:
    found = config([factor("a.q.weight", rank, scale)], [spec("a.q.weight", 8, 6)])
    assert struct.unpack("<f", struct.pack("<f", found["lora_alpha"] / found["r"]))[0] == scale


@given(st.integers(1, 512), st.integers(1, 512))
def test_a_whole_lora_alpha_stays_whole(rank: int, alpha: int) -> None:
    scale = struct.unpack("<f", struct.pack("<f", alpha / rank))[0]
    found = config([factor("a.q.weight", rank, scale)], [spec("a.q.weight", 8, 6)])
    assert found["lora_alpha"] == alpha
    assert isinstance(found["lora_alpha"], int)


def test_modules_of_one_name_are_targeted_together_and_others_by_their_path() -> None:
    base = [spec(f"layers.{layer}.{name}.weight", 8, 6) for layer in range(2) for name in ("q", "k")]
    factors = [factor("layers.0.q.weight"), factor("layers.1.q.weight"), factor("layers.0.k.weight")]
    assert config(factors, base)["target_modules"] == ["layers.0.k", "q"]


def test_a_container_of_the_same_name_is_not_targeted() -> None:
    base = [spec("attn.weight", 8, 6), spec("block.attn.q.weight", 8, 6), spec("block.attn.k.weight", 8, 6)]
    found = config([factor("attn.weight"), factor("block.attn.q.weight")], base)["target_modules"]
    assert re.fullmatch(found, "attn")
    assert re.fullmatch(found, "block.attn.q")
    assert not re.fullmatch(found, "block.attn")
    assert not re.fullmatch(found, "blockXattn.q")


def test_ranks_that_differ_stand_in_patterns_and_a_longer_name_comes_first() -> None:
    factors = [factor("q.weight", 2, 2.0), factor("text.q.weight", 4), factor("text.k.weight", 4)]
    found = config(factors, [entry.spec for entry in factors])
    assert (found["r"], found["lora_alpha"]) == (4, 4)
    assert list(found["rank_pattern"].items()) == [("text.q", 4), ("q", 2)]
    assert found["alpha_pattern"] == {"text.q": 4, "q": 4}


def test_ranks_that_agree_for_a_name_stand_there_once() -> None:
    factors = [
        factor(f"layers.{layer}.{name}.weight", rank)
        for layer in range(3)
        for name, rank in (("q", 4), ("k", 2), ("v", 4))
    ]
    found = config(factors, [entry.spec for entry in factors])
    assert found["rank_pattern"] == found["alpha_pattern"] == {"k": 2}


def test_only_causal_models_get_a_task_type() -> None:
    entry = factor("q.weight")
    assert config([entry], [entry.spec], architectures=["LlamaForCausalLM"])["task_type"] == "CAUSAL_LM"
    assert config([entry], [entry.spec], architectures=["BertForSequenceClassification"])["task_type"] is None


BASE = [
    spec("layers.0.norm.weight", 6),
    spec("layers.0.norm.bias", 6),
    spec("layers.0.q.weight", 8, 6),
    spec("layers.0.q.bias", 8),
    spec("layers.0.k.weight", 8, 6),
    spec("layers.0.k.bias", 8),
    spec("layers.0.other_norm.weight", 6),
    spec("layers.0.gamma", 6),
    spec("norm.weight", 6),
]
SPEC = {one.name: one for one in BASE}


def whole(*names: str) -> WholeEntries:
    return whole_entries([SPEC[name] for name in names], [factor("layers.0.q.weight")], BASE)


def test_a_module_is_saved_with_all_its_tensors() -> None:
    found = whole("layers.0.norm.bias")
    assert found.modules == ("norm",)
    assert {f"{PREFIX}layers.0.norm.bias", f"{PREFIX}layers.0.norm.weight"} <= found.entries.keys()


def test_modules_that_peft_would_save_as_well_are_there() -> None:
    found = whole("norm.weight")
    assert found.modules == ("norm",)
    assert {one.name for one in found.entries.values()} == {name for name in SPEC if "norm" in name}


def test_a_module_is_named_by_its_path_if_its_last_name_would_save_too_much() -> None:
    base = [spec("model.embed.weight", 2000, 600), spec("aux.embed.weight", 3, 4), spec("q.weight", 8, 6)]
    found = whole_entries([base[1]], [factor("q.weight")], base)
    assert found.modules == ("aux.embed",)
    assert list(found.entries) == [f"{PREFIX}aux.embed.weight"]


def test_stacked_experts_and_all_beside_them_are_left_out() -> None:
    base = [
        spec("mlp.experts.up_proj", 4, 8, 6),
        spec("mlp.experts.up_proj_bias", 4, 8),
        spec("q.weight", 8, 6),
    ]
    found = whole_entries(base[:2], [factor("q.weight")], base)
    assert found.left_out == ("mlp.experts.up_proj", "mlp.experts.up_proj_bias")
    assert not found.entries


@pytest.mark.parametrize(
    ("name", "shape", "router"),
    [
        ("layers.0.mlp.gate.weight", (64, 2048), True),
        ("layers.0.mlp.router.weight", (32, 2880), True),
        ("layers.0.mlp.gate_proj.weight", (64, 64), False),
        ("layers.0.mixer.gate.weight", (4096, 1024), False),
    ],
)
def test_a_router_is_known_by_its_name_and_its_rows(name: str, shape: tuple[int, int], router: bool) -> None:
    assert is_router(spec(name, *shape)) is router


def test_a_bias_beside_a_factor_and_another_bias_are_told_apart() -> None:
    beside = whole("layers.0.q.bias")
    assert (beside.bias, list(beside.entries)) == ("lora_only", [f"{PREFIX}layers.0.q.base_layer.bias"])
    both = whole("layers.0.k.bias", "layers.0.q.bias")
    assert both.bias == "all"
    assert set(both.entries) == {f"{PREFIX}layers.0.k.bias", f"{PREFIX}layers.0.q.base_layer.bias"}


def test_a_parameter_of_a_module_with_modules_inside_is_left_out() -> None:
    found = whole("layers.0.gamma", "layers.0.norm.weight")
    assert found.left_out == ("layers.0.gamma",)
    assert f"{PREFIX}layers.0.gamma" not in found.entries
