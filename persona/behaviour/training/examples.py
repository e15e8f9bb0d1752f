"""Sequences of tokens to train on, with labels for the tokens that count.

Only what the assistant says counts, the end of its turn included: every other label is `IGNORED`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from persona.behaviour import chat
from persona.behaviour.dialogues import Dialogue, Message
from persona.errors import InvalidInput
from persona.frozen import dataclass

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

IGNORED: Final = -100
"""The label of a token that does not count, as torch's cross entropy has it."""


@dataclass(frozen=True)
class Example:
    """Token ids, and the labels of the same positions. `place`: FILE:LINE of the dialogue.

    `prompted`: the same answers after the system prompt that is baked in, or after the demos of a warm start;
    empty for other losses.
    """

    place: str
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    prompted: tuple[int, ...] = ()

    @property
    def prompted_labels(self) -> tuple[int, ...]:
        """The labels of `prompted`, which ends as `ids` does."""
        more = max(0, len(self.prompted) - len(self.ids))
        return (*[IGNORED] * more, *self.labels)[-len(self.prompted) :]


def supervised(tokenizer: Tokenizer, dialogues: Sequence[Dialogue], longest: int) -> list[Example]:
    """The examples of dialogues, of at most `longest` tokens each. Raises `InvalidInput` with FILE:LINE."""
    found = []
    for dialogue in dialogues:
        encoded = chat.encode_dialogue(tokenizer, dialogue.messages, dialogue.place)
        refuse_longer(dialogue.place, len(encoded.ids), longest)
        pairs = zip(encoded.ids, encoded.said, strict=True)
        labels = tuple(id if said else IGNORED for id, said in pairs)
        found.append(Example(dialogue.place, encoded.ids, labels))
    return found


def prompts(
    tokenizer: Tokenizer, turns: Sequence[Dialogue], prompt: str, longest: int
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The tokens of each turn without and with a system prompt, up to where the assistant begins to speak."""
    found = []
    for turn in turns:
        if any(message.role == "system" for message in turn.messages):
            raise InvalidInput(
                f"{turn.place}: a turn that a prompt is baked over has no system message of its own"
            )
        with_prompt = (Message("system", prompt), *turn.messages)
        bare = chat.encode_prompt(tokenizer, turn.messages, turn.place)
        prompted = chat.encode_prompt(tokenizer, with_prompt, turn.place)
        if bare == prompted:
            raise InvalidInput(f"{turn.place}: the model's chat template leaves the system prompt out")
        refuse_longer(turn.place, max(len(bare), len(prompted)) + 1, longest)
        found.append((bare, prompted))
    return found


def baked(
    turns: Sequence[Dialogue],
    encoded: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
    answers: Sequence[Sequence[int]],
) -> list[Example]:
    """The examples of a prompt that is baked in: each turn without and with it, then the same answer."""
    return [
        Example(
            turn.place,
            (*bare, *answer),
            (*[IGNORED] * len(bare), *answer),
            (*prompted, *answer),
        )
        for turn, (bare, prompted), answer in zip(turns, encoded, answers, strict=True)
    ]


def in_order(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """`count` examples in the order of training: all of them shuffled, again and again.

    The order depends on the seed and the number of examples only, so a pair of runs sees the same prompts.
    """
    chance = random.Random(seed)
    found: list[Example] = []
    while len(found) < count:
        found += chance.sample(list(examples), len(examples))
    return found[:count]


class Collator:
    """Examples as tensors of one batch, padded on the right to the longest.

    `input_ids`, `attention_mask` and `labels` are batch × tokens. If the examples have `prompted`, so are
    `prompted`, `prompted_mask` and `prompted_labels`.
    """

    def __init__(self, padding: int) -> None:
        self.padding = padding

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """One batch."""
        batch = {
            "input_ids": _padded([one.ids for one in examples], self.padding),
            "attention_mask": _padded([[1] * len(one.ids) for one in examples], 0),
            "labels": _padded([one.labels for one in examples], IGNORED),
        }
        if examples[0].prompted:
            batch["prompted"] = _padded([one.prompted for one in examples], self.padding)
            batch["prompted_mask"] = _padded([[1] * len(one.prompted) for one in examples], 0)
            batch["prompted_labels"] = _padded([one.prompted_labels for one in examples], IGNORED)
        return batch


def padding_of(tokenizer: Tokenizer, vocabulary: int) -> int:
    """The id that fills a batch up. The attention mask hides it, so any id below `vocabulary` will do."""
    for id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(id, int) and id < vocabulary:
            return id
    return 0


def _padded(rows: Sequence[Sequence[int]], filler: int) -> Any:
    import torch

    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])


def refuse_longer(place: str, length: int, longest: int, this_has: str = "this has") -> None:
    """Raises `InvalidInput` for more than `longest` tokens."""
    if length > longest:
        raise InvalidInput(
            f"{place}: {this_has} {length} tokens, and at most {longest} are possible; shorten it, or raise"
            " max_length in [train] if the model's context allows it"
        )
