"""Whether a tensor of a checkpoint is the fine-tuned self of one of the base, as far as the weights tell."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from persona.intake.naming import pattern
from persona.intake.order import Sample, of_rows, strange_vectors, swapped
from persona.intake.parts import Held, View
from persona.merge.arithmetic import casts
from persona.merge.rows.reader import BaseChunks
from persona.objects.base import Base
from persona.objects.dtypes import DTYPES
from persona.objects.tensors import TensorSpec, chunk_count, chunk_span
from persona.weights.tied import is_shared

_ALIKE: Final = 0.3
"""The least correlation of a tensor and its fine-tuned self. That of unrelated tensors is about 0."""
_MOST: Final = 1 << 16
_FEWEST: Final = 8
"""Elements of a tensor that a correlation is measured of, at most and at least."""
_BLOCK: Final = 64
_SHORTEST: Final = 16
"""Elements of the blocks that show in which order a tensor stands, and of the last one at least."""
_PROVEN: Final = 0.5
"""The least correlation of each block of a tensor that stands in the base's order."""
_ROWS: Final = 512
"""Rows of each chunk of a matrix whose order is looked at."""
_TELLING: Final = 64
"""The least elements of a matrix that is no fine-tuned self of one that it is unlike."""
_SCALED: Final = 1.33
"""The factor beside the other tensors' from which on a tensor is scaled."""
_KNOWN: Final = 4
_PAIRED: Final = 16
_MEASURED: Final = 128
"""Tensors that are measured in the search for layers in another order, at most."""


