"""Data files: JSON lines of dialogues, and the faults that they may have."""

from __future__ import annotations

import json

import pytest

from persona.behaviour.dialogues import Dialogue, Message, prompts_of, read_dialogues, read_turns
from persona.behaviour.json_lines import lines_of
from persona.errors import InvalidInput


def line(*said: str, **more: object) -> str:
    """A line of messages, of user and assistant in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": text} for number, text in enumerate(said)]
    return json.dumps({"messages": messages, **more})


def test_a_line_is_a_dialogue_with_its_place() -> None:
    data = f"\ufeff{line('Hello', 'Hi', source='me')}\n\n{line('Tea?', 'Yes.', 'Milk?', 'No.')}\r\n".encode()
    first, second = read_dialogues("graph/a.jsonl", data)
    assert first == Dialogue("graph/a.jsonl:1", (Message("user", "Hello"), Message("assistant", "Hi")))
    assert second.place == "graph/a.jsonl:3"
    assert [message.content for message in second.messages] == ["Tea?", "Yes.", "Milk?", "No."]


def test_turns_end_with_the_user_and_dialogues_with_the_assistant() -> None:
    waiting, answered = line("Hello").encode(), line("Hello", "Hi").encode()
    assert read_turns("t", waiting)[0].messages[-1].role == "user"
    with pytest.raises(InvalidInput, match=r"^t:1: the last message must be the assistant's"):
        read_dialogues("t", waiting)
    with pytest.raises(InvalidInput, match=r"^t:1: the last message must be the user's"):
        read_turns("t", answered)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "this is not JSON"),
        ("[" * 100_000, "this is not JSON"),
        ("[1]", "must be a JSON object"),
        ("{}", "messages must be a list"),
        ('{"messages": []}', "messages must be a list"),
        ('{"messages": ["a"]}', "message 1 must be an object"),
        ('{"messages": [{"role": "bot", "content": "a"}]}', "role 'bot' is not one of"),
        ('{"messages": [{"role": "user"}]}', "content must be text"),
        ('{"messages": [{"role": "user", "content": " "}]}', "content must be text that is not empty"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "surrogate"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "no message is the user's"),
    ],
    ids=range(11),
)
def test_a_fault_is_told_with_file_and_line(text: str, told: str) -> None:
    good = line("a", "b")
    with pytest.raises(InvalidInput) as caught:
        read_dialogues("data/x.jsonl", f"{good}\n{text}\n{good}".encode())
    assert str(caught.value).startswith("data/x.jsonl:2: ")
    assert told in str(caught.value)


def test_bytes_that_are_no_text_are_told_with_their_line() -> None:
    with pytest.raises(InvalidInput, match=r"^x:2: this is not UTF-8"):
        list(lines_of("x", b'{"a": 1}\n{"b": "\xff"}'))


def test_prompts_are_compared_without_case_and_spacing() -> None:
    lines = [line("How  are\nyou?", "a"), line("how are You?", "b")]
    one, other = read_dialogues("x", "\n".join(lines).encode())
    assert one.prompt == other.prompt
    assert prompts_of([one, other]) == {one.prompt: "x:1"}


def test_the_turns_of_a_dialogue_before_its_last_one_are_prompts_too() -> None:
    long = Dialogue("x:1", (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Why?")))
    assert prompts_of([long]) == {("hi",): "x:1", ("hi", "why?"): "x:1"}
