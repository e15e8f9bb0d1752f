"""Answers that a model gives, for checks: greedy, several at a time, at most `NEW_TOKENS` tokens long.

The answers of a probe set are made together in its order, `TOGETHER` at a time: a step of one answer costs
almost as much as a step of many. So an answer is a function of the weights and of the whole set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from persona.behaviour.generating import continued, ends_of
from persona.behaviour.measuring.items import NEW_TOKENS, Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer

TOGETHER: Final = 16


def answers(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Tokens],
    context: int | None,
    report: Callable[[int], None] = lambda count: None,
    *,
    most: int = NEW_TOKENS,
) -> list[str]:
    """The answer to each prompt, without special tokens. `report`: called with how many more are done."""
    ends = ends_of(model, tokenizer)
    found: list[str] = []
    for start in range(0, len(prompts), TOGETHER):
        batch = prompts[start : start + TOGETHER]
        left = most if context is None else min(most, context - max(map(len, batch)))
        for row in continued(model, batch, max(left, 1), ends, ends[0] if ends else 0):
            said = [id for id in row if id not in ends]
            found.append(str(tokenizer.decode(said, skip_special_tokens=True)))
        report(len(batch))
    return found