class Likeness:
    """Compares tensors of a base and of a checkpoint.

    `known`: tensors that belong together by their names. If those are not alike, the fine-tune moved its
    weights far, and no weights tell that two tensors do not belong together.
    """

    def __init__(
        self, base: Base, chunks: BaseChunks, view: View, known: Iterable[tuple[TensorSpec, Held]]
    ) -> None:
        self._base = base
        self._chunks = chunks
        self._view = view
        self._measured: dict[tuple[str, Held], float | None] = {}
        floats = sorted((pair for pair in known if pair[0].merged), key=lambda pair: -pair[0].elements)
        self._is_near = False
        self._is_near = self(floats[:_KNOWN]) is True
        told = [each for spec, held in floats[:_KNOWN] if (each := self._measure(spec, held)) is not None]
        self._told = bool(told)
        self._usual = float(np.median(told)) if told else 0.0
        """The correlation of the tensors that belong together by their names."""

    def __call__(self, pairs: Iterable[tuple[TensorSpec, Held]]) -> bool | None:
        """Whether some pairs are alike; None if their weights cannot tell."""
        found = [each for spec, held in pairs if (each := self._measure(spec, held)) is not None]
        if not found:
            return None
        if sum(found) / len(found) > _ALIKE:
            return True
        return False if self._is_near else None

    def is_alike(self, spec: TensorSpec, held: Held) -> bool:
        """Whether a tensor surely is the fine-tuned self of one of the base."""
        return (self._measure(spec, held) or 0) > _surely(spec)

    def is_in_order(self, spec: TensorSpec, held: Held) -> bool:
        """Whether each part of a tensor surely is the fine-tuned self of the same part of the base's.

        Both are read whole. A block that is constant in the base tells nothing.
        """
        if not spec.merged or not DTYPES[held.spec.dtype].is_float or spec.shape != held.spec.shape:
            return False
        own = np.empty(min(spec.units, self._base.chunk), spec.bits_dtype)
        nbytes, told = DTYPES[held.spec.dtype].bits // 8, False
        for index in range(chunk_count(spec, self._base.chunk)):
            start, stop = chunk_span(spec, index, self._base.chunk)
            raw = bytearray((stop - start) * nbytes)
            self._view.read_held(held, start * nbytes, raw)
            given = casts.widen(np.frombuffer(raw, f"<u{nbytes}"), held.spec.dtype)
            found = _of_blocks(casts.widen(self._chunks.read(spec, index, own), spec.dtype), given)
            if (found < _PROVEN).any():
                return False
            told |= bool((found >= _PROVEN).any())
        return told

    def strangers(self, pairs: Iterable[tuple[TensorSpec, Held]]) -> list[str]:
        """The tensors of the base that are unlike their partners, as the other pairs are not.

        A whole tensor or some rows or columns may stand in another order, or it may be shifted or scaled, or
        stand under another's name. If most pairs are unlike, the fine-tune moved far, and nothing tells.
        """
        kinds: defaultdict[str, list[tuple[TensorSpec, Held]]] = defaultdict(list)
        short: list[tuple[TensorSpec, Held]] = []
        for spec, held in pairs:
            if self._can_tell(spec, held):
                kinds[pattern(spec.name)].append((spec, held))
            elif spec.merged and spec.elements and DTYPES[held.spec.dtype].is_float:
                short.append((spec, held))
        most = max(2, _MEASURED // max(1, len(kinds)))
        chosen = [pair for members in kinds.values() for pair in members[:: 1 + len(members) // most]]
        matrices = [pair for pair in chosen if len(pair[0].shape) > 1 and pair[0].elements >= _TELLING]
        alike = {spec.name: self._measure(spec, held) for spec, held in matrices}
        known = [each for each in alike.values() if each is not None]
        usual = max(self._usual, float(np.median(known)) if known else 0.0)
        if (known or self._told) and usual <= _ALIKE:
            return []
        samples = {spec.name: self._sample(spec, held) for spec, held in matrices}
        scales = {name: sample.scale for name, sample in samples.items()}
        scale = float(np.median([*scales.values()])) if scales else 1.0
        found = [
            name
            for name, sample in samples.items()
            if ((measured := alike[name]) is not None and measured < usual / 2)
            or not 1 / _SCALED < sample.scale / (scale or 1.0) < _SCALED
            or (not is_shared(name) and sample.is_mixed())
        ]
        vectors = [pair for pair in chosen if len(pair[0].shape) == 1]
        found += strange_vectors([(spec, *self._read(spec, held, 0)) for spec, held in vectors])
        return found + swapped([(spec, *self._read(spec, held, 0)) for spec, held in short])

    def misplaced(self, pairs: Iterable[tuple[TensorSpec, Held]]) -> tuple[str, str, str] | None:
        """A tensor of the checkpoint that is unlike its own one of the base, and like one of another layer.

        Its name, that of its own one, and that of the other. Layers may be counted from 1, say.
        """
        kinds: defaultdict[tuple[str, tuple[int, ...]], list[TensorSpec]] = defaultdict(list)
        for spec in self._base.tensors:
            if spec.merged and pattern(spec.name) != spec.name:
                kinds[pattern(spec.name), spec.shape].append(spec)
        most = max(2, _MEASURED // max(1, len(kinds)))
        given: defaultdict[tuple[str, tuple[int, ...]], list[tuple[TensorSpec, Held]]] = defaultdict(list)
        for spec, held in pairs:
            given[pattern(spec.name), spec.shape].append((spec, held))
        for kind, members in given.items():
            for spec, held in members[:: 1 + len(members) // most] if len(kinds[kind]) > 1 else ():
                alike = self._measure(spec, held)
                if alike is None or alike > _ALIKE:
                    continue
                for other in kinds[kind][:_MEASURED]:
                    if self.is_alike(other, held):
                        return held.runs[0].name, spec.name, other.name
        return None

    def any_alike(self, lost: Iterable[TensorSpec], given: Iterable[Held]) -> bool:
        """Whether a tensor of the checkpoint surely is one of the base, of some of either."""
        largest = sorted(lost, key=lambda spec: -spec.elements)[:_PAIRED]
        others = sorted(given, key=lambda held: -held.spec.elements)[:_PAIRED]
        return any(
            self.is_alike(spec, held) for spec in largest for held in others if held.spec.shape == spec.shape
        )

    def _measure(self, spec: TensorSpec, held: Held) -> float | None:
        key = spec.name, held
        if key not in self._measured:
            self._measured[key] = self._correlation(spec, held)
        return self._measured[key]

    def _can_tell(self, spec: TensorSpec, held: Held) -> bool:
        return spec.merged and DTYPES[held.spec.dtype].is_float and spec.elements >= _FEWEST

    def _correlation(self, spec: TensorSpec, held: Held) -> float | None:
        """That of the first elements; None if there are few, or if a side is constant."""
        if not self._can_tell(spec, held):
            return None
        own, given = self._read(spec, held, 0, _MOST)
        count = min(own.size, given.size)
        return correlation(own[:count], given[:count])

    def _read(
        self, spec: TensorSpec, held: Held, index: int, most: int | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The first `most` elements of a chunk of the base's tensor, and those in their place."""
        own = self._chunks.read(spec, index, np.empty(min(spec.units, self._base.chunk), spec.bits_dtype))
        start, stop = chunk_span(spec, index, self._base.chunk)
        count = max(0, min(stop, held.spec.elements) - start)
        count = count if most is None else min(count, most)
        nbytes = DTYPES[held.spec.dtype].bits // 8
        raw = bytearray(count * nbytes)
        self._view.read_held(held, start * nbytes, raw)
        given = np.frombuffer(raw, f"<u{nbytes}")
        return casts.widen(own[:count], spec.dtype), casts.widen(given, held.spec.dtype)

    def _sample(self, spec: TensorSpec, held: Held) -> Sample:
        """Rows of the first and of the last chunk of a matrix."""
        width = spec.shape[-1]
        parts: list[list[NDArray[np.float64]]] = [[], []]
        for index in sorted({0, chunk_count(spec, self._base.chunk) - 1}):
            start = chunk_span(spec, index, self._base.chunk)[0]
            for part, values in zip(parts, self._read(spec, held, index), strict=True):
                values = values[-start % width :]
                rows = values[: values.size // width * width].reshape(-1, width)
                part.append(rows[:: 1 + len(rows) // _ROWS])
        own, given = (np.concatenate(part) for part in parts)
        return Sample(own, given)


def _surely(spec: TensorSpec) -> float:
    """The correlation from which on two tensors are alike by no chance."""
    return max(0.5, 4 / math.sqrt(max(1, spec.elements)))


def _of_blocks(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """The correlation of each block; NaN if the first side is constant in it, 0 if only the other is."""
    other = np.where(np.isfinite(one) & np.isfinite(other), other, 0)
    one = np.where(np.isfinite(one), one, 0)
    count = one.size // _BLOCK * _BLOCK
    found = [of_rows(one[:count].reshape(-1, _BLOCK), other[:count].reshape(-1, _BLOCK))]
    if one.size > count and one.size >= _SHORTEST:
        found.append(of_rows(one[None, -_BLOCK:], other[None, -_BLOCK:]))
    return np.concatenate(found)


def correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """Pearson's correlation of the finite elements; None if a side is constant."""
    finite = np.isfinite(one) & np.isfinite(other)
    one, other = one[finite], other[finite]
    if not one.size:
        return None
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((one * one).sum() * (other * other).sum()))
    return float((one * other).sum()) / norm if norm > 0 else None
