"""Whether the elements of a renamed tensor stand where the base has them, and have the base's size.

A program may hold the rows of a rotary embedding in another order, fold a factor into a matrix, or store a
norm as 1 + w. One correlation of a whole tensor does not show that.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from persona.frozen import dataclass
from persona.intake.naming import pattern
from persona.objects.tensors import TensorSpec

_Pair: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""The elements of a tensor of the base, and those of its partner."""
_LENGTH: Final = 64
_SHORTEST: Final = 8
"""Elements of a row or column that are compared, at most and at least."""
_LINES: Final = 4096
_FAR: Final = 0.3
_DEVIATIONS: Final = 4
"""How far the correlation of a line may be below that of most: at least, and in standard deviations."""
_MIXED: Final = 0.04
"""The part of all rows, or of all columns, from which on a matrix is mixed."""
_SHIFT: Final = 0.5
"""The shift of all elements of a vector that no training makes. A norm has elements of about 1."""


@dataclass(frozen=True)
class Sample:
    """Rows of a matrix of a base, and of its partner: float64 [rows, columns]."""

    own: NDArray[np.float64]
    given: NDArray[np.float64]

    @property
    def scale(self) -> float:
        """The norm of the partner, where the base's is 1."""
        sums = [float(np.square(side[np.isfinite(side)]).sum()) for side in (self.own, self.given)]
        return math.sqrt(sums[1] / sums[0]) if sums[0] > 0 else 1.0

    def is_mixed(self) -> bool:
        """Whether some rows or columns are far less like their partners than most."""
        return _is_mixed(self.own, self.given) or _is_mixed(self.own.T, self.given.T)


def _is_mixed(own: NDArray[np.float64], given: NDArray[np.float64]) -> bool:
    step = 1 + len(own) // _LINES
    own, given = own[::step, :_LENGTH], given[::step, :_LENGTH]
    if len(own) < 2 or own.shape[1] < _SHORTEST:
        return False
    own, given = np.nan_to_num(own), np.nan_to_num(given)
    found = of_rows(own, given)
    told = ~np.isnan(found)
    if not told.any():
        return False
    usual = float(np.median(found[told]))
    deviation = (1 - usual * usual) / math.sqrt(own.shape[1])
    changes = np.square(given - own).sum(axis=1)
    # A small row is unlike its partner after a change that is small too.
    odd = (found < usual - max(_FAR, _DEVIATIONS * deviation)) & (changes > 2 * np.median(changes[told]))
    return float(odd[told].mean()) > _MIXED


def of_rows(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """The correlation of each row; NaN if the first side is constant in it, 0 if only the other is."""
    one = one - one.mean(axis=1, keepdims=True)
    other = other - other.mean(axis=1, keepdims=True)
    norms = np.sqrt((one * one).sum(axis=1)), np.sqrt((other * other).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: NDArray[np.float64] = (one * other).sum(axis=1) / (norms[0] * norms[1])
    found[norms[1] == 0] = 0
    found[norms[0] == 0] = np.nan
    return found


def strange_vectors(
    given: Sequence[tuple[TensorSpec, NDArray[np.float64], NDArray[np.float64]]],
) -> list[str]:
    """The vectors that are shifted as a whole, or that are another one of the base of the same layer.

    `given`: tensors of the base, their elements, and those of their partners.
    """
    found: list[str] = []
    places: defaultdict[tuple[int, tuple[str, ...]], list[NDArray[np.float64]]] = defaultdict(list)
    for spec, own, _ in given:
        places[_place(spec)].append(own)
    for spec, own, other in given:
        change = np.nan_to_num(other - own)
        shift = abs(float(change.mean()))
        distance = float(np.linalg.norm(change))
        others = (float(np.linalg.norm(np.nan_to_num(other - each))) for each in places[_place(spec)])
        if (shift >= _SHIFT and shift >= 2 * float(change.std())) or min(others) < distance / 2:
            found.append(spec.name)
    return found


def swapped(given: Sequence[tuple[TensorSpec, NDArray[np.float64], NDArray[np.float64]]]) -> list[str]:
    """The tensors of few elements, such as gates, that stand under each other's names.

    `given`: as for `strange_vectors`. Those that only count layers in another way are one kind. Two kinds
    are swapped if each is twice as near to the other one of the base as to its own, over all layers.
    """
    kinds: defaultdict[str, dict[tuple[int, tuple[str, ...]], _Pair]] = defaultdict(dict)
    names: defaultdict[str, list[str]] = defaultdict(list)
    for spec, own, other in given:
        kinds[pattern(spec.name)][_place(spec)] = own, other
        names[pattern(spec.name)].append(spec.name)
    return [
        name
        for kind, members in kinds.items()
        for other, others in kinds.items()
        if kind != other and members.keys() == others.keys()
        if _is_nearer(members, others) and _is_nearer(others, members)
        for name in names[kind]
    ]


def _is_nearer(members: Mapping[Any, _Pair], others: Mapping[Any, _Pair]) -> bool:
    """Whether the partners of some tensors are twice as near to other tensors of the base as to these."""
    own = sum(float(np.nansum(np.square(other - one))) for one, other in members.values())
    apart = sum(float(np.nansum(np.square(members[key][1] - one))) for key, (one, _) in others.items())
    return apart < own / 4


def _place(spec: TensorSpec) -> tuple[int, tuple[str, ...]]:
    """The length of a vector, and the numbers of its layer."""
    return spec.elements, tuple(part for part in spec.name.split(".") if part.isdigit())
