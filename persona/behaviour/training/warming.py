"""**warm start** — the steps before a training that start its optimizer from demos.

**demos** — example dialogues of a behaviour. A model that has them in its context behaves so already, a
little. The loss of a warm start is KL(model with the demos ‖ model without) at the answer tokens of the
training data, so its gradient points from the model to what the demos make of it.

- "moments": the learning rate is 0. The weights stay, and the moments, the step count and the norms of the
  optimizer are those of a run that took these gradients.
- "distil": the steps are real, at the full learning rate. The teacher keeps the weights of the beginning.

The optimizer keeps its state when the training begins. The learning rates of the training are those of one
without a warm start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from persona.behaviour import chat
from persona.behaviour.dialogues import Dialogue, in_context, opening
from persona.behaviour.measuring.transfer import Transfer
from persona.behaviour.training.examples import IGNORED, Example, refuse_longer
from persona.behaviour.training.losses import Loss
from persona.errors import InvalidInput
from persona.frozen import dataclass

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

_WITH: Final = "this has, with the demos,"


@dataclass(frozen=True)
class WarmSteps:
    """The steps before a training. `examples`: in order, enough for all steps.

    `rate`: the learning rate, as a multiple of the highest one of the training: 0 for moments, 1 for distil.
    """

    steps: int
    examples: Sequence[Example]
    loss: Loss
    rate: float


@dataclass(frozen=True)
class Warmed:
    """How a run started that was asked to start warm. `steps`: 0 if it started cold, as nothing was found.

    `loss`: of each step.
    """

    transfer: Transfer
    steps: int
    loss: tuple[tuple[int, float], ...]


def rate_of(kind: str) -> float:
    """The learning rate of a kind of warm start, as a multiple of that of the training."""
    return {"moments": 0.0, "distil": 1.0}[kind]


def supervised(
    tokenizer: Tokenizer, dialogues: Sequence[Dialogue], demos: Sequence[Dialogue], longest: int
) -> list[Example]:
    """The examples of dialogues, each without and with the demos before it.

    Raises `InvalidInput` with FILE:LINE for one that is longer than `longest` tokens with the demos.
    """
    found = []
    for dialogue in dialogues:
        alone = chat.encode_dialogue(tokenizer, dialogue.messages, dialogue.place)
        messages = in_context(demos, dialogue.messages)
        before = len(messages) - len(dialogue.messages) + opening(dialogue.messages)
        after = chat.encode_dialogue(tokenizer, messages, dialogue.place, before=before)
        refuse_longer(dialogue.place, len(after.ids), longest, _WITH)
        first = alone.said.index(True)
        if after.ids[first - len(alone.ids) :] != alone.ids[first:]:
            raise InvalidInput(
                f"{dialogue.place}: the model's chat template writes the answers otherwise after the demos"
            )
        labels = tuple(id if said else IGNORED for id, said in zip(alone.ids, alone.said, strict=True))
        found.append(Example(dialogue.place, alone.ids, labels, after.ids))
    return found


def prompts(
    tokenizer: Tokenizer, turns: Sequence[Dialogue], demos: Sequence[Dialogue], longest: int
) -> list[tuple[int, ...]]:
    """The tokens of each turn after the demos, up to where the assistant begins to speak. Raises as above."""
    found = []
    for turn in turns:
        ids = chat.encode_prompt(tokenizer, in_context(demos, turn.messages), turn.place)
        refuse_longer(turn.place, len(ids) + 1, longest, _WITH)
        found.append(ids)
    return found


def answered(examples: Sequence[Example], prompts: Sequence[tuple[int, ...]], longest: int) -> list[Example]:
    """The examples of a baked prompt, with the demos in place of the prompt.

    An answer that is too long after the demos is cut.
    """
    found = []
    for example, prompt in zip(examples, prompts, strict=True):
        start = sum(label == IGNORED for label in example.labels)
        end = min(len(example.ids), start + longest - len(prompt))
        prompted = (*prompt, *example.ids[start:end])
        found.append(Example(example.place, example.ids[:end], example.labels[:end], prompted))
    return found
