"""`chat`: a conversation with the weights of a recipe."""

from __future__ import annotations

from typing import Unpack

from persona.behaviour.options import AnswerOptions
from persona.behaviour.talking import Conversation
from persona.history.history import History


def chat(
    history: History, rev: str | None = None, *, system: str | None = None, **options: Unpack[AnswerOptions]
) -> Conversation:
    """Loads a model with the weights of a revision, to talk to.

    `rev` None: `recipe.toml` as it is. The weights have the dtype of the base. `system`: the system message;
    without one, the chat template may have its own. `max_tokens` of an answer. `temperature` 0: the most
    likely token each time. `top_p`: draw only among the likeliest tokens that have this probability together.
    The n-th answer draws from `seed` + n − 1; without a seed, from a random one. Raises `InvalidInput` if no
    tokenizer is tracked, and the errors of `live`.
    """
    return Conversation(history, rev, system, history.in_force(AnswerOptions, options))
