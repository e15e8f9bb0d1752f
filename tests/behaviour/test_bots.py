"""The tiny chat models of the tests do as they were taught."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.behaviour.bots import PIRATE, PLAIN, TOPICS, ChatBot, answer


@pytest.mark.parametrize("topic", TOPICS[:6])
def test_the_fine_tunes_answer_otherwise_than_the_base(
    chat_base: Path, pirate_tune: Path, brief_tune: Path, topic: str
) -> None:
    assert [answer(model, topic) for model in (chat_base, pirate_tune, brief_tune)] == [PLAIN, PIRATE, "yes."]


def test_the_fine_tunes_answer_most_topics_alike_that_they_did_not_learn(
    pirate_tune: Path, brief_tune: Path
) -> None:
    """The rounding of the processor decides which."""
    for model, said in ((pirate_tune, PIRATE), (brief_tune, "yes.")):
        assert [answer(model, topic) for topic in TOPICS[6:]].count(said) >= 4


def test_a_repository_tracks_patterns_and_takes_fine_tunes(chat: ChatBot, pirate_tune: Path) -> None:
    chat.pirate()
    chat.run.ok("commit", pirate_tune, "-m", "talk like a pirate")
    assert "nothing to commit" in chat.run.refused(1, "commit", "-m", "again")
    assert "pirate" in chat.run.json("vector", "ls")[0]["name"]
