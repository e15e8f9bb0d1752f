"""Tensors that a model shares: the base's file holds them several times, or a fine-tune's under another name.

Tensors of the base with the same bytes, dtype and shape are one group. A fine-tune that lacks a member holds
its values under the name of another one. Tensors of layers and experts are no group: a model may begin with
equal ones, and training moves them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.errors import InvalidInput
from persona.intake import growth
from persona.intake.likeness import Likeness
from persona.intake.naming import joined
from persona.intake.parts import View
from persona.merge.arithmetic import casts
from persona.merge.rows.reader import BaseChunks
from persona.objects.base import Base
from persona.objects.dtypes import DTYPES
from persona.objects.layers import numbered
from persona.objects.tensors import TensorSpec, chunk_count
from persona.weights.tied import is_head, is_shared, may_share

Copies = Callable[[str], list[str]]
"""The other names that a base has for a tensor."""


class Twins:
    """The groups of equal tensors of a base."""

    def __init__(self, base: Base, chunks: BaseChunks, apart: Collection[str] = ()) -> None:
        """`apart`: tensors that no other one stands for, whatever their bytes."""
        self._base = base
        self._chunks = chunks
        groups: dict[tuple[str, tuple[int, ...], tuple[str, ...]], list[str]] = {}
        for spec in base.tensors:
            if spec.elements and spec.name not in apart:
                ids = tuple(chunks.id(spec, index) for index in range(chunk_count(spec, base.chunk)))
                groups.setdefault((spec.dtype, spec.shape, ids), []).append(spec.name)
        self._group = {name: group for group in groups.values() if len(group) > 1 for name in group}

    def equal(self, one: str, other: str) -> bool:
        """Whether two tensors of the base are in one group."""
        return other in self._group.get(one, ())

    def of(self, name: str) -> list[str]:
        """The other members of a tensor's group, unless it is constant."""
        group = self._group.get(name, [])
        return [] if not group or self._is_constant(name) else [each for each in group if each != name]

    def shared(self, name: str) -> list[str]:
        """The other names of a tensor that a model holds once, as far as names and values tell."""
        return [each for each in self.of(name) if _is_one(name, each)]

    def find(self, absent: Iterable[str], view: View) -> dict[str, str]:
        """The twins that a checkpoint holds of tensors that it lacks. `view`: under the names of the base.

        Many biases are 0 and many norms are 1, and nobody shares them. A constant tensor goes with the matrix
        beside it, or it is the bias of the head. Raises `InvalidInput` for several twins that differ.
        """
        found: dict[str, str] = {}
        constant: list[str] = []
        for name in absent:
            held = [twin for twin in self._group.get(name, ()) if twin in view.held and _is_one(name, twin)]
            if not held:
                continue
            if self._is_constant(name):
                constant.append(name)
                continue
            if not is_head(name):  # a head of its own says nothing about the embeddings
                held = [twin for twin in held if not is_head(twin)] or held
            if (odd := next((twin for twin in held[1:] if not view.equal(held[0], twin)), None)) is not None:
                raise InvalidInput(
                    f"{view.path}: {name} is missing; in the base it equals {held[0]} and {odd}, which differ"
                    " here, so its values are not known; save the model with all three"
                )
            found[name] = held[0]
        modules = {name.rpartition(".")[0]: twin.rpartition(".")[0] for name, twin in found.items()}
        for name in constant:
            module, _, parameter = name.rpartition(".")
            beside = f"{modules[module]}.{parameter}" if module in modules else None
            held = [twin for twin in self._group[name] if twin in view.held]
            heads = [twin for twin in held if may_share(name, twin)]
            if beside in held:
                found[name] = beside
            elif len(heads) == 1:
                found[name] = heads[0]
        return found

    def is_zero(self, name: str) -> bool:
        """Whether a tensor is 0 everywhere, as far as its first chunk tells."""
        return self._is_constant(name) and not self._first(name).any()

    def _is_constant(self, name: str) -> bool:
        spec = self._base.spec[name]
        if not spec.merged:
            return False
        bits = self._first(name)
        return bool((bits == bits[0]).all())

    def _first(self, name: str) -> NDArray[Any]:
        """The first chunk of a tensor, as bits."""
        spec = self._base.spec[name]
        return self._chunks.read(spec, 0, np.empty(min(spec.units, self._base.chunk), spec.bits_dtype))


