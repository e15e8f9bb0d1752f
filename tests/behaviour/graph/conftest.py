"""A repository whose graph the tests write."""

from __future__ import annotations

import pytest

from tests.history.bots import Bot


@pytest.fixture
def bot(bot: Bot) -> Bot:
    """A fresh repository: the base alone, and an empty graph."""
    (bot.root / "graph" / "data").mkdir(parents=True)
    return bot
