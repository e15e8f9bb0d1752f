"""The depth of a model: how many layers, blocks or experts it has, as its config.json counts them.

A fine-tune of another depth is no fine-tune of the base, whatever its tensors are called.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from persona.errors import InvalidInput
from persona.intake.naming import pattern
from persona.merge.rows.reader import BaseChunks
from persona.objects.base import Base
from persona.weights.checkpoint import Checkpoint

_COUNT: Final = re.compile(
    r"(?:n|num)_(?:(?!\w*predict)\w+_)?(?:layers?|blocks?|experts|stages)"
    r"|(?:encoder|decoder|hidden)_layers|depths?|layers"
)
"""Keys that count layers. `num_nextn_predict_layers` counts those of a multi-token head."""
_DEEPEST: Final = 4


def check(base: Base, chunks: BaseChunks, checkpoint: Checkpoint) -> None:
    """`InvalidInput` if the config of a fine-tune gives another depth than the base's.

    The configs of the parts of a model (`text_config`) are read too.
    """
    blob = base.files.get("config.json")
    if blob is None or checkpoint.config is None:
        return
    try:
        own = dict(_counted(json.loads(chunks.reader.objects.get(blob, "blob"))))
    except ValueError:
        return
    for key, given in _counted(checkpoint.config):
        if key in own and own[key] != given:
            raise InvalidInput(
                f"{checkpoint.path}: its config.json says {key} = {given}, and the base's says {own[key]}, so"
                " it is no fine-tune of this base; begin with its own base"
            )


def check_more(base: Base, checkpoint: Checkpoint, unknown: Iterable[str]) -> None:
    """`InvalidInput` if a tensor that the base lacks is in one layer more, and no config counts the layers.

    A config that counts as many as the base's says that the model computes without that layer.
    """
    kinds = set(map(pattern, base.spec)) if checkpoint.config is None else set()
    if more := next((name for name in unknown if pattern(name) in kinds), None):
        raise InvalidInput(
            f"{checkpoint.path}: {more} is in a layer that the base does not have, and no config.json says"
            " how many layers the model has",
            hint="give a directory that holds the weights and their config.json",
        )


def _counted(config: object, deep: int = 0) -> Iterator[tuple[str, object]]:
    """Every depth in a config, with the keys that lead to it."""
    if not isinstance(config, Mapping) or deep > _DEEPEST:
        return
    for key, value in config.items():
        if _COUNT.fullmatch(str(key)) and _is_count(value):
            yield str(key), value
        for inner, found in _counted(value, deep + 1):
            yield f"{key}.{inner}", found


def _is_count(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(type(each) is int for each in value)
    return type(value) is int
