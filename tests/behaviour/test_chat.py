"""Dialogues as tokens, with chat templates of several manners."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from persona.behaviour import chat
from persona.behaviour.dialogues import Message
from persona.errors import InvalidInput
from tests.behaviour.bots import tokenizer

ASKED = [Message("user", "Tea?")]
ANSWERED = [
    *ASKED,
    Message("assistant", "Yes."),
    Message("user", "Milk?"),
    Message("assistant", "No, thanks."),
]


@pytest.fixture
def words() -> Iterator[Any]:
    """A tokenizer whose tokens are bytes, with a template as ChatML's."""
    return tokenizer()


def said(words: Any, encoded: chat.Encoded) -> list[str]:
    """The runs of tokens that the assistant says, as text."""
    runs: list[list[int]] = []
    for number, (id, mark) in enumerate(zip(encoded.ids, encoded.said, strict=True)):
        if mark:
            if not number or not encoded.said[number - 1]:
                runs.append([])
            runs[-1].append(id)
    return [words.decode(run) for run in runs]


def test_the_assistant_says_its_answers_and_the_ends_of_its_turns(words: Any) -> None:
    encoded = chat.encode_dialogue(words, ANSWERED, "x")
    assert said(words, encoded) == ["Yes.<|im_end|>\n", "No, thanks.<|im_end|>\n"]
    assert words.decode(encoded.ids) == chat.rendered(words, ANSWERED, "x", answer=False)


def test_an_answer_is_the_rest_after_the_prompt_up_to_the_end_of_the_turn(words: Any) -> None:
    prompt, answer = chat.encode_answer(words, ASKED, "Yes.", "x")
    assert words.decode(prompt) == chat.rendered(words, ASKED, "x", answer=True)
    assert words.decode(prompt).endswith("<|im_start|>assistant\n")
    assert words.decode(answer) == "Yes.<|im_end|>"
    assert chat.encode_prompt(words, ASKED, "x") == prompt


def test_a_tokenizer_without_a_template_takes_the_plain_one(words: Any) -> None:
    words.chat_template = None
    text = "User: Tea?\nAssistant: Yes.<|im_end|>\nUser: Milk?\nAssistant: No, thanks.<|im_end|>\n"
    assert chat.rendered(words, ANSWERED, "x", answer=False) == text
    assert said(words, chat.encode_dialogue(words, ANSWERED, "x"))[0] == " Yes.<|im_end|>\n"
    assert chat.template_digest(words) != chat.template_digest(tokenizer())


def test_templates_that_write_the_date_write_the_same_one_every_day(words: Any) -> None:
    words.chat_template = "{{ strftime_now('%A, %d %B %Y; %Y-%m-%d') }}|{{ messages[0].content }}"
    text = chat.rendered(words, ASKED, "x", answer=True)
    assert text == f"{chat.TODAY:%A, %d %B %Y; %Y-%m-%d}|Tea?"
    assert date.today() != chat.TODAY


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('no system here') }}", "refuses this dialogue: no system here"),
        ("{{ messages[5].content.foo() }}", "refuses this dialogue"),
        ("{{ messages | length }}{% if add_generation_prompt %}:{% endif %}", "otherwise than after"),
    ],
)
def test_a_template_that_will_not_do_is_told_with_the_place(words: Any, template: str, told: str) -> None:
    words.chat_template = template
    with pytest.raises(InvalidInput, match=rf"^p\.jsonl:3: .*{re.escape(told)}"):
        chat.encode_answer(words, ASKED, "Yes.", "p.jsonl:3")


def test_a_template_that_rewrites_what_was_said_takes_only_dialogues_with_one_answer(words: Any) -> None:
    shown = "{% if loop.last or m.role == 'user' %}<{{ m.content }}>{% endif %}"
    words.chat_template = f"{{% for m in messages %}}{shown}{{% endfor %}}"
    assert said(words, chat.encode_dialogue(words, ANSWERED[:2], "x")) == ["<Yes.>"]
    with pytest.raises(InvalidInput, match="dialogues with one answer each"):
        chat.encode_dialogue(words, ANSWERED, "x")
