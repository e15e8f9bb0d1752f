"""**item** — a probe as tokens. A probe that cannot be scored is refused before anything is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from persona.behaviour import chat
from persona.behaviour.models import refuse_unknown
from persona.behaviour.probes import Probe, ProbeSet
from persona.errors import InvalidInput
from persona.frozen import dataclass

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

NEW_TOKENS: Final = 96
"""The longest answer that is generated for a check."""
PLACES: Final = 10_000
"""Units of a margin in one nat."""

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Item:
    """The tokens of a probe: its prompt, and its answers with the end of the turn. None: it has none.

    `place`: FILE:LINE and id of the probe, for messages.
    """

    place: str
    prompt: Tokens
    chosen: Tokens | None
    rejected: Tokens | None


def asked(probes: ProbeSet, kind: str) -> tuple[int, ...]:
    """The places of the probes that a kind of measurement has an item of."""
    return tuple(
        place
        for place, probe in enumerate(probes.items)
        if (probe.chosen if kind == "margins" else probe.check) is not None
    )


def encoded(
    tokenizer: Tokenizer,
    probes: ProbeSet,
    context: int | None,
    vocabulary: int | None = None,
    hint: str | None = None,
) -> tuple[Item, ...]:
    """The probes of a set as tokens.

    `context`: the most tokens that the model takes, `vocabulary`: how many it has rows for; None if it is not
    known. `hint`: for a token without a row. Raises `InvalidInput` with FILE:LINE and id for a probe that the
    template refuses, an answer without a token, a token without a row, and a probe that is too long.
    """
    items = tuple(_item(tokenizer, probe, context) for probe in probes.items)
    for item in items:
        texts = (item.prompt, item.chosen or (), item.rejected or ())
        refuse_unknown(item.place, tokenizer, vocabulary, *texts, hint=hint)
    return items


def _item(tokenizer: Tokenizer, probe: Probe, context: int | None) -> Item:
    place = f"{probe.place} (id {probe.id})"
    prompt = chat.encode_prompt(tokenizer, probe.messages, place)
    if not prompt:
        raise InvalidInput(f"{place}: the chat template makes no token of this prompt")
    answers: list[Tokens] = []
    for answer in (probe.chosen, probe.rejected):
        if answer is not None:
            prompt, tokens = chat.encode_answer(tokenizer, probe.messages, answer, place)
            answers.append(tokens)
    longest = max(map(len, answers), default=0)
    if probe.check is not None:
        longest = max(longest, 1)
    if context is not None and len(prompt) + longest > context:
        raise InvalidInput(
            f"{place}: {len(prompt) + longest:,} tokens, more than the {context:,} that the model takes;"
            " shorten its messages or answers"
        )
    chosen, rejected = answers or (None, None)
    return Item(place, prompt, chosen, rejected)
