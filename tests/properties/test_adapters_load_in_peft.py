"""PEFT loads every adapter that persona writes, finds each key, and merges it to the revision's weights."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from persona.repository import Repository

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = {**SIZES, "intermediate_size": 24, "num_key_value_heads": 1, "max_position_embeddings": 32}


def llama(tied: bool) -> Any:
    return LlamaForCausalLM(LlamaConfig(**LLAMA, tie_word_embeddings=tied))


def qwen() -> Any:
    """Its projections have biases."""
    return Qwen2ForCausalLM(Qwen2Config(**LLAMA, tie_word_embeddings=False))


def gpt2() -> Any:
    """Conv1D layers, norms with biases, and an embedding of positions."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=32))


def experts() -> Any:
    """A router, and experts that transformers stacks and the file holds one by one."""
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**LLAMA, moe_intermediate_size=12, num_experts=4, num_experts_per_tok=2, head_dim=8)
    )


MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: llama(False),
    "tied": lambda: llama(True),
    "qwen2": qwen,
    "gpt2": gpt2,
}


def tuned(model: Any, seed: int) -> Any:
    """Moves every parameter a little."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return model


def merged(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """The state of a base with an adapter merged into it. Fails if PEFT misses a key."""
    from peft import PeftModel

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
        state: dict[str, torch.Tensor] = model.merge_and_unload().state_dict()
    assert not [one for one in said if "adapter keys" in str(one.message)]
    return state


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["F32", "BF16"])
@pytest.mark.parametrize("kind", [*MODELS, "experts"])
def test_an_adapter_of_full_rank_merges_to_the_weights_of_the_revision(
    kind: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = {**MODELS, "experts": experts}[kind]().to(dtype)
    model.save_pretrained(tmp_path / "base")
    tuned(model, 1).save_pretrained(tmp_path / "calm")
    wanted = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with Repository.init(tmp_path / "bot", base=tmp_path / "base") as repo:
        repo.commit(tmp_path / "calm", message="calm")
        result = repo.export_adapter("HEAD", out=tmp_path / "adapter")
    assert result.left_out == ()
    found = merged(tmp_path / "base", tmp_path / "adapter")
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        step = 4 * torch.finfo(dtype).eps * tensor.float().abs().max()
        assert (found[name].float() - tensor.float()).abs().max() <= step, name
        if tensor.ndim == 1:
            assert torch.equal(found[name], tensor), name


def trained(base: Path, place: Path, seed: int, **config: Any) -> Path:
    """An adapter as PEFT saves it, all of whose numbers moved as if it was trained."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**config))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn_like(parameter)
        model.save_pretrained(place, save_embedding_layers=False)
    return place


ADAPTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("llama", {"target_modules": ["q_proj", "down_proj"], "r": 4, "lora_alpha": 10}),
    "rslora": ("llama", {"target_modules": ["q_proj"], "r": 3, "lora_alpha": 5, "use_rslora": True}),
    "patterns": (
        "llama",
        {
            "target_modules": ["q_proj", "k_proj"],
            "rank_pattern": {"k_proj": 2},
            "alpha_pattern": {"layers.1.self_attn.q_proj": 7},
        },
    ),
    "embedding": ("tied", {"target_modules": ["embed_tokens", "v_proj"], "r": 2}),
    "head": ("llama", {"target_modules": ["lm_head"], "r": 2}),
    "norm": ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["norm"]}),
    "saved head": ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "bias": ("qwen2", {"target_modules": ["q_proj"], "bias": "lora_only"}),
    "all biases": ("gpt2", {"target_modules": ["c_fc"], "bias": "all", "fan_in_fan_out": True}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "r": 5}),
}


def made_base(kind: str, directory: Path) -> Path:
    torch.manual_seed(0)
    MODELS[kind]().to(torch.bfloat16).save_pretrained(directory / "base")
    return directory / "base"


