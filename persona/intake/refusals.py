"""The refusal of tensors that only one of two models has, with the options that admit them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from persona.errors import InvalidInput, Keyword, pieces
from persona.frozen import dataclass
from persona.intake import strays
from persona.intake.heads import OWN_HEAD
from persona.intake.naming import described
from persona.intake.parts import View
from persona.intake.phrases import SAVE_ALIKE, count
from persona.objects.base import Base
from persona.weights.tied import is_head

_WITH_HEAD: Final = "save the whole model, by save_pretrained of the class that its config.json names"


@dataclass(frozen=True)
class Kinds:
    """What the configs of a fine-tune and of its base call the two models, if these are two names."""

    own: str
    base: str


@dataclass(frozen=True)
class Unpaired:
    """The tensors of two models that only one of them has, and that no glob admits.

    `lost`: a checkpoint lacks them. `more`: the base lacks them. `inside`: strays among all that it lacks.
    `unused`: a glob that matches none of `lost`. `apart`: whether a lost matrix may be one of `more`.
    """

    lost: Sequence[str]
    more: Sequence[str]
    inside: Sequence[str]
    unused: str | None
    apart: bool


def refuse(base: Base, view: View, found: Unpaired, kinds: Kinds | None, *, partial: bool) -> None:
    """`InvalidInput` that names unpaired tensors on both sides, if there are any."""
    problems: list[str] = []
    hint: list[str | Keyword] = []
    if found.lost:
        problems.append(
            f"{count(found.lost, 'tensor')} of the base {'is' if len(found.lost) == 1 else 'are'} missing:"
            f" {described(found.lost, [spec.name for spec in base.tensors])}"
        )
        if found.unused:
            problems[-1] += f" ('{found.unused}' matches none of them)"
        hint += [Keyword(missing="zero"), " counts them as unchanged, if training froze them"]
    if found.more or found.inside:
        problems.append(lacking(found.more or found.inside, view))
    if found.inside:
        said, advised = strays.advice(found.inside, partial=partial)
        problems[-1] += f"; {said}"
        hint = list(pieces(advised)[:-1])
    elif found.more:
        hint += [*(["; "] if hint else []), Keyword(extra="ignore")]
        hint.append(" leaves out those that the base lacks, and the model computes without them")
        if kinds is not None:
            hint[-1] = f" leaves out those that the base lacks: the model stays a {kinds.base} without them"
    if found.apart:
        hint = [f"{SAVE_ALIKE}; then start from that base"]
    if problems and kinds is not None and not found.inside:
        problems[-1] += f" ({of_another_kind(kinds)})"
    if problems:
        raise InvalidInput(f"{view.path}: {'; and '.join(problems)}", hint=tuple(hint))


def lacking(names: Sequence[str], view: View) -> str:
    """The tensors that a base lacks, as a phrase."""
    return f"{count(names, 'tensor')} that the base does not have: {described(names, view.held)}"


def of_another_kind(kinds: Kinds) -> str:
    """A sentence on a fine-tune that is another kind of model than its base."""
    return f"config.json says that the fine-tune is a {kinds.own}, and the base a {kinds.base}"


def refuse_lost_heads(path: Path, lost: Sequence[str], config: Mapping[str, object] | None) -> None:
    """`InvalidInput` for an output matrix that a fine-tune lacks.

    A fine-tune of the base's kind has one. If it lacks other tensors too, and its config says that it has an
    output matrix of its own, it may hold only the tensors that were trained.
    """
    head = next(filter(is_head, lost), None)
    if head is not None and config is None:
        raise InvalidInput(
            f"{path}: {head} is missing, and no config.json says whether the model ties it to its embedding",
            hint="give a directory that holds the weights and their config.json",
        )
    modules = {name.rpartition(".")[0] for name in lost if is_head(name)}
    if head is not None and all(name.rpartition(".")[0] in modules for name in lost):
        beside, hint = (" with its bias", _WITH_HEAD) if len(lost) > len(modules) else ("", OWN_HEAD)
        raise InvalidInput(
            f"{path}: {head} is missing{beside}, and nothing else of the base: it was lost when the model was"
            " saved",
            hint=hint,
        )


def refuse_lost_parts(base: Base, path: Path, lost: Sequence[str]) -> None:
    """`InvalidInput` for parts of modules that a fine-tune lacks in all layers, if there are any."""
    if lost:
        raise InvalidInput(
            f"{path}: {count(lost, 'tensor')} of the base {'is' if len(lost) == 1 else 'are'} missing:"
            f" {described(lost, [spec.name for spec in base.tensors])}. No module of this kind has"
            f" {'it' if len(lost) == 1 else 'them'}, so the fine-tune may compute without, and the base's"
            " values would change it",
            hint="save the fine-tune with all tensors of the base, as zeros if they are biases that its model"
            " does not have; or begin with its own base",
        )
