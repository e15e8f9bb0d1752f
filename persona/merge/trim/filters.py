"""The row filters of a plan: breadcrumbs, DARE and DELLA.

A filter belongs to a term and a tensor. The numbers that need a pass over the rows are found first, exactly,
and kept in the cache (`densities.CACHE`): the bounds of breadcrumbs for a density, the sizes of the changes
for DELLA, which serve every density, and the factors of `rescale = norm` for a density and a seed. A filter
itself is made when its tensor is merged.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

import numpy as np
from blake3 import blake3

from persona.frozen import dataclass
from persona.merge.arithmetic.filters import ElementFilter
from persona.merge.plan import Plan, TensorPlan
from persona.merge.rows.source import Source
from persona.merge.rules import MergeRules, draw_key, norm_factor
from persona.merge.trim import breadcrumbs, dare, della
from persona.merge.trim.densities import CACHE
from persona.merge.trim.walk import Walk, for_each_tensor, reached
from persona.objects import canonical
from persona.objects.tensors import TensorSpec
from persona.progress import Progress

_MADE: Final = 64
"""Filters that stay made. One of DELLA has up to some hundred kB."""
_BOUNDS: Final = struct.Struct("<II")
_FACTOR: Final = struct.Struct("<f")
_LENGTH: Final = struct.Struct("<I")
_UNKNOWN: Final = 0xFFFFFFFF

Found = TypeVar("Found")
Where = tuple[str, float]
"""The identity of a vector, and a density."""
Wanted = dict[Where, tuple[Source, set[str]]]
Values = Mapping[Where, Mapping[str, Any]]
"""By vector and density, then by tensor."""


class RowFilters:
    """The filters of a plan's terms. Thread-safe."""

    def __init__(self, plan: Plan, found: Values, factors: Values) -> None:
        """`found`: `Bounds` or `Sizes`. `factors`: of `rescale = norm`."""
        self._plan = plan
        self._rules = MergeRules.of(plan.recipe.rules)
        self._found = found
        self._factors = factors
        self._of = lru_cache(_MADE)(self._make)

    def of(self, spec: TensorSpec, term: int) -> ElementFilter | None:
        """The filter of a term at a tensor that it reaches; None if its rows are merged as they are."""
        if self._plan.by_name[spec.name].density_of[term] == 1.0:
            return None
        return self._of(spec, term)

    def _make(self, spec: TensorSpec, term: int) -> ElementFilter:
        where = self._plan.sources[term].identity, self._plan.by_name[spec.name].density_of[term]
        made = _filter_of(self._rules, spec, where, self._found)
        return replace(made, factor=self._factors[where][spec.name]) if self._factors else made


def _filter_of(rules: MergeRules, spec: TensorSpec, where: Where, found: Values) -> ElementFilter:
    """The filter of a vector at a tensor, without the factor of `rescale = norm`."""
    (vector, density), name = where, spec.name
    words = [rules.trim, rules.rank or "", rules.rescale, rules.seed]
    numbers = [number.hex() for number in (density, rules.gamma, rules.epsilon)]
    identity = blake3(canonical.encode([vector, name, *words, *numbers])).hexdigest()[:32]
    if rules.trim == "breadcrumbs":
        return breadcrumbs.filter_of(identity, found[where][name])
    key, divide = draw_key(rules.seed, vector, name), rules.rescale == "true"
    if rules.trim == "dare":
        return dare.filter_of(identity, density, rescale=divide, key=key)
    sizes, epsilon = found[where][name], rules.epsilon
    return della.filter_of(identity, sizes, spec.elements, density, epsilon, rescale=divide, key=key)


def find_filters(
    plan: Plan, tensors: Iterable[TensorPlan], threads: int, progress: Progress | None
) -> RowFilters:
    """The filters for the merge of these tensors. Reads chunks only for values that no cache holds."""
    rules = MergeRules.of(plan.recipe.rules)
    wanted: Wanted = {}
    for tensor in tensors:
        for term, density in tensor.density_of.items():
            if density < 1.0:
                source = plan.sources[term]
                wanted.setdefault((source.identity, density), (source, set()))[1].add(tensor.spec.name)
    found: Values = {}
    if rules.trim == "breadcrumbs":
        found = _bounds(plan, rules, wanted, threads, progress)
    elif rules.trim == "della":
        found = _sizes(plan, wanted, threads, progress)
    factors: Values = {}
    if rules.rescale == "norm":
        factors = _factors(plan, rules, wanted, found, threads, progress)
    return RowFilters(plan, found, factors)


def _bounds(
    plan: Plan, rules: MergeRules, wanted: Wanted, threads: int, progress: Progress | None
) -> dict[Where, dict[str, breadcrumbs.Bounds]]:
    """The bounds of breadcrumbs."""
    rank, gamma = rules.rank or "", rules.gamma

    def searching(source: Source, density: float) -> Callable[[TensorPlan, Walk], breadcrumbs.Bounds]:
        def search(tensor: TensorPlan, walk: Walk) -> breadcrumbs.Bounds:
            selection = breadcrumbs.search(rank, density, gamma, tensor.spec.elements)
            selection.high = walk.high(tensor.spec, [source])
            if selection.open_bins():
                selection.low = walk.low(tensor.spec, [source], selection)
            return breadcrumbs.bounds(selection)

        return search

    found = {}
    for (id, density), (source, names) in wanted.items():
        settings = f"breadcrumbs-{rank}-{density!r}-{gamma!r}"
        kind = _Kind(settings, _encode_bounds, _decode_bounds, searching(source, density))
        found[id, density] = kind.values(plan, source, names, threads, progress)
    return found


