"""Quantised checkpoints, known by the names and dtypes of their tensors."""

from __future__ import annotations

from typing import Any

import pytest

from persona.objects.tensors import TensorSpec
from persona.weights.quantised import Quantised, is_part, recognise

PLAIN = {"model.embed.weight": "BF16", "model.norm.weight": "F32"}
LAYER = "model.layers.0.mlp.up_proj"


def specs(tensors: dict[str, str]) -> list[TensorSpec]:
    return [TensorSpec(name, dtype, (4, 2)) for name, dtype in (PLAIN | tensors).items()]


@pytest.mark.parametrize(
    ("tensors", "method"),
    [
        (
            {f"{LAYER}.weight": "U8", f"{LAYER}.weight.quant_state.bitsandbytes__nf4": "U8"},
            "bitsandbytes",
        ),
        ({f"{LAYER}.weight": "I8", f"{LAYER}.SCB": "F32"}, "bitsandbytes"),
        ({f"{LAYER}.qweight": "I32", f"{LAYER}.g_idx": "I32", f"{LAYER}.scales": "F16"}, "GPTQ"),
        ({f"{LAYER}.qweight": "I32", f"{LAYER}.qzeros": "I32", f"{LAYER}.scales": "F16"}, "AWQ or GPTQ"),
        ({f"{LAYER}.W_q": "U8", f"{LAYER}.zero": "F16"}, "HQQ"),
        ({f"{LAYER}.weight_packed": "I32", f"{LAYER}.weight_scale": "BF16"}, "compressed-tensors"),
        ({f"{LAYER}_blocks": "U8", f"{LAYER}_scales": "U8"}, "MXFP4"),
        ({f"{LAYER}.weight": "F8_E4M3", f"{LAYER}.weight_scale_inv": "F32"}, "FP8 or INT8 with scales"),
        ({f"{LAYER}.weight": "F8_E5M2"}, "FP8 or narrower"),
        ({f"{LAYER}.weight": "U32", f"{LAYER}.scales": "BF16", f"{LAYER}.biases": "BF16"}, "MLX"),
    ],
)
@pytest.mark.parametrize("named", [None, "gptq"])
def test_packed_weights_are_recognised_whatever_the_config_says(
    tensors: dict[str, str], method: str, named: str | None
) -> None:
    config = {"quantization_config": {"quant_method": named}} if named else {}
    assert recognise(specs(tensors), config) == Quantised("GPTQ" if named else method, packed=True)


@pytest.mark.parametrize(
    ("config", "method"),
    [
        ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"quant_method": "fp8"}}, "FP8"),
        ({"text_config": {"quantization_config": {"quant_method": "new"}}}, "new"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "its config names no method"),
        ({"compression_config": {"format": "pack-quantized"}}, "pack-quantized"),
    ],
)
def test_a_config_beside_plain_floats_only_says_so(config: dict[str, Any], method: str) -> None:
    assert recognise(specs({}), config) == Quantised(method, packed=False)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"embeddings.position_ids": "I64", "attn.bias": "BOOL"},
        {"norm.num_batches_tracked": "I64", "router.weight_scale": "F32"},
        {f"{LAYER}.W_q": "BF16"},
        {"rel.index": "I32"},
    ],
)
@pytest.mark.parametrize("config", [None, {}, {"quantization_config": None}, {"quantization_config": {}}])
def test_a_model_with_integers_or_scales_of_its_own_is_not_quantised(
    tensors: dict[str, str], config: dict[str, Any] | None
) -> None:
    assert recognise(specs(tensors), config) is None


@pytest.mark.parametrize("part", ["weight", "bias", "gamma", "layer_scale", "lambda_1", "weight_g", "A_log"])
def test_parameters_of_plain_layers_are_no_parts_of_quantised_ones(part: str) -> None:
    assert not is_part(f"{LAYER}.{part}")
    assert is_part(f"{LAYER}.weight_scale")
