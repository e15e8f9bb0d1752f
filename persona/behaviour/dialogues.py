"""**dialogue** — messages of a system, a user and an assistant, as chat templates take them.

A line of a data file is `{"messages": [{"role": …, "content": …}, …]}`. Other fields of a line are left
alone. A training dialogue ends with the assistant, a turn to be answered ends with the user.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from persona.behaviour.json_lines import Line, lines_of
from persona.frozen import dataclass

ROLES: Final = ("system", "user", "assistant", "tool")
Prompt = tuple[str, ...]


@dataclass(frozen=True)
class Message:
    """One message: who says it, and the text."""

    role: str
    content: str

    def as_dict(self) -> dict[str, str]:
        """As chat templates take it."""
        return {"role": self.role, "content": self.content}


def prompt_of(messages: Iterable[Message]) -> Prompt:
    """The user's messages, without differences of case and spaces."""
    return tuple(" ".join(each.content.split()).casefold() for each in messages if each.role == "user")


@dataclass(frozen=True)
class Dialogue:
    """Messages, and where they stand (FILE:LINE)."""

    place: str
    messages: tuple[Message, ...]

    @property
    def prompt(self) -> Prompt:
        """The user's messages, to compare with other dialogues."""
        return prompt_of(self.messages)

    @property
    def asked(self) -> tuple[tuple[str, str], ...]:
        """Role and content of all that is not the assistant's, as they are."""
        return tuple((each.role, each.content) for each in self.messages if each.role != "assistant")


def opening(messages: Sequence[Message]) -> int:
    """The number of system messages that stand first."""
    return next((n for n, each in enumerate(messages) if each.role != "system"), len(messages))


def in_context(demos: Sequence[Dialogue], messages: Sequence[Message]) -> tuple[Message, ...]:
    """Messages after example dialogues, all in one dialogue; its own system messages stay first."""
    start = opening(messages)
    said = (message for demo in demos for message in demo.messages)
    return (*messages[:start], *said, *messages[start:])


def messages_of(line: Line, key: str = "messages") -> tuple[Message, ...]:
    """The messages in a field of a line."""
    value = line.value.get(key)
    if not isinstance(value, list) or not value:
        line.fail(f"{key} must be a list of messages, each with role and content")
    found = []
    for number, message in enumerate(value, 1):
        if not isinstance(message, dict):
            line.fail(f"message {number} must be an object with role and content")
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            line.fail(f"message {number}: role {role!r:.40} is not one of {', '.join(ROLES)}")
        if not isinstance(content, str) or not content.strip():
            line.fail(f"message {number}: content must be text that is not empty")
        found.append(Message(str(role), content))
    return tuple(found)


def read_dialogues(file: str, data: bytes) -> tuple[Dialogue, ...]:
    """The training dialogues of a file: each ends with the assistant, after something to answer."""
    found = []
    for line in lines_of(file, data):
        messages = messages_of(line)
        if messages[-1].role != "assistant":
            line.fail("the last message must be the assistant's, which is what is learned")
        if not any(message.role == "user" for message in messages):
            line.fail("no message is the user's")
        found.append(Dialogue(line.place, messages))
    return tuple(found)


def read_turns(file: str, data: bytes) -> tuple[Dialogue, ...]:
    """The turns of a file that wait for an answer: each ends with the user."""
    found = []
    for line in lines_of(file, data):
        messages = messages_of(line)
        if messages[-1].role != "user":
            line.fail("the last message must be the user's, which is what is answered")
        found.append(Dialogue(line.place, messages))
    return tuple(found)


def unpaired(train: Sequence[Dialogue], opposite: Sequence[Dialogue]) -> tuple[str, str] | None:
    """The place of the first difference between the two sides of a contrastive pair, and what is wrong there.

    Both sides must ask the same in the same order, and not answer the same everywhere.
    """
    for one, other in zip(train, opposite, strict=False):
        if one.asked != other.asked:
            problem = f"the prompt differs from {one.place}"
            return other.place, f"{problem}; train and opposite must have the same prompts in the same order"
    if len(train) == len(opposite):
        if any(one.messages != other.messages for one, other in zip(train, opposite, strict=True)):
            return None
        return opposite[0].place, "every answer is that of train, so nothing would be left of the pair"
    longer = max(train, opposite, key=len)[min(len(train), len(opposite))]
    counts = f"train has {len(train)} dialogues and opposite {len(opposite)}"
    return longer.place, f"this dialogue has no other side: {counts}"


def prompts_of(dialogues: Iterable[Dialogue]) -> dict[Prompt, str]:
    """The place of each prompt; of equal ones, the first.

    The beginnings of a dialogue of several turns count too, because their answers are learned as well.
    """
    found: dict[Prompt, str] = {}
    for dialogue in dialogues:
        for count in range(1, len(dialogue.prompt) + 1):
            found.setdefault(dialogue.prompt[:count], dialogue.place)
    return found
