"""Greedy continuations of prompts: the most likely token each time, for several prompts at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer


def ends_of(model: Any, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens that end a turn: the tokenizer's, and those of generation_config.json."""
    given = getattr(model.generation_config, "eos_token_id", None)
    found = [tokenizer.eos_token_id, *(given if isinstance(given, list) else [given])]
    return tuple(dict.fromkeys(id for id in found if isinstance(id, int)))


def continued(
    model: Any, prompts: Sequence[Sequence[int]], most: int, ends: Sequence[int], filler: int
) -> list[list[int]]:
    """The tokens that a model adds to each prompt, at most `most`. A token of `ends` is the last one.

    `filler`: the token on the left of shorter prompts. The attention mask hides it.
    """
    import torch
    import transformers

    longest = max(map(len, prompts))
    ids = torch.tensor([[filler] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    config: Any = transformers.GenerationConfig
    how = config(do_sample=False, max_new_tokens=most, eos_token_id=list(ends) or None, pad_token_id=filler)
    with torch.no_grad():
        made = model.generate(
            ids.to(model.device), attention_mask=mask.to(model.device), generation_config=how
        )
    return [
        row[: next((place + 1 for place, id in enumerate(row) if id in ends), len(row))]
        for row in made[:, longest:].tolist()
    ]
