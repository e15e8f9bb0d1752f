"""What the base says to turns when it reads a system prompt: the answers that the prompt is baked on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from persona.progress import Phase, Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

TOKENS: Final = 128
"""The longest answer, in tokens. A longer one is cut there."""
_BATCH: Final = 8


def answers(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    longest: int,
    padding: int,
    progress: Progress | None,
) -> list[list[int]]:
    """The greedy answer to each prompt, the end of its turn included. `longest`: prompt and answer."""
    import torch

    phase = Phase("answering with the prompt", "turns")
    config = model.generation_config
    ends = config.eos_token_id if config.eos_token_id is not None else tokenizer.eos_token_id
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    by_length = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    found: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(prompts), _BATCH):
        places = by_length[start : start + _BATCH]
        rows = [prompts[place] for place in places]
        width = max(map(len, rows))
        ids = [[*[padding] * (width - len(row)), *row] for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        with torch.no_grad():
            made = model.generate(
                input_ids=torch.tensor(ids, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                max_new_tokens=min(TOKENS, longest - width),
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=padding,
                eos_token_id=ends or None,
            )
        for place, row in zip(places, made[:, width:].tolist(), strict=True):
            end = next((at + 1 for at, token in enumerate(row) if token in ends), len(row))
            found[place] = row[:end]
        if progress:
            progress(phase, min(start + _BATCH, len(prompts)), len(prompts))
    return found
