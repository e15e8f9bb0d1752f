"""Damage on neutral text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from persona.behaviour.measuring.damage import (
    KL_PLACES,
    LOSS_PLACES,
    WINDOW,
    batches,
    chances,
    compared,
    neutral_text,
    windows,
)
from persona.behaviour.measuring.effects import damage_of
from persona.behaviour.measuring.scoring import settled
from persona.errors import InvalidInput
from persona.history.scores import Interval
from tests.behaviour.bots import CONTEXT, tokenizer


@pytest.fixture(scope="module")
def cut() -> list[tuple[int, ...]]:
    return windows(tokenizer(), neutral_text(), CONTEXT)


def test_windows_are_the_text_in_order_but_for_a_short_end(cut: list[tuple[int, ...]]) -> None:
    whole = tokenizer()(neutral_text().decode(), add_special_tokens=False)["input_ids"]
    joined = [token for window in cut for token in window]
    assert joined == whole[: len(joined)]
    assert len(whole) - len(joined) <= WINDOW // 2
    assert {len(window) for window in cut[:-1]} == {WINDOW}


def test_a_short_context_makes_short_windows() -> None:
    assert {len(window) for window in windows(tokenizer(), neutral_text(), 50)[:-1]} == {50}


def test_a_tokenizer_that_begins_texts_with_a_token_begins_each_window_with_it() -> None:
    from tokenizers.processors import TemplateProcessing

    words = tokenizer()
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    found = windows(words, neutral_text(), CONTEXT)
    assert {window[0] for window in found} == {1}
    assert {len(window) for window in found[:-1]} == {WINDOW}


def test_batches_hold_every_window_and_bounded_memory(cut: list[tuple[int, ...]]) -> None:
    assert [window for batch in batches(cut, 300) for window in batch] == cut
    assert all(len(batch) == 1 for batch in batches(cut, 1_000_000))


def test_equal_weights_have_exactly_no_damage(model: Any, cut: list[tuple[int, ...]]) -> None:
    with settled(1):
        found = [
            compared(window, chances(model, window), chances(model, window).clone()) for window in cut[:3]
        ]
    damage = damage_of(found, 1.02, b"")
    assert (damage.kl, damage.top, damage.ratio) == (
        Interval(0.0, 0.0, 0.0, 3),
        Interval(1.0, 1.0, 1.0, 3),
        Interval(1.0, 1.0, 1.0, 3),
    )


def test_a_window_is_compared_as_a_naive_computation_does() -> None:
    import torch

    random = np.random.default_rng(1)
    one, other = (random.normal(0, 2, (9, 17)) for _ in range(2))
    one[:, 3] = other[:, 3] = -np.inf  # a token that neither model can say
    window = tuple(int(token) for token in random.choice([0, 1, 2, 4, 5], 10))
    logs = [part - np.log(np.exp(part).sum(1, keepdims=True)) for part in (one, other)]
    kl = sum(
        np.exp(p) * (p - q)
        for place in range(9)
        for p, q in zip(logs[0][place], logs[1][place], strict=True)
        if p > -np.inf
    )
    losses = [-sum(part[place, window[place + 1]] for place in range(9)) for part in logs]
    same = sum(logs[0][place].argmax() == logs[1][place].argmax() for place in range(9))
    found = compared(window, *(torch.tensor(part, dtype=torch.float32) for part in logs))
    assert found[0] == 9
    assert found[1] / KL_PLACES == pytest.approx(kl, abs=1e-4)
    assert found[2] == same
    assert [value / LOSS_PLACES for value in found[3:]] == pytest.approx(losses, abs=1e-3)


def test_a_loss_that_is_not_finite_is_refused() -> None:
    import torch

    even = torch.full((1, 4), -1.3863)
    with pytest.raises(InvalidInput, match="neutral text is not finite"):
        compared((0, 1), even, torch.full((1, 4), torch.nan))
