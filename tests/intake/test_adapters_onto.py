"""Adapters that PEFT trained on the weights of a revision, against PEFT's own merge."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

import persona
from persona.errors import InvalidInput
from persona.repository import Repository

SIZES: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
ME = persona.Person("A. Tester", "tester@example.org", 1_700_000_000, 0)
Weights = dict[str, torch.Tensor]


def begin(place: Path, model: Any) -> Repository:
    torch.manual_seed(0)
    model.save_pretrained(place / "base")
    return persona.init(place / "bot", base=place / "base", author=ME)


@pytest.fixture
def untied(tmp_path: Path) -> Iterator[Repository]:
    """A base with biases, and a fine-tune in HEAD."""
    with begin(tmp_path, Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=False))) as repo:
        (tmp_path / "f").mkdir()
        save_file(
            moved(load_file(tmp_path / "base" / "model.safetensors")), tmp_path / "f" / "model.safetensors"
        )
        repo.commit(tmp_path / "f", message="f")
        yield repo


@pytest.fixture
def tied(tmp_path: Path) -> Iterator[Repository]:
    with begin(tmp_path, LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True))) as repo:
        yield repo


def moved(weights: Weights) -> Weights:
    torch.manual_seed(1)
    return {name: value + 0.01 * torch.randn_like(value) for name, value in weights.items()}


def grow(repo: Repository, place: Path, tokens: int = 48) -> None:
    """Commits a vector with an output matrix of its own, and maybe new tokens."""
    found = moved(load_file(place / "base" / "model.safetensors"))
    embedding = found["model.embed_tokens.weight"]
    embedding = torch.cat([embedding, torch.randn(tokens - 48, 32) * 0.02])
    found |= {
        "model.embed_tokens.weight": embedding,
        "lm_head.weight": embedding + 0.1 * torch.randn(tokens, 32),
    }
    (place / "g").mkdir()
    save_file(found, place / "g" / "model.safetensors")
    config = json.loads((place / "base" / "config.json").read_text())
    config |= {"tie_word_embeddings": False, "vocab_size": tokens}
    (place / "g" / "config.json").write_text(json.dumps(config))
    repo.commit(place / "g", message="g", untie=True, extend_vocab=tokens > 48)


def adapted(repo: Repository, place: Path, *modules: str, **config: Any) -> Weights:
    """Trains an adapter on the weights of HEAD; returns PEFT's merge, which is written into `merged`."""
    repo.checkout(out=place / "start")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_pretrained(place / "start", dtype=torch.float32)
        made = get_peft_model(model, LoraConfig(r=4, target_modules=list(modules), **config))
        torch.manual_seed(2)
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.data += torch.randn_like(parameter) * 0.03
        made.save_pretrained(place / "ad")
        made.merge_and_unload().save_pretrained(place / "merged")
    return load_file(place / "merged" / "model.safetensors")


def check(repo: Repository, merged: Weights) -> None:
    repo.checkout()
    found = load_file(repo.root / "model.safetensors")
    assert found.keys() == merged.keys()
    for name, value in merged.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0, msg=name)
    assert repo.fsck().ok


@pytest.mark.parametrize(
    "config",
    [
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens", "norm"]},
        {"bias": "all"},
        {"trainable_token_indices": {"embed_tokens": [3, 5]}},
    ],
    ids=["head", "embedding", "biases", "tokens"],
)
def test_whole_tensors_are_relative_to_the_weights_of_the_revision(
    untied: Repository, tmp_path: Path, config: dict[str, Any]
) -> None:
    merged = adapted(untied, tmp_path, "q_proj", "v_proj", **config)
    made = untied.commit(tmp_path / "ad", message="ad", onto="HEAD")
    assert made.vectors[0].ranks == (4,)
    check(untied, merged)


def test_an_embedding_that_is_saved_beside_its_factor_is_that_of_the_revision(
    untied: Repository, tmp_path: Path
) -> None:
    merged = adapted(untied, tmp_path, "embed_tokens", "q_proj")
    untied.commit(tmp_path / "ad", message="ad", onto="HEAD")
    check(untied, merged)


@pytest.mark.parametrize("tokens", [48, 50])
@pytest.mark.parametrize("saved", ["lm_head", "embed_tokens"])
def test_whole_tensors_of_a_grown_revision(tied: Repository, tmp_path: Path, tokens: int, saved: str) -> None:
    grow(tied, tmp_path, tokens)
    merged = adapted(tied, tmp_path, "q_proj", modules_to_save=[saved])
    made = tied.commit(tmp_path / "ad", message="ad", onto="HEAD")
    assert not any("changes both" in note for note in made.notes)
    check(tied, merged)
    tied.revert("g")
    tied.checkout()


def test_factors_of_an_embedding_leave_the_output_matrix_of_the_revision(
    tied: Repository, tmp_path: Path
) -> None:
    grow(tied, tmp_path)
    merged = adapted(tied, tmp_path, "embed_tokens")
    made = tied.commit(tmp_path / "ad", message="ad", onto="HEAD")
    assert not any("changes both" in note for note in made.notes)
    check(tied, merged)


@pytest.mark.parametrize(("tokens", "module"), [(48, "lm_head"), (50, "lm_head"), (50, "embed_tokens")])
def test_factors_of_a_grown_tensor_are_refused_and_the_merged_model_is_taken(
    tied: Repository, tmp_path: Path, tokens: int, module: str
) -> None:
    grow(tied, tmp_path, tokens)
    merged = adapted(tied, tmp_path, module)
    with pytest.raises(InvalidInput, match=r"(?s)has grown that tensor.*merge_and_unload"):
        tied.commit(tmp_path / "ad", message="ad", onto="HEAD")
    tied.commit(tmp_path / "merged", message="ad", onto="HEAD")
    check(tied, merged)


def test_a_copy_of_a_tied_embedding_leaves_the_output_matrix_as_it_is(
    tied: Repository, tmp_path: Path
) -> None:
    merged = adapted(tied, tmp_path, "q_proj", modules_to_save=["embed_tokens"])
    with pytest.raises(InvalidInput, match=r"(?s)trained apart from lm_head.weight.*untie=True"):
        tied.commit(tmp_path / "ad", message="ad")
    made = tied.commit(tmp_path / "ad", message="ad", untie=True)
    assert made.vectors[0].grown == {"lm_head.weight": "model.embed_tokens.weight"}
    assert "lm_head.weight" in merged
    check(tied, merged)
    assert json.loads((tied.root / "config.json").read_text())["tie_word_embeddings"] is False
