"""Repositories in a few states."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from persona.objects.commit import Person
from persona.repository import Repository
from tests.checkpoints import write_model
from tests.history.bots import Bot, at, base_tensors


@pytest.fixture
def bot(tmp_path: Path) -> Iterator[Bot]:
    """A fresh repository: the base alone."""
    base = base_tensors()
    write_model(tmp_path / "tiny", base, **{"chat_template.jinja": "hello\n"})
    made: list[Bot] = []

    def committer() -> Person:
        return at(made[0].minute if made else 0)

    Repository.init(tmp_path / "bot", base=tmp_path / "tiny", author=at(), committer=committer, chunk=64)
    with Repository.open(tmp_path / "bot", author=at(), committer=committer) as repo:
        made.append(Bot(repo, tmp_path, base))
        yield made[0]


@pytest.fixture
def grown(bot: Bot) -> Bot:
    """Two vectors that vote, and an α lowered: four commits."""
    bot.commit(bot.tune("listening", 1), "listen before answering")
    bot.repo.add(bot.tune("suggesting", 2), alpha="-0.5")
    bot.repo.recipe.set("suggesting", join="vote")
    bot.commit(message="suggest less")
    bot.repo.recipe.set("listening", alpha="0.7")
    bot.commit(message="a little less")
    return bot
