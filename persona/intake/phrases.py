"""Sentences about the tensors of a checkpoint and of its base."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from persona.errors import InvalidInput, Keyword
from persona.intake.naming import described
from persona.intake.renames import Renames
from persona.objects.base import Base

SAVE_ALIKE: Final = (
    "load both models with the same version of transformers, and save both with save_pretrained"
)


def renamed(
    found: Renames, path: Path, base: Base, held: Iterable[str], unknown: Collection[str]
) -> InvalidInput:
    """The refusal of a checkpoint whose tensors have other names than the base's.

    `held`: the names in the checkpoint; `unknown`: those that the base lacks.
    """
    if found.doubtful:
        lost = [*found.pairs, *found.doubtful]
        return InvalidInput(
            f"{path}: renamed: {count(lost, 'tensor')} of the base"
            f" ({described(lost, [spec.name for spec in base.tensors])}) and"
            f" tensors that the base does not have ({described(unknown, held)}) seem to"
            " be the same ones under other names or in another layout",
            hint=f"{SAVE_ALIKE}; then start from that base",
        )
    return InvalidInput(
        f"{path}: {count(found.pairs, 'tensor')} of the base"
        f" {'is' if len(found.pairs) == 1 else 'are'} renamed: {some(found.examples)}",
        hint=(Keyword(rename=True), f" takes them under the base's names; or {SAVE_ALIKE}"),
    )


def some(phrases: Sequence[str], most: int = 3) -> str:
    """The first phrases, and a sign that there are more."""
    return ", ".join([*phrases[:most], *(["…"] if len(phrases) > most else [])]).replace("\n", "?")


def count(names: Collection[str], noun: str) -> str:
    """`1 tensor`, `3 tensors`."""
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"
