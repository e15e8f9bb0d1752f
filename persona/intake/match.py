"""Checks of a checkpoint against a base, before any arithmetic (docs/numerics.md).

A match says how one tensor of the base finds its fine-tuned self: under which name, in which dtype, or not at
all.
"""

from __future__ import annotations

from typing import Literal

from persona.errors import InvalidInput, Keyword, listed
from persona.frozen import dataclass
from persona.objects.base import Base
from persona.objects.dtypes import DTYPES
from persona.objects.tensors import TensorSpec
from persona.weights.checkpoint import Checkpoint


@dataclass(frozen=True)
class Match:
    """`source` is the checkpoint's spec to read for `spec`, or None if the tensor counts as unchanged."""

    spec: TensorSpec
    source: TensorSpec | None

    @property
    def rounded(self) -> bool:
        """Whether elements are rounded to the base's dtype on the way."""
        return self.source is not None and self.source.dtype != self.spec.dtype


def match_tensors(
    base: Base,
    checkpoint: Checkpoint,
    *,
    missing: Literal["refuse", "zero"] = "refuse",
    extra: Literal["refuse", "ignore"] = "refuse",
    cast: bool = False,
) -> tuple[list[Match], list[str]]:
    """One match for each tensor of the base, and sentences worth telling.

    Raises `InvalidInput` that lists missing, extra and mismatched tensors with the option that would admit
    them.
    """
    given = {name: spec for name, (spec, _) in checkpoint.tensors.items()}
    notes: list[str] = []
    absent: list[str] = []
    matches: list[Match] = []
    for spec in base.tensors:
        source = given.get(spec.name)
        target = checkpoint.tied.get(spec.name)
        if source is None and target is not None and target in given:
            source = TensorSpec(target, given[target].dtype, given[target].shape)
            notes.append(f"{spec.name} is tied to {target} in {checkpoint.path.name}: its values are used")
        if source is None:
            absent.append(spec.name)
        else:
            check_pair(spec, source, checkpoint.path, cast)
        matches.append(Match(spec, source))
    unknown = _unknown(base, checkpoint, given, notes)
    if checkpoint.partial:
        absent = []
    _refuse(checkpoint, absent if missing != "zero" else [], unknown if extra != "ignore" else [])
    if absent:
        notes.append(f"{_count(absent, 'tensor')} missing in {checkpoint.path.name}: counted as unchanged")
    if unknown:
        notes.append(f"{_count(unknown, 'tensor')} that the base does not have: left out")
    return matches, notes


def _refuse(checkpoint: Checkpoint, absent: list[str], unknown: list[str]) -> None:
    """`InvalidInput` that names the tensors on both sides, if there are any."""
    problems: list[str] = []
    hint: list[str | Keyword] = []
    if absent:
        problems.append(
            f"{_count(absent, 'tensor')} of the base {'is' if len(absent) == 1 else 'are'} missing:"
            f" {listed(absent)}"
        )
        hint += [Keyword(missing="zero"), " counts them as unchanged"]
    if unknown:
        problems.append(f"{_count(unknown, 'tensor')} that the base does not have: {listed(unknown)}")
        hint += [*(["; "] if hint else []), Keyword(extra="ignore"), " leaves out those that the base lacks"]
    if problems:
        raise InvalidInput(f"{checkpoint.path}: {'; and '.join(problems)}", hint=tuple(hint))


def check_pair(spec: TensorSpec, source: TensorSpec, path: object, cast: bool) -> None:
    """`InvalidInput` if a tensor of the file `path` cannot be a fine-tuned `spec`."""
    where = f"{path}: tensor {spec.name}"
    if source.shape != spec.shape:
        if (
            len(spec.shape) == len(source.shape) == 2
            and spec.shape[1] == source.shape[1]
            and _is_vocabulary(spec.name)
        ):
            raise InvalidInput(
                f"{where} has a vocabulary of {source.shape[0]}, but the base has {spec.shape[0]}: resize"
                f" it back (resize_token_embeddings({spec.shape[0]})) or start from a base of that size"
            )
        raise InvalidInput(
            f"{where} has the shape {list(source.shape)}, but the base has {list(spec.shape)};"
            " give a fine-tune of this base"
        )
    if source.dtype == spec.dtype:
        return
    if not spec.merged or not DTYPES[source.dtype].is_float:
        raise InvalidInput(
            f"{where} has the dtype {source.dtype}, but the base has {spec.dtype}: save it as {spec.dtype}"
        )
    if not DTYPES[source.dtype].holds(DTYPES[spec.dtype]) and not cast:
        raise InvalidInput(
            f"{where} has the dtype {source.dtype}, which cannot hold every value of {spec.dtype},"
            " the base's dtype",
            hint=(Keyword(cast=True), " converts it anyway"),
        )


def _unknown(base: Base, checkpoint: Checkpoint, given: dict[str, TensorSpec], notes: list[str]) -> list[str]:
    """The tensors that the base lacks, without those that equal the tensor that the base ties them to."""
    unknown: list[str] = []
    for name in given:
        if name in base.spec:
            continue
        target = base.tied.get(name)
        if target is not None and target in given and _equal(checkpoint, given[name], given[target]):
            notes.append(f"{name} equals {target}, to which the base ties it: left out")
        else:
            unknown.append(name)
    return unknown


def _equal(checkpoint: Checkpoint, one: TensorSpec, other: TensorSpec, step: int = 1 << 22) -> bool:
    """Whether two tensors of a checkpoint have the same dtype, shape and bytes."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    for start in range(0, one.nbytes, step):
        first = bytearray(min(step, one.nbytes - start))
        second = bytearray(len(first))
        checkpoint.read_into(one.name, start, first)
        checkpoint.read_into(other.name, start, second)
        if first != second:
            return False
    return True


def _is_vocabulary(name: str) -> bool:
    return any(part in name for part in ("embed", "wte", "lm_head", "word_embeddings", "output.weight"))


def _count(names: list[str], noun: str) -> str:
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"
