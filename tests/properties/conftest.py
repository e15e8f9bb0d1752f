"""Repositories around tiny Llama models."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.llamas import LlamaBot


@pytest.fixture
def bot(begin: Callable[..., LlamaBot]) -> LlamaBot:
    """A repository of a bf16 Llama with one commit."""
    return begin()


@pytest.fixture
def grown(bot: LlamaBot) -> LlamaBot:
    """Three vectors in three commits: `one`, `two` at −0.5, and `three` that reaches layer 1 alone."""
    return bot.grow()
