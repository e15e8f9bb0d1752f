"""The losses. Each is the sum over the answer tokens of a batch, divided by `count`.

`count` is the number of answer tokens of all batches that make one step, so a step weighs every token alike,
however the tokens are spread over batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from persona.behaviour.training.examples import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

Model = Any
Batch = Mapping[str, Any]
Loss = Callable[[Model, Batch, Any], "Tensor"]
"""(model, batch of `examples.Collator`, count) → the loss, a number in nats per token."""


def cross_entropy(model: Model, batch: Batch, count: Any) -> Tensor:
    """Supervised: −log p of each answer token."""
    import torch

    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    found: Tensor = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(),
        batch["labels"][:, 1:].flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )
    loss: Tensor = found / count
    return loss


class Baking:
    """KL(model with more in its context ‖ model without) at each answer token, over all tokens.

    More is a prompt that is baked in (Prompt Baking, arXiv 2409.13697), or the demos of a warm start.
    `teacher` gives the model that reads it, and whose weights stay as they were.
    """

    def __init__(self, teacher: Callable[[Model], AbstractContextManager[Model]]) -> None:
        self._teacher = teacher

    def __call__(self, model: Model, batch: Batch, count: Any) -> Tensor:
        """The loss of one batch."""
        import torch

        prompted, mask = batch["prompted"], batch["prompted_mask"]
        with torch.no_grad(), self._teacher(model) as teacher:
            logits = teacher(input_ids=prompted, attention_mask=mask).logits
            wanted = logits[:, :-1][batch["prompted_labels"][:, 1:] != IGNORED].float().log_softmax(-1)
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        found = logits[:, :-1][batch["labels"][:, 1:] != IGNORED].float().log_softmax(-1)
        loss: Tensor = torch.nn.functional.kl_div(found, wanted, log_target=True, reduction="sum") / count
        return loss
