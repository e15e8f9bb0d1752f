"""A tiny chat model, fine-tunes of it, and repositories around it and around plain tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from persona.repository import Repository
from tests.behaviour.bots import (
    BRIEF_DATA,
    PIRATE_DATA,
    ChatBot,
    chat_bot,
    chat_model,
    fine_tune,
    in_bf16,
)
from tests.checkpoints import write_model
from tests.history.bots import Bot, at, base_tensors


@pytest.fixture(scope="session")
def chat_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny chat model in float32; it is only read."""
    return chat_model(tmp_path_factory.mktemp("chat") / "tiny-chat")


@pytest.fixture(scope="session")
def bf16_base(chat_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the same model in bf16; it is only read."""
    return in_bf16(chat_base, tmp_path_factory.mktemp("bf16") / "tiny-chat")


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


@pytest.fixture
def pirate(chat: ChatBot, pirate_tune: Path) -> ChatBot:
    """The patterns `pirate` and `brief`, and a commit with the vector `pirate`."""
    chat.pirate()
    chat.brief()
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    return chat


@pytest.fixture
def bot(tmp_path: Path) -> Iterator[Bot]:
    """A fresh repository: the base alone."""
    base = base_tensors()
    write_model(tmp_path / "tiny", base)
    Repository.init(tmp_path / "bot", base=tmp_path / "tiny", author=at(), committer=at(), chunk=64)
    with Repository.open(tmp_path / "bot", author=at(), committer=at()) as repo:
        yield Bot(repo, tmp_path, base)