def _sizes(
    plan: Plan, wanted: Wanted, threads: int, progress: Progress | None
) -> dict[Where, dict[str, della.Sizes]]:
    """The sizes of the changes for DELLA."""
    by_vector: dict[str, tuple[Source, set[str]]] = {}
    for (id, _), (source, names) in wanted.items():
        by_vector.setdefault(id, (source, set()))[1].update(names)

    def counting(source: Source) -> Callable[[TensorPlan, Walk], della.Sizes]:
        return lambda tensor, walk: _sparse(walk.high(tensor.spec, [source]))

    found = {}
    for id, (source, names) in by_vector.items():
        kind = _Kind("sizes", _encode_sizes, _decode_sizes, counting(source))
        found[id] = kind.values(plan, source, names, threads, progress)
    return {(id, density): found[id] for id, density in wanted}


def _factors(
    plan: Plan, rules: MergeRules, wanted: Wanted, sizes: Values, threads: int, progress: Progress | None
) -> dict[Where, dict[str, float]]:
    """The factors of `rescale = norm`. `sizes`: of DELLA."""

    def adding(source: Source, where: Where) -> Callable[[TensorPlan, Walk], float]:
        def add(tensor: TensorPlan, walk: Walk) -> float:
            row_filter = _filter_of(rules, tensor.spec, where, sizes)
            every, kept = walk.masses(tensor.spec, source, row_filter)
            return norm_factor(every.units, kept.units)

        return add

    found = {}
    for (id, density), (source, names) in wanted.items():
        settings = f"norm-{rules.trim}-{density!r}-{rules.epsilon!r}-{rules.seed}"
        kind = _Kind(settings, _encode_factors, _decode_factors, adding(source, (id, density)))
        found[id, density] = kind.values(plan, source, names, threads, progress)
    return found


def _sparse(counts: Any) -> della.Sizes:
    upper = np.flatnonzero(counts)
    return upper.astype(np.uint16), counts[upper]


@dataclass(frozen=True)
class _Kind(Generic[Found]):
    """Values of the tensors of a vector that are kept in the cache, under the name of their `settings`."""

    settings: str
    encode: Callable[[Mapping[str, Found], Sequence[str]], bytes]
    decode: Callable[[bytes, Sequence[str]], dict[str, Found]]
    find: Callable[[TensorPlan, Walk], Found]

    def values(
        self, plan: Plan, source: Source, names: set[str], threads: int, progress: Progress | None
    ) -> dict[str, Found]:
        """The values of some tensors from the cache; those that it lacks are found and put there."""
        cache = plan.store.cache(f"{CACHE}/{plan.cache_id(source)[:32]}-{self.settings}")
        keys = [spec.name for spec in reached(plan, source)]
        data = cache.read()
        found = {} if data is None else self.decode(data, keys)
        missing = [plan.by_name[name] for name in sorted(names - found.keys())]
        if missing:
            found.update(for_each_tensor(plan, missing, self.find, threads, progress))
            cache.write(self.encode(found, keys))
        return found


def _encode_bounds(found: Mapping[str, breadcrumbs.Bounds], keys: Sequence[str]) -> bytes:
    return b"".join(_BOUNDS.pack(*found.get(key, (0, 0))) for key in keys)


def _decode_bounds(data: bytes, keys: Sequence[str]) -> dict[str, breadcrumbs.Bounds]:
    if len(data) != len(keys) * _BOUNDS.size:
        return {}
    values = _BOUNDS.iter_unpack(data)
    return {key: (low, high) for key, (low, high) in zip(keys, values, strict=True) if low}


def _encode_factors(found: Mapping[str, float], keys: Sequence[str]) -> bytes:
    return b"".join(_FACTOR.pack(found.get(key, 0.0)) for key in keys)


def _decode_factors(data: bytes, keys: Sequence[str]) -> dict[str, float]:
    if len(data) != len(keys) * _FACTOR.size:
        return {}
    values = _FACTOR.iter_unpack(data)
    return {key: factor for key, (factor,) in zip(keys, values, strict=True) if factor != 0.0}


def _encode_sizes(found: Mapping[str, della.Sizes], keys: Sequence[str]) -> bytes:
    parts: list[bytes] = []
    for key in keys:
        if key not in found:
            parts.append(_LENGTH.pack(_UNKNOWN))
            continue
        upper, counts = found[key]
        parts += (_LENGTH.pack(upper.size), upper.astype("<u2").tobytes(), counts.astype("<i8").tobytes())
    return b"".join(parts)


def _decode_sizes(data: bytes, keys: Sequence[str]) -> dict[str, della.Sizes]:
    found: dict[str, della.Sizes] = {}
    at = 0
    for key in keys:
        if at + _LENGTH.size > len(data):
            return {}
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if length == _UNKNOWN:
            continue
        middle, end = at + 2 * length, at + 10 * length
        if end > len(data):
            return {}
        upper, counts = np.frombuffer(data[at:middle], "<u2"), np.frombuffer(data[middle:end], "<i8")
        found[key] = upper.astype(np.uint16), counts.astype(np.int64)
        at = end
    return found if at == len(data) else {}