@pytest.mark.parametrize("variant", ADAPTERS)
def test_an_adapter_comes_back_with_the_very_tensors_it_had(variant: str, tmp_path: Path) -> None:
    kind, config = ADAPTERS[variant]
    base = made_base(kind, tmp_path)
    theirs = load_file(trained(base, tmp_path / "theirs", 1, **config) / "adapter_model.safetensors")
    with Repository.init(tmp_path / "bot", base=base) as repo:
        repo.commit(tmp_path / "theirs", message="theirs")
        result = repo.export_adapter("HEAD", out=tmp_path / "ours")
        assert result.exact
        added = repo.add(tmp_path / "ours", name="ours")
        assert added.vectors[0].id == repo.vectors["theirs"].id
    ours = load_file(tmp_path / "ours" / "adapter_model.safetensors")
    for name, tensor in ours.items():
        if name in theirs:  # PEFT also saves biases that did not change
            assert tensor.dtype == theirs[name].dtype or "lora" not in name
            assert torch.equal(tensor, theirs[name].to(tensor.dtype)), name
    assert {name for name in theirs if "lora" in name} <= ours.keys()


@pytest.mark.parametrize("alpha", ["-0.5", "3"])
def test_the_strength_of_a_lone_adapter_goes_into_its_scale(alpha: str, tmp_path: Path) -> None:
    base = made_base("llama", tmp_path)
    theirs = load_file(
        trained(base, tmp_path / "theirs", 1, target_modules=["q_proj"], r=4) / "adapter_model.safetensors"
    )
    with Repository.init(tmp_path / "bot", base=base) as repo:
        repo.commit(tmp_path / "theirs", message="theirs", alpha=alpha)
        assert repo.export_adapter("HEAD", out=tmp_path / "ours").exact
    ours = load_file(tmp_path / "ours" / "adapter_model.safetensors")
    sign = -1 if alpha.startswith("-") else 1
    assert all(
        torch.equal(ours[name], sign * theirs[name] if "lora_B" in name else theirs[name]) for name in ours
    )
    config = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    assert config["lora_alpha"] == 8 * abs(float(alpha))


@pytest.mark.parametrize("kind", MODELS)
def test_joined_adapters_merge_to_the_checkout_of_the_recipe(kind: str, tmp_path: Path) -> None:
    base = made_base(kind, tmp_path)
    first, second, embedding = (
        ("c_attn", "c_fc", "wte") if kind == "gpt2" else ("q_proj", "up_proj", "embed_tokens")
    )
    turned = {"fan_in_fan_out": kind == "gpt2"}
    trained(base, tmp_path / "one", 1, target_modules=[first, second], r=3, lora_alpha=7, **turned)
    trained(base, tmp_path / "two", 2, target_modules=[first, embedding], r=2, **turned)
    with Repository.init(tmp_path / "bot", base=base) as repo:
        repo.recipe.set_rules({"preset": "linear"})
        repo.commit(tmp_path / "one", message="one", alpha="0.7")
        repo.commit(tmp_path / "two", message="two", alpha="-1.5")
        repo.checkout("HEAD", out=tmp_path / "whole")
        result = repo.export_adapter("HEAD", out=tmp_path / "both")
        assert result.exact
        assert result.rank == 5
        cut = repo.export_adapter("HEAD", out=tmp_path / "cut", rank=2)
        assert {tensor.rank for tensor in cut.tensors} == {2}
        assert 0.3 < cut.kept_energy < 1
        assert not cut.exact
    before = load_file(base / "model.safetensors")
    found = merged(base, tmp_path / "both")
    for name, tensor in load_file(tmp_path / "whole" / "model.safetensors").items():
        wide = tensor.float()
        # PEFT rounds the change to bf16 before it adds it.
        step = 2**-8 * (2 * wide.abs() + (wide - before[name].float()).abs())
        assert ((found[name].float() - wide).abs() <= step).all(), name
