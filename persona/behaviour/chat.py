"""A dialogue as tokens, by the chat template of the model's tokenizer.

A tokenizer without a chat template (that of a base model) takes `PLAIN`: the role, a colon, and what is said,
one message a line. Which template was used is part of what identifies a measurement and a training run.
Templates that write today's date write `TODAY`, so that tokens do not change from day to day.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from persona.behaviour.dialogues import Message
from persona.errors import InvalidInput
from persona.frozen import dataclass

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

PLAIN: Final = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' and eos_token %}{{ eos_token }}{% endif %}{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
TODAY: Final = date(2025, 1, 1)
_TODAY: Final = "".join(
    [
        "{% macro strftime_now(form) %}{{ form",
        *(
            f" | replace('{code}', '{TODAY.strftime(code)}')"
            for code in ("%-d", "%e", *map("%{}".format, "aAbBdHIjmMpSyY"))
        ),
        " }}{% endmacro %}",
    ]
)
"""Hides a function of the same name, which writes the day on which it is called."""


@dataclass(frozen=True)
class Encoded:
    """Token ids, and which of them the assistant says."""

    ids: tuple[int, ...]
    said: tuple[bool, ...]


def template_of(tokenizer: Tokenizer) -> str:
    """The chat template in force."""
    return tokenizer.get_chat_template() if tokenizer.chat_template else PLAIN


def template_digest(tokenizer: Tokenizer) -> str:
    """Which chat template is in force, 64 hex digits."""
    return blake3(template_of(tokenizer).encode()).hexdigest()


def rendered(tokenizer: Tokenizer, messages: Sequence[Message], place: str, *, answer: bool) -> str:
    """The text of messages; with `answer`, it ends where the assistant begins to speak."""
    named: Any = [message.as_dict() for message in messages]
    template = template_of(tokenizer)
    if "strftime_now" in template:
        template = _TODAY + template
    try:
        text: Any = tokenizer.apply_chat_template(
            named,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=answer,
        )
    except Exception as error:  # templates raise what they like
        raise InvalidInput(f"{place}: the model's chat template refuses this dialogue: {error}") from error
    return str(text)


def encode_prompt(tokenizer: Tokenizer, messages: Sequence[Message], place: str) -> tuple[int, ...]:
    """The tokens of messages, up to where the assistant begins to speak."""
    text = rendered(tokenizer, messages, place, answer=True)
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def encode_answer(
    tokenizer: Tokenizer, messages: Sequence[Message], answer: str, place: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens of a prompt and those of an answer to it, the end of the turn included.

    They are encoded apart, as a model that generates sees them.
    """
    prompt = rendered(tokenizer, messages, place, answer=True)
    whole = rendered(tokenizer, [*messages, Message("assistant", answer)], place, answer=False)
    if not whole.startswith(prompt):
        raise InvalidInput(
            f"{place}: the model's chat template writes an answer otherwise than after its own generation"
            " prompt, so the answer cannot be told from the prompt"
        )
    first: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    rest: list[int] = tokenizer(whole[len(prompt) :].rstrip("\n"), add_special_tokens=False)["input_ids"]
    if not rest:
        raise InvalidInput(f"{place}: the answer {answer!r:.40} has no token")
    return tuple(first), tuple(rest)


def encode_dialogue(
    tokenizer: Tokenizer, messages: Sequence[Message], place: str, *, before: int = 0
) -> Encoded:
    """A whole dialogue; every turn of the assistant is said by it, the end of the turn included.

    The first messages, as many as `before`, are only read: none of their tokens is said.
    """
    ids: list[int] = []
    said: list[bool] = []
    done = ""
    for number, message in enumerate(messages):
        if message.role != "assistant" or number < before:
            continue
        prompt = rendered(tokenizer, messages[:number], place, answer=True)
        whole = rendered(tokenizer, messages[: number + 1], place, answer=False)
        if not (whole.startswith(prompt) and prompt.startswith(done)):
            raise InvalidInput(
                f"{place}: the model's chat template changes earlier messages when others follow; train on"
                " dialogues with one answer each"
            )
        for text, is_said in ((prompt[len(done) :], False), (whole[len(prompt) :], True)):
            tokens: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += tokens
            said += [is_said] * len(tokens)
        done = whole
    return Encoded(tuple(ids), tuple(said))
