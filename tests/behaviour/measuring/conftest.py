"""The tiny chat model as a scoring model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def model(chat_base: Path) -> Any:
    """The tiny chat model, loaded by transformers; its weights are not changed."""
    import torch
    from transformers import AutoModelForCausalLM

    found: Any = AutoModelForCausalLM.from_pretrained(
        chat_base, dtype=torch.float32, attn_implementation="eager"
    )
    return found.eval()
