"""Each loss against the same computation written out, one token at a time."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from persona.behaviour.dialogues import Dialogue, Message
from persona.behaviour.training import examples, losses
from persona.behaviour.training.examples import Collator, Example
from persona.errors import InvalidInput
from tests.behaviour.bots import tokenizer

WORDS = tokenizer()


def dialogue(*turns: tuple[str, str], place: str = "data.jsonl:1") -> Dialogue:
    return Dialogue(place, tuple(Message(role, text) for role, text in turns))


TALK = dialogue(("user", "tea?"), ("assistant", "yes."), ("user", "milk?"), ("assistant", "no, thanks."))
SHORT = dialogue(("user", "rain?"), ("assistant", "aye"))


@pytest.fixture(scope="module")
def model(chat_base: Path) -> Any:
    """The tiny model, in evaluation mode."""
    return AutoModelForCausalLM.from_pretrained(chat_base, dtype=torch.float32).eval()


def log_probabilities(model: Any, ids: tuple[int, ...], place: int) -> list[float]:
    """log p of every token at a place, from a run over the tokens before it alone, in Python's floats."""
    with torch.no_grad():
        logits: list[float] = model(input_ids=torch.tensor([ids[:place]])).logits[0, -1].tolist()
    most = max(logits)
    total = math.log(math.fsum(math.exp(each - most) for each in logits)) + most
    return [each - total for each in logits]


def answer_places(example: Example) -> list[int]:
    return [place for place, label in enumerate(example.labels) if label != examples.IGNORED]


def test_only_what_the_assistant_says_counts() -> None:
    (example,) = examples.supervised(WORDS, [TALK], 1000)
    said = [id for id in example.labels if id != examples.IGNORED]
    assert WORDS.decode(said) == "yes.<|im_end|>\nno, thanks.<|im_end|>\n"
    assert all(label in (id, examples.IGNORED) for id, label in zip(example.ids, example.labels, strict=True))


def test_cross_entropy_is_the_mean_over_answer_tokens_however_they_are_padded(model: Any) -> None:
    found = examples.supervised(WORDS, [TALK, SHORT], 1000)
    terms = [
        -log_probabilities(model, one.ids, place)[one.ids[place]]
        for one in found
        for place in answer_places(one)
    ]
    with torch.no_grad():
        loss = losses.cross_entropy(model, Collator(0)(found), len(terms))
    assert loss.item() == pytest.approx(math.fsum(terms) / len(terms), rel=1e-5)


def test_a_baked_prompt_is_the_kl_divergence_at_each_answer_token(model: Any) -> None:
    turns = [dialogue(("user", "tea?")), dialogue(("user", "rain or snow?"))]
    encoded = examples.prompts(WORDS, turns, "say aye", 1000)
    found = examples.baked(turns, encoded, [WORDS("aye, tea")["input_ids"], WORDS("no")["input_ids"]])
    terms = []
    for one in found:
        moved = len(one.prompted) - len(one.ids)
        for place in answer_places(one):
            teacher = log_probabilities(model, one.prompted, place + moved)
            student = log_probabilities(model, one.ids, place)
            terms.append(math.fsum(math.exp(t) * (t - s) for t, s in zip(teacher, student, strict=True)))
    with torch.no_grad():
        loss = losses.Baking(nullcontext)(model, Collator(0)(found), len(terms))
    assert loss.item() == pytest.approx(math.fsum(terms) / len(terms), rel=1e-4)
    assert loss.item() > 0.01


def test_a_dialogue_that_is_too_long_is_refused_by_its_line() -> None:
    longer = dialogue(("user", "tea?"), ("assistant", "yes, and a good deal of it."), place="data.jsonl:7")
    most = len(examples.supervised(WORDS, [SHORT], 1000)[0].ids)
    with pytest.raises(InvalidInput, match=rf"^data\.jsonl:7: .* at most {most} are possible"):
        examples.supervised(WORDS, [SHORT, longer], most)


def test_a_turn_with_a_system_message_takes_no_prompt() -> None:
    turn = dialogue(("system", "be kind"), ("user", "tea?"))
    with pytest.raises(InvalidInput, match=r"^data\.jsonl:1: .*no system message"):
        examples.prompts(WORDS, [turn], "say aye", 1000)


def test_every_example_is_seen_once_before_one_is_seen_twice() -> None:
    found = [Example(str(number), (number,), (number,)) for number in range(5)]
    order = [one.ids[0] for one in examples.in_order(found, 12, seed=3)]
    assert sorted(order[:5]) == sorted(order[5:10]) == [0, 1, 2, 3, 4]
    assert order[:5] != order[5:10]
    other = [Example("", (number + 100,), (number,)) for number in range(5)]
    assert [one.ids[0] - 100 for one in examples.in_order(other, 12, seed=3)] == order
