"""Which parameters a run trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from persona.behaviour.graph.pattern import TrainSettings
from persona.behaviour.training.parameters import choose
from persona.errors import InvalidInput


@pytest.fixture
def model(chat_base: Path) -> Any:
    """The tiny model, whose embeddings are tied."""
    return AutoModelForCausalLM.from_pretrained(chat_base, dtype=torch.float32)


def trained(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_embeddings_are_frozen_unless_they_are_asked_for(model: Any) -> None:
    everything = {name for name, _ in model.named_parameters()}
    assert everything - trained(choose(model, TrainSettings())) == {"model.embed_tokens.weight"}
    assert trained(choose(model, TrainSettings(embeddings=True))) == everything


def test_globs_choose_parameters(model: Any) -> None:
    found = trained(choose(model, TrainSettings(modules=("*.0.mlp.*", "*.1.*.q_proj.*"))))
    assert len(found) == 4
    assert all(".0.mlp." in name or ".1.self_attn.q_proj." in name for name in found)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_glob_that_reaches_nothing_is_named(model: Any, method: str) -> None:
    with pytest.raises(InvalidInput, match=r"'\*\.experts\.\*' matches no .*self_attn\.q_proj\.weight"):
        choose(model, TrainSettings(method=method, modules=("*q_proj*", "*.experts.*")))


def test_a_glob_for_frozen_embeddings_reaches_nothing_and_says_why(model: Any) -> None:
    with pytest.raises(InvalidInput, match=r"embed_tokens.*\n.*embeddings = true"):
        choose(model, TrainSettings(modules=("*embed_tokens*",)))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for an old name
def test_lora_goes_around_the_linear_layers_that_the_globs_reach(model: Any) -> None:
    found = trained(choose(model, TrainSettings(method="lora", rank=2, modules=("*.v_proj.*",))))
    assert len(found) == 4
    assert all(".v_proj.lora_" in name for name in found)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_lora_leaves_the_output_embeddings_alone(model: Any) -> None:
    found = trained(choose(model, TrainSettings(method="lora", rank=2)))
    assert len(found) == 2 * 2 * 7
    assert not any("lm_head" in name for name in found)
