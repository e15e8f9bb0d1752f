"""Names of tensors that a wrapper of the model changed: DDP, FSDP, `torch.compile`, PEFT, TRL.

A wrapper adds parts to the names of a state_dict, in front or in the middle, and changes no number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from persona.errors import InvalidInput
from persona.intake.parts import Held, View
from persona.objects.base import Base
from persona.weights.adapters import WRAPPER_PARTS

_PREFIXES: Final = ("base_model.model.", "pretrained_model.")
"""Of PEFT and of TRL."""
_PARTS: Final = WRAPPER_PARTS | {"base_layer"}
_COPY: Final = re.compile(r"(?:^|(?<=\.))modules_to_save\.[^.]+\.")
"""PEFT's trained copy of a module; the module itself is called `original_module`."""
_LORA: Final = re.compile(
    r"(?:^|\.)(?:lora_(?:[aAbB]|embedding_[AB]|magnitude_vector|magnitude)|ia3_l|hada_w\d_[ab]|lokr_\w+|oft_[rR]"
    r"|vera_lambda_[bd]|boft_[RS]|trainable_tokens_delta)(?:\.|$)"
)
_ORIGINAL: Final = re.compile(r"(?:^|(?<=\.))original_module\.")


def unwrapped(base: Base, view: View) -> tuple[dict[str, Held], list[str]]:
    """Tensors of a checkpoint under the names that the base gives them, and sentences worth telling.

    A name loses the parts of a wrapper, or gets those that the base's name has. If a tensor is there under
    several names, raises `InvalidInput` unless they are equal.
    """
    held = view.held
    own: dict[str, list[str]] = {}
    for name in (*base.spec, *base.tied):
        own.setdefault(bare(name), []).append(name)
    copies = {bare(name) for name in held if _COPY.search(name)}
    changed: dict[str, list[str]] = {}
    dropped: list[str] = []
    for name in held:
        short = bare(name)
        if name in base.spec or name in base.tied:
            continue
        if short in copies and _ORIGINAL.search(name):
            dropped.append(name)
        elif short in own and len(own[short]) == 1:
            changed.setdefault(own[short][0], []).append(name)
        elif short != name and short not in held:  # the base may have it under yet another name
            changed.setdefault(short, []).append(name)
    news = {names[0]: new for new, names in changed.items() if new not in held}
    twice = {name: _first(new, names, view) for new, names in changed.items() for name in names}
    twice = {name: first for name, first in twice.items() if name != first}
    gone = {*twice, *(name for name in dropped if name not in news)}
    found = {
        news.get(name, name): one.named(news.get(name, name))
        for name, one in held.items()
        if name not in gone
    }
    notes = _notes(news)
    if twice:
        name, first = next(iter(twice.items()))
        more = f", and {len(twice) - 1} more in the same way" if len(twice) > 1 else ""
        notes.append(f"{name} equals {first}{more}: left out")
    return found, notes


def _first(new: str, names: Sequence[str], view: View) -> str:
    """The name under which a tensor of the base is taken: `new`, or the first of `names`.

    Raises `InvalidInput` if not all are equal.
    """
    first = new if new in view.held else names[0]
    for name in names:
        if name != first and not view.equal(name, first):
            raise InvalidInput(
                f"{view.path}: both {first} and {name} are there, and they differ: which of them is the"
                " fine-tune's is not known",
                hint="take the wrapper off the model (accelerate's unwrap_model, or model._orig_mod), and"
                " save it with save_pretrained into an empty directory",
            )
    return first


def bare(name: str) -> str:
    """A name without the parts of wrappers."""
    name = _ORIGINAL.sub("", _COPY.sub("", name))
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    if _PARTS.isdisjoint(parts := name.split(".")):
        return name
    return ".".join(part for part in parts if part not in _PARTS)


def _notes(news: Mapping[str, str]) -> list[str]:
    """Sentences on names that changed. `news`: name → new name."""
    stripped = {name: list(_wrappers(name, new)) for name, new in news.items()}
    added = {name: list(_wrappers(new, name)) for name, new in news.items()}
    said: list[str] = []
    for found, verb in ((stripped, "stripped from"), (added, "added to")):
        if parts := sorted({part for each in found.values() for part in each}):
            count = sum(map(bool, found.values()))
            said.append(
                f"{verb} the name{'s' if count > 1 else ''} of {count} tensor{'s' if count > 1 else ''}"
                f"{', as in the base' if verb == 'added to' else ''}: {', '.join(parts)}"
            )
    return said


def _wrappers(name: str, other: str) -> Iterator[str]:
    """The parts of wrappers that a name has, and another one has not."""
    yield from (prefix for prefix in _PREFIXES if name.startswith(prefix) > other.startswith(prefix))
    parts, others = name.split("."), other.split(".")
    yield from (f"{part}." for part in _PARTS if parts.count(part) > others.count(part))
    if not _COPY.search(other):
        yield from _COPY.findall(name)


def lora_layers(names: Iterable[str]) -> list[str]:
    """The tensors that PEFT, or torchtune, adds to a model and that are not merged into its weights."""
    return [name for name in names if _LORA.search(name)]
