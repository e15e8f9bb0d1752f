"""Answers for checks: greedy, in batches, without special tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from persona.behaviour.measuring.answers import TOGETHER, answers
from persona.behaviour.measuring.scoring import settled
from tests.behaviour.bots import CONTEXT, TOPICS, answer, tokenizer, turn


def prompts(words: Any) -> list[tuple[int, ...]]:
    texts = [
        words.apply_chat_template(turn(topic), tokenize=False, add_generation_prompt=True) for topic in TOPICS
    ]
    return [tuple(words(text, add_special_tokens=False)["input_ids"]) for text in texts]


def test_answers_are_those_that_transformers_generates_alone(model: Any, chat_base: Path) -> None:
    words = tokenizer()
    twice = prompts(words) * 2
    assert len(twice) > TOGETHER
    counts: list[int] = []
    with settled(1):
        found = answers(model, words, twice, CONTEXT, counts.append)
    assert found == [answer(chat_base, topic) for topic in TOPICS] * 2
    assert sum(counts) == len(twice)


def test_an_answer_ends_at_the_limit(model: Any) -> None:
    words = tokenizer()
    with settled(1):
        found = answers(model, words, prompts(words)[:3], CONTEXT, most=5)
    assert found == ["it is"] * 3


def test_an_answer_fits_into_the_context(model: Any) -> None:
    words = tokenizer()
    prompt = prompts(words)[0]
    with settled(1):
        assert answers(model, words, [prompt], len(prompt) + 4) == ["it i"]
