"""What demos in the context do to margins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from persona.behaviour.dialogues import Dialogue, Message
from persona.behaviour.measuring import transfer
from persona.behaviour.measuring.transfer import Transfer
from persona.behaviour.probes import Probe, ProbeSet
from persona.history.scores import Interval
from tests.behaviour.bots import PIRATE, PLAIN, TOPICS, tokenizer

WORDS = tokenizer()
DEMOS = [
    Dialogue("demos:1", (Message("user", f"what of {topic}?"), Message("assistant", PIRATE)))
    for topic in ("elms", "oats")
]


def probe(topic: str) -> Probe:
    return Probe("p:1", topic, (Message("user", f"what of {topic}?"),), PIRATE, PLAIN, None, "seen", topic)


PROBES = ProbeSet("pirate", tuple(map(probe, TOPICS[6:])))


def said(role: str, text: str) -> str:
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def score(model: Any, before: str, answer: str) -> float:
    """The log probability of an answer and the end of its turn, from one pass over plain text."""
    first = WORDS(f"{before}<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    rest = WORDS(f"{answer}<|im_end|>", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([first + rest])).logits[0, len(first) - 1 : -1]
    return float(logits.log_softmax(-1).gather(-1, torch.tensor(rest)[:, None]).sum())


def test_the_change_is_that_of_the_margin_with_the_demos_as_earlier_turns(model: Any) -> None:
    demos = "".join(said(each.role, each.content) for demo in DEMOS for each in demo.messages)
    changes = []
    for item in PROBES.items:
        asked = said("user", item.messages[0].content)
        after, alone = (
            score(model, before + asked, PIRATE) - score(model, before + asked, PLAIN)
            for before in (demos, "")
        )
        changes.append(after - alone)
    asked_twice, groups = transfer.encode(WORDS, PROBES, DEMOS, None)
    found = transfer.measure(model, asked_twice, groups, threads=1, progress=None)
    assert found.change is not None
    assert found.change.mean == pytest.approx(sum(changes) / len(changes), abs=1e-3)
    assert found.groups == len(PROBES.items)
    assert found.found
    again = Transfer.of(found.as_data())
    assert Transfer.of(again.as_data()) == again


def test_probes_without_a_pair_of_answers_tell_nothing(model: Any) -> None:
    items = tuple(replace(item, chosen=None, rejected=None) for item in PROBES.items)
    asked_twice, groups = transfer.encode(WORDS, replace(PROBES, items=items), DEMOS, None)
    found = transfer.measure(model, asked_twice, groups, threads=1, progress=None)
    assert (found.change, found.groups, found.found) == (None, 0, False)
    assert transfer.encode(WORDS, None, DEMOS, None) == ((), ())


@pytest.mark.parametrize(
    ("low", "high", "groups", "found"),
    [(0.1, 2.0, 5, True), (-0.1, 2.0, 9, False), (-2.0, -0.1, 9, False), (0.1, 2.0, 4, False)],
)
def test_only_a_change_above_0_over_enough_groups_is_found(
    low: float, high: float, groups: int, found: bool
) -> None:
    assert Transfer(Interval((low + high) / 2, low, high, 9), groups).found is found
