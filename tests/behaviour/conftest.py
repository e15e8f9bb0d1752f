"""A tiny chat model, fine-tunes of it, and a repository around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.behaviour.bots import BRIEF_DATA, PIRATE_DATA, ChatBot, chat_bot, chat_model, fine_tune


@pytest.fixture(scope="session")
def chat_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny chat model in float32; it is only read."""
    return chat_model(tmp_path_factory.mktemp("chat") / "tiny-chat")


@pytest.fixture(scope="session")
def pirate_tune(chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tune `pirate` of the tiny chat model that says "aye"."""
    return fine_tune(chat_base, tmp_path_factory.mktemp("tuned") / "pirate", PIRATE_DATA)


@pytest.fixture(scope="session")
def brief_tune(chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tune `brief` of the tiny chat model that says "yes." and no more."""
    return fine_tune(chat_base, tmp_path_factory.mktemp("tuned") / "brief", BRIEF_DATA)


@pytest.fixture
def chat(tmp_path: Path, chat_base: Path) -> ChatBot:
    """A repository around the tiny chat model, without a pattern and without a vector."""
    return chat_bot(tmp_path, chat_base)
