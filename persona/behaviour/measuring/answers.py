"""Answers that a model gives, for checks: greedy, several at a time, at most `NEW_TOKENS` tokens long.

The answers of a probe set are made together in its order, `TOGETHER` at a time: a step of one answer costs
almost as much as a step of many. So an answer is a function of the weights and of the whole set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch

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
    found: list[str] = []
    for start in range(0, len(prompts), TOGETHER):
        batch = prompts[start : start + TOGETHER]
        longest = max(map(len, batch))
        room = most if context is None else min(most, context - longest)
        found += _together(model, tokenizer, batch, max(room, 1))
        report(len(batch))
    return found


def _together(
    model: PreTrainedModel, tokenizer: Tokenizer, prompts: Sequence[Tokens], most: int
) -> list[str]:
    ends = ends_of(model, tokenizer)
    filler = ends[0] if ends else 0
    longest = max(map(len, prompts))
    ids = torch.tensor([[filler] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    how: Any = _greedy(most, ends, filler)
    out: Any = model.generate(  # type: ignore[operator]
        ids.to(model.device), attention_mask=mask.to(model.device), generation_config=how
    )
    made = out[:, longest:].tolist()
    return [str(tokenizer.decode(_until(row, ends), skip_special_tokens=True)) for row in made]


def ends_of(model: PreTrainedModel, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens that end a turn: the tokenizer's, and those of generation_config.json."""
    given = getattr(model.generation_config, "eos_token_id", None)
    listed = given if isinstance(given, list) else [given]
    found = [tokenizer.eos_token_id, *listed]
    return tuple(dict.fromkeys(id for id in found if isinstance(id, int)))


def _greedy(most: int, ends: Sequence[int], filler: int) -> Any:
    import transformers

    config: Any = transformers.GenerationConfig
    return config(do_sample=False, max_new_tokens=most, eos_token_id=list(ends) or None, pad_token_id=filler)


def _until(row: list[int], ends: Sequence[int]) -> list[int]:
    """The tokens before the end of the turn."""
    return row[: next((place for place, id in enumerate(row) if id in ends), len(row))]
