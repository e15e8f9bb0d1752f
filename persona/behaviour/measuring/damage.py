"""Damage on neutral text: two models are compared token by token, over the whole vocabulary.

The text is cut into windows of `WINDOW` tokens, each a document of its own. Windows are measured in numbers
that sum over their positions, in integers: KL(base ‖ model) in 1e-8 nats, positions with the same most likely
token, and both losses in 1e-4 nats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from persona.errors import InvalidInput

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase as Tokenizer

WINDOW: Final = 256
KL_PLACES: Final = 100_000_000
LOSS_PLACES: Final = 10_000
MEMORY: Final = 1 << 30
"""Bytes of the base's log-probabilities that are held at once; one window may take more."""

Window = tuple[int, ...]


def neutral_text() -> bytes:
    """The text, written for this project, that has nothing to do with any behaviour."""
    return Path(__file__).with_name("neutral.txt").read_bytes()


def text_digest(text: bytes) -> str:
    """Which text it is, 64 hex digits."""
    return blake3(text).hexdigest()


def windows(tokenizer: Tokenizer, text: bytes, context: int | None) -> list[Window]:
    """The text in windows of tokens; each begins as the tokenizer begins every text."""
    whole: list[int] = tokenizer(text.decode(), add_special_tokens=False)["input_ids"]
    lead = begins_with(tokenizer)
    step = (WINDOW if context is None else min(WINDOW, context)) - len(lead)
    cut = [whole[start : start + step] for start in range(0, len(whole), step)]
    return [(*lead, *part) for part in cut if len(part) > step // 2 and len(lead) + len(part) > 1]


def begins_with(tokenizer: Tokenizer) -> Window:
    """The tokens that a tokenizer puts before every text."""
    bare: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    full: list[int] = tokenizer("a")["input_ids"]
    if not bare or bare[0] not in full:
        return ()
    return tuple(full[: full.index(bare[0])])


def batches(found: Sequence[Window], vocabulary: int) -> Iterator[Sequence[Window]]:
    """The windows in runs whose log-probabilities fit into `MEMORY`."""
    longest = max(map(len, found))
    size = max(1, MEMORY // (4 * longest * vocabulary))
    for start in range(0, len(found), size):
        yield found[start : start + size]


def chances(model: PreTrainedModel, window: Window) -> torch.Tensor:
    """The log-probabilities of each next token: float32 [positions, vocabulary]."""
    import torch

    ids = torch.tensor([list(window)], device=model.device)
    logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0, :-1]
    return logits.float().log_softmax(-1)


def compared(window: Window, base: torch.Tensor, model: torch.Tensor) -> list[int]:
    """The numbers of one window: positions, KL, positions with the same top token, the losses of both.

    Both tensors are log-probabilities as `chances` gives them. Raises `InvalidInput` if a loss is not finite.
    """
    import torch

    said = torch.tensor(window[1:], device=base.device)[:, None]
    parts = (base.exp() * (base - model)).masked_fill(base == -torch.inf, 0.0)
    per_token = parts.sum(-1, dtype=torch.float64)
    same = int((base.argmax(-1) == model.argmax(-1)).sum())
    losses = [-float(one.gather(-1, said).double().sum()) for one in (base, model)]
    kl = float(per_token.sum())
    if not all(map(math.isfinite, (kl, *losses))):
        raise InvalidInput(
            "the loss on neutral text is not finite: these weights are out of range; lower alpha"
        )
    return [
        len(window) - 1,
        round(kl * KL_PLACES),
        same,
        *(round(loss * LOSS_PLACES) for loss in losses),
    ]
