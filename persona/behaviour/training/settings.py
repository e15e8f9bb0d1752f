"""The settings of a training run that apply: the pattern's, what the caller gives, and the usual rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

from persona.behaviour.graph.pattern import COLD, TrainSettings
from persona.behaviour.graph.reading import TRAIN
from persona.errors import InvalidInput

RATES: Final = {"apollo": 1e-4, "apollo-mini": 4e-5, "adamw": 2e-5}
"""Learning rates for fine-tuning a small model, by the name of the optimizer.

An APOLLO step is about √(m / r) times shorter than an AdamW step of the same rate, and α times longer
(`apollo`).
"""
LORA_RATE: Final = 2e-4
"""That of LoRA, with any optimizer."""
GIVEN: Final = ("method", "optimizer", "steps", "batch", "lr", "seed", "warm", "warm_steps")
"""The settings that a caller of `train` may give in place of the pattern's."""


def in_force(settings: TrainSettings, given: Mapping[str, Any]) -> TrainSettings:
    """The settings of a run: those of the pattern, in whose place the `given` ones stand.

    A learning rate that nobody gives is the optimizer's. Raises `InvalidInput` for a given value that the
    front matter could not have either.
    """
    changes = {}
    for key in GIVEN:
        if (value := given.get(key)) is not None:
            try:
                changes[key] = TRAIN[key](value)
            except ValueError as error:
                raise InvalidInput(str(error), parameter=key) from None
    found = replace(settings, **changes)
    if found.lr is None:
        found = replace(found, lr=LORA_RATE if found.method == "lora" else RATES[found.optimizer])
    return found


def as_data(settings: TrainSettings) -> dict[str, Any]:
    """The settings in canonical JSON: a float as the shortest decimal that is equal to it.

    Those of a warm start are only there if there is one: else they decide nothing.
    """
    unused = ("warm", "warm_steps") if settings.warm == COLD else ()
    names = [item.name for item in fields(TrainSettings) if item.name not in unused]
    return {name: plain(getattr(settings, name)) for name in names}


def plain(value: Any) -> Any:
    """A setting in canonical JSON."""
    if isinstance(value, float):
        return repr(value)
    return list(value) if isinstance(value, tuple) else value
