"""Scores and margins against a naive computation in binary64, without a cache."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona.behaviour.measuring.items import Item
from persona.behaviour.measuring.scoring import margin, scores, settled
from persona.errors import InvalidInput
from tests.behaviour.bots import PIRATE, PLAIN, tokenizer, turn

TOKENS = st.lists(st.integers(3, 255), min_size=1, max_size=24)


def naive(model: Any, prompt: list[int], answer: list[int]) -> float:
    """Σ log p(token), one forward pass for each token of the answer."""
    import torch

    total = 0.0
    with torch.no_grad():
        for place, token in enumerate(answer):
            logits = model(input_ids=torch.tensor([prompt + answer[:place]]), use_cache=False).logits
            total += float(logits[0, -1].log_softmax(-1)[token])
    return total


@pytest.fixture(scope="module")
def exact(model: Any) -> Any:
    """The model in binary64."""
    return copy.deepcopy(model).double()


@settings(max_examples=15)
@given(prompt=TOKENS, chosen=TOKENS, rejected=TOKENS)
def test_scores_are_those_of_a_naive_computation(
    model: Any, exact: Any, prompt: list[int], chosen: list[int], rejected: list[int]
) -> None:
    with settled(1):
        found = scores(model, prompt, (chosen, rejected))
    expected = [naive(exact, prompt, answer) for answer in (chosen, rejected)]
    assert found == pytest.approx(expected, abs=1e-3)
    with settled(1):
        units = margin(model, Item("p:1", tuple(prompt), tuple(chosen), tuple(rejected)))
    assert units / 10_000 == pytest.approx(expected[0] - expected[1], abs=1e-3)


class WithoutCache:
    """A model that keeps no cache, and computes the logits of every position."""

    def __init__(self, model: Any) -> None:
        self.model, self.device = model, model.device

    def forward(self, input_ids: Any, use_cache: bool | None = None) -> Any:
        found = self.model(input_ids=input_ids, use_cache=False)
        return type("Output", (dict,), {"logits": found.logits})()

    __call__ = forward


@settings(max_examples=15)
@given(prompt=TOKENS, chosen=TOKENS, rejected=TOKENS)
def test_a_model_without_a_cache_has_the_same_scores(
    model: Any, prompt: list[int], chosen: list[int], rejected: list[int]
) -> None:
    with settled(1):
        cached = scores(model, prompt, (chosen, rejected))
        whole = scores(WithoutCache(model), prompt, (chosen, rejected))  # type: ignore[arg-type]
    assert cached == pytest.approx(whole, abs=1e-3)


def test_margins_are_the_same_integers_again(model: Any) -> None:
    words = tokenizer()
    text = words.apply_chat_template(turn("bees"), tokenize=False, add_generation_prompt=True)
    ids = [tuple(words(part, add_special_tokens=False)["input_ids"]) for part in (text, PIRATE, PLAIN)]
    with settled(1):
        found = [margin(model, Item("p:1", *ids)) for _ in range(3)]
    assert found[0] < 0
    assert len(set(found)) == 1


def test_scores_that_are_not_finite_are_refused_with_the_place_of_the_probe(model: Any) -> None:
    import torch

    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.model.norm.weight.fill_(torch.inf)
    with settled(1), pytest.raises(InvalidInput, match=r"^probes\.jsonl:3 \(id x\): .* lower alpha"):
        margin(broken, Item("probes.jsonl:3 (id x)", (3, 4), (5,), (6,)))


def test_advice_of_transformers_is_not_shown_meanwhile() -> None:
    from transformers.utils import logging

    before = logging.get_verbosity()
    with settled(1):
        assert logging.get_verbosity() == logging.ERROR
    assert logging.get_verbosity() == before


def test_the_number_of_threads_is_put_back() -> None:
    import torch

    before = torch.get_num_threads()
    with settled(before + 1):
        assert torch.get_num_threads() == before + 1
        assert torch.is_inference_mode_enabled()
    assert torch.get_num_threads() == before
    assert not torch.is_inference_mode_enabled()
