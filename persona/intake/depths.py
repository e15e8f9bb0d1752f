"""The depth of a model: how many layers, blocks or experts it has, as its config.json counts them.

A fine-tune of another depth is no fine-tune of the base, whatever its tensors are called. Whole layers are
left out, or counted as unchanged, only if the config of the fine-tune has a count that is the base's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from persona.errors import InvalidInput
from persona.intake.copies import config_of
from persona.intake.naming import joined, pattern
from persona.intake.refusals import Kinds
from persona.merge.rows.reader import BaseChunks
from persona.objects.base import Base
from persona.weights.checkpoint import Checkpoint

_COUNT: Final = re.compile(
    r"(?:n|num)_(?:(?!\w*predict)\w+_)?(?:layers?|blocks?|experts|stages)"
    r"|(?:encoder|decoder|hidden)_layers|depths?|layers"
)
"""Keys that count layers. `num_nextn_predict_layers` counts those of a multi-token head."""
_MAY_COUNT: Final = re.compile(r"(?!\w*predict)(?:\w+_)?(?:layers?|blocks?|experts|stages|depths?)")
"""Keys that may count layers: `speech_encoder_layers`, and `max_window_layers`, which does not."""
_DEEPEST: Final = 4
_WITH_CONFIG: Final = "give a directory that holds the weights and their config.json"


def check(base: Base, chunks: BaseChunks, checkpoint: Checkpoint) -> None:
    """`InvalidInput` if the config of a fine-tune gives another depth than the base's.

    The configs of the parts of a model (`text_config`) are read too.
    """
    own = dict(_counted(config_of(chunks.reader.objects, base), _COUNT))
    for key, given in _counted(checkpoint.config, _COUNT):
        if key in own and own[key] != given:
            raise InvalidInput(
                f"{checkpoint.path}: its config.json says {key} = {given}, and the base's says {own[key]}, so"
                " it is no fine-tune of this base; begin with its own base"
            )


def check_layers(
    base: Base, chunks: BaseChunks, checkpoint: Checkpoint, lost: Iterable[str], more: Iterable[str]
) -> None:
    """`InvalidInput` if whole layers are lost or more, unless the fine-tune's config has the base's depth.

    `lost`: tensors of the base that the fine-tune lacks. `more`: those that the base lacks.
    """
    layers = _layers(base.spec)
    known = set(map(pattern, base.spec))
    gone = _layers(lost)
    new = _layers(name for name in more if pattern(name) in known)
    for stack, own in layers.items():
        whole = [number for number, names in gone[stack].items() if len(names) == len(own[number])]
        added = [number for number in new[stack] if number not in own]
        if (whole and len(whole) < len(own)) or added:
            count = len(own) - len(whole) + len(added)
            at = f"{stack}.{(whole or added)[0]}"
            fault = (
                f"{at} of the base is missing" if whole else f"{at} is a layer that the base does not have"
            )
            _check_depth(base, chunks, checkpoint, fault, len(own), count)


def lost_layers(base: Base, lost: Iterable[str], path: Path) -> Iterator[str]:
    """The sentence on whole layers that a fine-tune lacks, although its config counts them."""
    layers = _layers(base.spec)
    whole = [
        f"{stack}.{number}"
        for stack, found in _layers(lost).items()
        for number, names in found.items()
        if len(names) == len(layers[stack][number])
    ]
    if whole:
        yield (
            f"nothing of {joined(whole)} is in {path.name}: the vector leaves the base's there, and"
            " from_pretrained of the fine-tune makes random ones, if the model computes them"
        )


def _check_depth(
    base: Base, chunks: BaseChunks, checkpoint: Checkpoint, fault: str, depth: int, count: int
) -> None:
    """`InvalidInput` unless the fine-tune's config counts `depth` layers, and nothing in it says `count`.

    If the base's config says `count`, the base's file holds a layer that its model does not compute, such as
    a multi-token head.
    """
    where = f"{checkpoint.path}: {fault}"
    if checkpoint.config is None:
        raise InvalidInput(
            f"{where}, and no config.json says how many layers the model has", hint=_WITH_CONFIG
        )
    own = dict(_counted(config_of(chunks.reader.objects, base), _MAY_COUNT))
    given = dict(_counted(checkpoint.config, _MAY_COUNT))
    other = next((key for key, value in given.items() if value == count and own.get(key) != value), None)
    if other is not None:
        raise InvalidInput(
            f"{where}, and its config.json says {other} = {count}, so it is no fine-tune of this base; begin"
            " with its own base"
        )
    said, base_said = ({one for value in each.values() for one in _flat(value)} for each in (given, own))
    is_outside = depth not in base_said and count in base_said & said  # of the layers that models compute
    if depth not in said and not is_outside:
        raise InvalidInput(
            f"{where}, and its config.json does not say that the model has {depth} layers, as the base has;"
            " save the fine-tune with all its tensors, or begin with its own base"
        )


def _flat(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def kinds(base: Base, chunks: BaseChunks, checkpoint: Checkpoint) -> Kinds | None:
    """What the configs of a fine-tune and of its base call the two models, if these are two names."""
    found = [
        ", ".join(map(str, each)) if isinstance(each := config.get("architectures"), list) else ""
        for config in (checkpoint.config, config_of(chunks.reader.objects, base))
        if isinstance(config, Mapping)
    ]
    return Kinds(*found) if len(found) == 2 and all(found) and found[0] != found[1] else None


def _layers(names: Iterable[str]) -> defaultdict[str, defaultdict[int, list[str]]]:
    """The tensors of each layer and expert, by its stack and its number."""
    found: defaultdict[str, defaultdict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        parts = name.split(".")
        for at, part in enumerate(parts[:-2]):  # a layer has modules
            if at and part.isascii() and part.isdigit() and len(part) < 10:
                found[".".join(parts[:at])][int(part)].append(name)
    return found


def _counted(config: object, keys: re.Pattern[str], deep: int = 0) -> Iterator[tuple[str, object]]:
    """Every depth in a config, with the keys that lead to it."""
    if not isinstance(config, Mapping) or deep > _DEEPEST:
        return
    for key, value in config.items():
        if keys.fullmatch(str(key)) and _is_count(value):
            yield str(key), value
        for inner, found in _counted(value, keys, deep + 1):
            yield f"{key}.{inner}", found


def _is_count(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(type(each) is int for each in value)
    return type(value) is int
