"""`generate`: answers to prompts, one after the other, by the weights of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any, Unpack

from persona.behaviour.options import AnswerOptions
from persona.behaviour.talking import Answer, Conversation
from persona.errors import UsageError
from persona.history.history import History


def generate(
    history: History,
    prompt: str | Sequence[str],
    rev: str | None = None,
    *,
    system: str | None = None,
    alpha: Mapping[str, Any] | None = None,
    stream: Callable[[str], object] | None = None,
    **options: Unpack[AnswerOptions],
) -> Answer | tuple[Answer, ...]:
    """The answer to a prompt, or a tuple of the answers to several prompts that know nothing of each other.

    `rev` None: `recipe.toml` as it is. `alpha`: the strength of vectors by name, in these answers only.
    `stream` is called with each piece of text as soon as it is there. The other options are those of
    `chat`. The same seed gives the same answer on the same machine. Raises `UnknownName` for a vector
    that the recipe does not have, `InvalidInput` for a prompt that the model cannot take, and the errors of
    `chat`.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise UsageError("give a prompt")
    found = []
    how = history.in_force(AnswerOptions, options)
    with Conversation(history, rev, system, how) as conversation:
        for name, value in (alpha or {}).items():
            conversation.set_alpha(name, value)
        for one in prompts:
            conversation.reset()
            found.append(_whole(conversation.answer(one), stream or (lambda piece: None)))
    return found[0] if isinstance(prompt, str) else tuple(found)


def _whole(pieces: Any, stream: Callable[[str], object]) -> Answer:
    with closing(pieces):
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            stream(piece)
