"""How a checkpoint is matched to a base, as the user chose: globs of tensors, and what may differ."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Final

from persona.errors import InvalidInput
from persona.frozen import dataclass
from persona.objects import globs

_WORDS: Final = ("zero", "ignore", "refuse")
"""Words that stand for all tensors or none, and are no globs."""


@dataclass(frozen=True)
class Choices:
    """How a checkpoint is matched.

    `missing`, `extra`, `leave`: globs of tensors that may be missing, may be extra, and stay as they are in
    the base. `missing` of "zero" and `extra` of "ignore" stand for all tensors, and "refuse" for none.
    `extend_vocab`, `untie`: whether it may grow the base (`intake.growth`). `grown`: the tensors that the
    revision has grown from which it was trained, each with its origin (`objects.growth`).
    """

    missing: str | Sequence[str] = "refuse"
    extra: str | Sequence[str] = "refuse"
    leave: str | Sequence[str] = ()
    rename: bool = False
    cast: bool = False
    extend_vocab: bool = False
    untie: bool = False
    grown: Mapping[str, str | None] = field(default_factory=dict)


def check_globs(
    patterns: str | Sequence[str],
    names: Iterable[str],
    parameter: str,
    words: Collection[str] = _WORDS,
) -> None:
    """`InvalidInput` for a glob that matches none of some names of tensors. `words`: that are no globs."""
    names = list(names)
    for glob in _globs(patterns):
        if glob in words:
            continue
        if (said := globs.fault(glob)) is None and not any(map(globs.matcher(glob), names)):
            example = next((name for name in names if ".mlp." in name), next(iter(names), "nothing"))
            said = f"matches none of {len(names)} tensors; names look like {example}"
        if said is not None:
            raise InvalidInput(f"'{glob:.80}' {said}", parameter=parameter)


def unused(patterns: str | Sequence[str], names: Collection[str]) -> str | None:
    """A glob that matches none of some names."""
    globs_given = [glob for glob in _globs(patterns) if glob not in (*_WORDS, "*")]
    return next((glob for glob in globs_given if not any(map(globs.matcher(glob), names))), None)


def is_named(patterns: str | Sequence[str], name: str) -> bool:
    """Whether globs name a tensor, and do not only admit all."""
    return not _is_all(patterns) and admits(patterns, name)


def _globs(patterns: str | Sequence[str]) -> Sequence[str]:
    return (patterns,) if isinstance(patterns, str) else patterns


def _is_all(patterns: str | Sequence[str]) -> bool:
    return any(glob in (*_WORDS, "*") for glob in _globs(patterns)) and patterns != "refuse"


def admits(patterns: str | Sequence[str], name: str) -> bool:
    """Whether one of some globs matches a name; "refuse" matches none, "zero" and "ignore" match all."""
    if patterns == "refuse":
        return False
    return _is_all(patterns) or matches(patterns, name)


def matches(patterns: str | Sequence[str], name: str) -> bool:
    """Whether one of some globs matches a name."""
    return any(globs.matcher(glob)(name) for glob in _globs(patterns))
