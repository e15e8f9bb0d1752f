"""The answers that a prompt is baked on: the base gives them to turns, with the prompt before them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from persona.behaviour.generating import continued, ends_of
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
    phase = Phase("answering with the prompt", "turns")
    ends = ends_of(model, tokenizer)
    by_length = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    found: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(prompts), _BATCH):
        places = by_length[start : start + _BATCH]
        most = min(TOKENS, longest - len(prompts[places[0]]))
        rows = continued(model, [prompts[place] for place in places], most, ends, padding)
        for place, row in zip(places, rows, strict=True):
            found[place] = row
        if progress:
            progress(phase, min(start + _BATCH, len(prompts)), len(prompts))
    return found
