"""The settings of a training run that apply: the pattern's, what the caller gives, and the usual rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

from persona.behaviour.graph.pattern import METHODS, OPTIMIZERS, TrainSettings
from persona.errors import InvalidInput, listed

RATES: Final = {"apollo": 1e-4, "apollo-mini": 4e-5, "adamw": 2e-5}
"""Learning rates for fine-tuning a small model, by the name of the optimizer.

An APOLLO step is about √(m / r) times shorter than an AdamW step of the same rate, and α times longer
(`apollo`).
"""
LORA_RATE: Final = 2e-4
"""That of LoRA, with any optimizer."""
GIVEN: Final = ("method", "optimizer", "steps", "batch", "lr", "seed")
"""The settings that a caller of `train` may give in place of the pattern's."""


def in_force(settings: TrainSettings, given: Mapping[str, Any]) -> TrainSettings:
    """The settings of a run: those of the pattern, in whose place the `given` ones stand.

    A learning rate that nobody gives is the optimizer's. Raises `InvalidInput` for a value that means
    nothing.
    """
    found = replace(settings, **{key: given[key] for key in GIVEN if given.get(key) is not None})
    for name, words in (("method", METHODS), ("optimizer", OPTIMIZERS)):
        if getattr(found, name) not in words:
            raise InvalidInput(f"it is one of {listed(words)}", parameter=name)
    for name in ("steps", "batch"):
        if getattr(found, name) < 1:
            raise InvalidInput("it must be at least 1", parameter=name)
    if not 0 <= found.seed < 1 << 32:
        raise InvalidInput("it must be from 0 to 4294967295", parameter="seed")
    if found.lr is not None and not 0 < found.lr < 1e3:
        raise InvalidInput("it must be above 0", parameter="lr")
    if found.lr is None:
        found = replace(found, lr=LORA_RATE if found.method == "lora" else RATES[found.optimizer])
    return found


def as_data(settings: TrainSettings) -> dict[str, Any]:
    """The settings in canonical JSON: a float as the shortest decimal that is equal to it."""
    return {item.name: plain(getattr(settings, item.name)) for item in fields(TrainSettings)}


def plain(value: Any) -> Any:
    """A setting in canonical JSON."""
    if isinstance(value, float):
        return repr(value)
    return list(value) if isinstance(value, tuple) else value