def _is_one(name: str, twin: str) -> bool:
    """Whether two equal tensors of a base are one tensor of the model, as far as names tell."""
    return may_share(name, twin) or (numbered(name) is None and numbered(twin) is None)


def parted(base: Base, twins: Twins, left: Collection[str], view: View) -> Iterator[str]:
    """Sentences on tensors that stay as they are (`left`), while others that are equal may change."""
    for name in sorted(left):
        held = view.held.get(name)
        new = growth.vocabulary([(base.spec[name], None if held is None else held.spec)])
        if new is not None and new[1] > new[0]:
            yield f"{name} stays as it is, so {new[1] - new[0]} new tokens are left out"
        if others := [each for each in twins.of(name) if each not in left]:
            yield f"{name} stays as it is, but {joined(others)} may change, which the base shares with it"


def under_other_names(
    base: Base, twins: Twins, absent: Iterable[str], unknown: Iterable[str], view: View, likeness: Likeness
) -> dict[str, str]:
    """Shared tensors that a checkpoint holds under another name than the base: the base's name → its name.

    Only if one tensor can be meant on either side, and its weights are like the base's: another model, or a
    draft head, may have the name. If the checkpoint has embeddings and heads that differ, a missing embedding
    is the embedding.
    """
    shared = [name for name in unknown if may_share(name, name)]
    lost = [name for name in absent if any(may_share(name, other) for other in shared)] if shared else []
    found: dict[str, str] = {}
    for name in lost:
        spec = base.spec[name]
        others = [each for each in lost if each != name and may_share(each, name)]
        given = [
            other for other in shared if may_share(name, other) and view.held[other].spec.shape == spec.shape
        ]
        if not is_head(name):
            given = [other for other in given if not is_head(other)] or given
        if not given or not all(twins.equal(name, other) for other in others):
            continue
        is_one = all(view.equal(given[0], other) for other in given[1:])
        if is_one and likeness.is_alike(spec, view.held[given[0]]):
            found[name] = given[0]
    return found


def copies(base: Base, unknown: Iterable[str], view: View) -> Iterator[tuple[str, str, bool]]:
    """The shared tensors that only a checkpoint has: its name, the base's it may be, and whether it is equal.

    They are equal if they are in the base's dtype.
    """
    for name in unknown:
        spec = view.held[name].spec
        tied = base.tied.get(name)
        known = [tied] if tied is not None else []
        if is_shared(name):
            known += [other for other in base.spec if other != tied and may_share(name, other)]
        known = [other for other in known if other in view.held and view.held[other].spec.shape == spec.shape]
        same = next((other for other in known if _same_values(base.spec[other], name, other, view)), None)
        if same is not None or known:
            yield name, same or known[0], same is not None


def _same_values(spec: TensorSpec, one: str, other: str, view: View) -> bool:
    """Whether two tensors of a checkpoint are equal, rounded to the narrowest of the three dtypes."""
    dtypes = [view.held[name].spec.dtype for name in (one, other)]
    if dtypes[0] == dtypes[1]:
        return view.equal(one, other)
    if not spec.merged or not all(DTYPES[dtype].is_float for dtype in dtypes):
        return False
    narrow = min([spec.dtype, *dtypes], key=lambda dtype: (DTYPES[dtype].bits, DTYPES[dtype].mantissa))
    count, step = view.held[one].spec.elements, 1 << 18
    for start in range(0, count, step):
        rounded = []
        for name, dtype in zip((one, other), dtypes, strict=True):
            nbytes = DTYPES[dtype].bits // 8
            raw = bytearray(min(step, count - start) * nbytes)
            view.read_into(name, start * nbytes, raw)
            rounded.append(casts.narrow(casts.widen(np.frombuffer(raw, f"<u{nbytes}"), dtype), narrow))
        if not np.array_equal(rounded[0], rounded[1]):
            return False
    return True
