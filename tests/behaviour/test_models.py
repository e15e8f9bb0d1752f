"""What a model takes, by its config.json, and the device that it goes to."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import persona
from persona.behaviour.models import context_of, device_of, moved
from persona.errors import SystemFault, UsageError
from persona.merge.devices import choose
from persona.merge.devices.device import NoDevice
from tests.behaviour.bots import CONTEXT, ChatBot

GEMMA = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "max_position_embeddings": 77}}


@pytest.mark.parametrize(
    ("config", "context"),
    [
        (None, CONTEXT),
        ({"model_type": "gpt2", "n_positions": 64}, 64),
        (GEMMA, 77),
        ({"model_type": "nobody's"}, None),
    ],
)
def test_the_context_is_that_of_the_config_whatever_the_family_calls_it(
    chat: ChatBot, config: dict[str, Any] | None, context: int | None
) -> None:
    if config is not None:
        (chat.root / "config.json").write_text(json.dumps(config))
    with persona.open(chat.root) as repo:
        assert context_of(repo._history) == context


@pytest.mark.parametrize("there", [False, True])
def test_auto_is_the_gpu_that_the_driver_reports(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    def ask() -> int:
        if not there:
            raise NoDevice("the NVIDIA driver finds no GPU")
        return 1

    monkeypatch.setattr(choose, "ask_driver", ask)
    assert device_of(None) == device_of("auto") == ("cuda" if there else "cpu")
    assert device_of("cpu") == "cpu"


def test_a_word_that_is_no_device_is_refused() -> None:
    with pytest.raises(UsageError, match="tpu"):
        device_of("tpu")


def test_a_gpu_that_torch_cannot_use_is_a_fault_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemFault, match="the driver reports a GPU") as caught:
        moved(torch.nn.Linear(1, 1), "cuda")
    assert caught.value.hint is not None
