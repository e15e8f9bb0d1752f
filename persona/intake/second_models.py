"""A second model in a file: tensors that are the base's once more, under other names.

A trainer may save the trained model beside its reference, or beside an average of its weights. If one of the
two has the base's names, names do not tell which of them was meant.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from persona.errors import InvalidInput
from persona.intake.likeness import Likeness
from persona.intake.naming import described
from persona.intake.parts import Held, View
from persona.objects.layers import numbered
from persona.objects.tensors import TensorSpec
from persona.weights.tied import is_shared

_TELLING: Final = 64
"""The least elements of a matrix that tells."""
_ASKED: Final = 16
_MOST_OF: Final = 0.75
"""The share of the base's tensors from which on others of their ends and shapes are a model."""


def ends_of(name: str) -> tuple[str, ...]:
    """The last parts of a name and its numbers, which two models have in common."""
    return (*name.split(".")[-2:], *(part for part in name.split(".") if part.isdigit()))


def common_end(one: str, other: str) -> int:
    """How many characters two names have in common at their ends."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def refuse_second(
    pairs: Iterable[tuple[TensorSpec, Held]], unknown: Collection[str], view: View, likeness: Likeness
) -> None:
    """`InvalidInput` if tensors that the base lacks are like those of two layers, or stand for most of it.

    `pairs`: the tensors of the base, and those of the checkpoint under their names.
    """
    paired: dict[tuple[object, ...], list[TensorSpec]] = {}
    for spec, _ in pairs:
        paired.setdefault((ends_of(spec.name), spec.shape), []).append(spec)
    others: dict[str, TensorSpec] = {}
    for name in unknown:
        if found := paired.get((ends_of(name), view.held[name].spec.shape)):
            others[name] = max(found, key=lambda spec: common_end(spec.name, name))
    matrices = [
        name
        for name, spec in others.items()
        if len(spec.shape) > 1 and spec.elements >= _TELLING and not is_shared(name)
    ]
    asked = matrices[:: 1 + len(matrices) // _ASKED]
    if all(others[name].name in view.held and view.equal(name, others[name].name) for name in asked):
        return
    alike = {numbered(name) for name in asked if likeness.is_alike(others[name], view.held[name])}
    layers = {None if place is None else place[1] for place in alike}  # a draft may begin as a copy of one
    most = len({spec.name for spec in others.values()}) > _MOST_OF * sum(map(len, paired.values()))
    if len(layers) > 1 or most:
        raise InvalidInput(
            f"{view.path}: holds two models: tensors with the base's names, and"
            f" {described(list(others), view.held)}; which of them was trained is not known",
            hint="save the trained model alone, with save_pretrained into an empty directory",
        )
