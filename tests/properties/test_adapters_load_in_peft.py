"""PEFT loads every adapter that persona writes, finds each key, and merges it to the revision's weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
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
@pytest.mark.parametrize("kind", MODELS)
def test_an_adapter_of_full_rank_merges_to_the_weights_of_the_revision(
    kind: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = MODELS[kind]().to(dtype)
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
