"""Layer and module, read off the names of tensors."""

from __future__ import annotations

import pytest

from persona.measure.layers import Position, positions, unchanged_kinds

NAMES = {
    "llama": {
        "model.embed_tokens.weight": (None, "embed_tokens"),
        "model.layers.12.self_attn.q_proj.weight": (12, "self_attn.q_proj"),
        "model.layers.12.input_layernorm.weight": (12, "input_layernorm"),
        "model.norm.weight": (None, "norm"),
        "lm_head.weight": (None, "lm_head"),
    },
    "qwen": {
        "model.layers.0.self_attn.q_proj.bias": (0, "self_attn.q_proj"),
        "model.layers.0.self_attn.q_norm.weight": (0, "self_attn.q_norm"),
        "model.layers.1.mlp.experts.17.gate_proj.weight": (1, "mlp.experts.gate_proj"),
        "model.layers.1.mlp.shared_expert_gate.weight": (1, "mlp.shared_expert_gate"),
    },
    "gpt2": {
        "transformer.wte.weight": (None, "wte"),
        "transformer.h.3.attn.c_attn.bias": (3, "attn.c_attn"),
        "transformer.h.3.ln_1.weight": (3, "ln_1"),
        "transformer.ln_f.bias": (None, "ln_f"),
    },
    "gpt2 without its root": {
        "h.0.mlp.c_fc.weight": (0, "mlp.c_fc"),
        "wpe.weight": (None, "wpe"),
    },
    "neox": {
        "gpt_neox.embed_in.weight": (None, "embed_in"),
        "gpt_neox.layers.5.attention.query_key_value.weight": (5, "attention.query_key_value"),
        "gpt_neox.final_layer_norm.bias": (None, "final_layer_norm"),
        "embed_out.weight": (None, "embed_out"),
    },
    "mixtral": {
        "model.layers.31.block_sparse_moe.gate.weight": (31, "block_sparse_moe.gate"),
        "model.layers.31.block_sparse_moe.experts.7.w2.weight": (31, "block_sparse_moe.experts.w2"),
    },
    "two stacks": {
        "encoder.block.0.layer.0.SelfAttention.q.weight": (0, "layer.SelfAttention.q"),
        "decoder.block.0.layer.0.SelfAttention.q.weight": (0, "layer.SelfAttention.q"),
        "encoder.final_layer_norm.weight": (None, "encoder.final_layer_norm"),
        "decoder.final_layer_norm.weight": (None, "decoder.final_layer_norm"),
    },
    "of no kind": {
        "weight": (None, "weight"),
        "a": (None, "a"),
        "net.0.weight": (0, "net"),
        "net.1.bias": (1, "net"),
        "0.weight": (None, "0"),
        "backbone.layers.2.mixer.A_log": (2, "mixer.A_log"),
    },
}


@pytest.mark.parametrize("family", NAMES)
def test_names_of_every_family_have_their_place(family: str) -> None:
    found = {name: (position.layer, position.module) for name, position in positions(NAMES[family]).items()}
    assert found == NAMES[family]


def test_stacks_tell_layers_of_one_number_apart() -> None:
    found = positions(NAMES["two stacks"])
    assert {position.stack for position in found.values()} == {"encoder.block", "decoder.block", None}


def test_a_model_is_read_from_the_embedding_to_the_head() -> None:
    llama = {
        name: None
        for layer in (10, 2)
        for part in (
            "mlp.down_proj",
            "input_layernorm",
            "self_attn.v_proj",
            "self_attn.q_proj",
            "mlp.up_proj",
        )
        for name in (f"model.layers.{layer}.{part}.weight",)
    }
    found = positions(["lm_head.weight", "model.norm.weight", *llama, "model.embed_tokens.weight"])
    ordered = [(position.layer, position.module) for position in sorted(found.values(), key=Position.order)]
    inside = ["self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm"]
    assert ordered == [
        (None, "embed_tokens"),
        *((layer, module) for layer in (2, 10) for module in inside),
        (None, "norm"),
        (None, "lm_head"),
    ]


LLAMA = [
    "model.embed_tokens.weight",
    *(
        f"model.layers.{layer}.{module}.weight"
        for layer in range(3)
        for module in (
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.q_norm",
            "mlp.up_proj",
            "mlp.down_proj",
            "input_layernorm",
        )
    ),
    "model.norm.weight",
    "lm_head.weight",
]


def unchanged(*patterns: str, names: list[str] = LLAMA) -> list[str]:
    """The kinds that are unchanged if every tensor changed whose name holds one of these texts."""
    return list(unchanged_kinds(names, {name for name in names if any(part in name for part in patterns)}))


def test_kinds_of_which_no_tensor_changed_are_named_by_kind_or_by_family() -> None:
    assert unchanged("") == []
    assert unchanged() == ["embeddings", "self_attn", "mlp", "norms", "lm_head"]
    assert unchanged("q_proj") == ["embeddings", "self_attn.k_proj", "mlp", "norms", "lm_head"]
    assert unchanged("_proj", "lm_head") == ["embeddings", "norms"]
    assert unchanged("layers", "embed", "head") == ["norm"]
    assert unchanged("layers.1.") == ["embeddings", "norm", "lm_head", "layer 0", "layer 2"]
    assert "self_attn" not in unchanged("q_norm")


def test_layers_of_which_no_tensor_changed_are_named_in_runs() -> None:
    names = [f"model.layers.{layer}.{module}" for layer in range(12) for module in ("mlp.up", "norm")]
    names.append("model.layers.3.extra")
    moved = ("layers.5.mlp", "layers.8.mlp", "layers.9.mlp", "layers.10.mlp")
    assert unchanged(*moved, names=names) == ["norms", "extra", "layers 0-4", "layers 6-7", "layer 11"]
    both = [f"{stack}.{name}" for stack in ("encoder", "decoder") for name in names]
    assert unchanged("encoder", "mlp", names=both)[-1] == "decoder.model.layers extra"
    assert unchanged("encoder", "layers.1.", names=both)[-2:] == [
        "decoder.model.layers.0",
        "decoder.model.layers.2-11",
    ]


def test_a_stack_of_layers_that_is_unchanged_stands_for_its_kinds() -> None:
    names = [
        f"{stack}.block.{layer}.{module}.weight"
        for stack in ("visual", "model")
        for layer in (0, 1)
        for module in ("attn.q", "mlp.up", "norm")
    ]
    assert unchanged("model.", names=names) == ["visual.block"]
    assert unchanged("model.", "visual.block.0.attn", names=names) == [
        "visual.block mlp",
        "visual.block norm",
        "visual.block.1",
    ]
