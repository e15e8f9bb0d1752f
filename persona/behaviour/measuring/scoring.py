"""Scores of answers: score(y) = Σ log p(token), over the answer's tokens and the end of the turn.

A margin is score(chosen) − score(rejected). One item is computed at a time, in float32: the prompt once, then
both answers after it. The sum is taken in float64 and rounded to 1e-4 nats, so that a repetition gives the
same integers.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch

from persona.behaviour.measuring.items import PLACES
from persona.cores import thread_count
from persona.errors import InvalidInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from persona.behaviour.measuring.items import Item


@contextmanager
def settled(threads: int | None) -> Iterator[None]:
    """A fixed number of threads, no gradients, and no advice of transformers; put back afterwards."""
    import transformers

    logging: Any = transformers.utils.logging
    before, verbosity = torch.get_num_threads(), logging.get_verbosity()
    torch.set_num_threads(thread_count(threads))
    logging.set_verbosity_error()
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
        logging.set_verbosity(verbosity)


def margin(model: PreTrainedModel, item: Item) -> int:
    """The margin of an item, in 1e-4 nats. Raises `InvalidInput` for scores that are not finite."""
    assert item.chosen is not None
    assert item.rejected is not None
    chosen, rejected = scores(model, item.prompt, (item.chosen, item.rejected))
    if not math.isfinite(chosen - rejected):
        raise InvalidInput(
            f"{item.place}: its answers have the scores {chosen:g} and {rejected:g}: these weights are out of"
            " range; lower alpha"
        )
    return round((chosen - rejected) * PLACES)


def scores(model: PreTrainedModel, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> list[float]:
    """The log-probability of each answer after a prompt, in nats."""
    return [float(total) for total in totals(model, prompt, answers)]


def totals(
    model: PreTrainedModel, prompt: Sequence[int], answers: Sequence[Sequence[int]]
) -> list[torch.Tensor]:
    """As `scores`, each a float64 scalar that gradients flow through."""
    longest = max(map(len, answers))
    rows = torch.tensor([[*answer, *[0] * (longest - len(answer))] for answer in answers])
    rows = rows.to(model.device)  # zeros after an answer are seen by nothing before them
    first = torch.tensor([list(prompt)], device=model.device)
    start = model(input_ids=first, use_cache=True, **keeping(model, 1))
    begin = start.logits[:, -1:].expand(len(answers), 1, -1)
    cache = start.get(cache_word(model))
    if longest == 1:
        logits = begin
    elif cache is None:
        whole = torch.cat([first.expand(len(answers), -1), rows[:, :-1]], 1)
        found = model(input_ids=whole, **keeping(model, longest - 1)).logits
        logits = torch.cat([begin, found[:, -(longest - 1) :]], 1)
    else:
        cache.batch_repeat_interleave(len(answers))
        found = model(input_ids=rows[:, :-1], use_cache=True, **{cache_word(model): cache}).logits
        logits = torch.cat([begin, found], 1)
    sums = []
    for place, answer in enumerate(answers):
        chances = logits[place, : len(answer)].float().log_softmax(-1)
        said = chances.gather(-1, rows[place, : len(answer), None])
        sums.append(said.double().sum())
    return sums


def keeping(model: PreTrainedModel, count: int) -> dict[str, Any]:
    """The argument by which a model computes logits of its last `count` positions alone, if it has one."""
    return {"logits_to_keep": count} if "logits_to_keep" in _words(model) else {}


def cache_word(model: PreTrainedModel) -> str:
    """The argument that takes a cache: transformers renamed it."""
    return "cache" if "cache" in _words(model) else "past_key_values"


def _words(model: PreTrainedModel) -> frozenset[str]:
    kind = type(model)
    if kind not in _KNOWN:
        _KNOWN[kind] = frozenset(inspect.signature(kind.forward).parameters)
    return _KNOWN[kind]


_KNOWN: Final[dict[type, frozenset[str]]] = {}
