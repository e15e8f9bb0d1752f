"""The tensors of an adapter as factors and dense tensors of a base."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np

from persona.errors import InvalidInput
from persona.frozen import dataclass
from persona.intake.adapter_config import MERGE_FIRST, AdapterConfig
from persona.intake.adapter_names import Names, unwrapped
from persona.intake.adapter_refusals import misfit, unmatched, wrong_shape
from persona.intake.adapter_ties import changed_twice, changing_both
from persona.intake.checks import check_pair
from persona.intake.choices import Choices
from persona.intake.experts import Target, stack_of_experts
from persona.intake.factor_layouts import Layout, Turn, layouts
from persona.intake.growth import holding, longer
from persona.intake.planned import PlannedAdapter, PlannedDense, PlannedFactor
from persona.objects.base import Base
from persona.objects.tensors import TensorSpec, sort_key
from persona.objects.vector import FACTOR_DTYPES, LowRankFactor
from persona.weights.adapters import Adapter, Place, place_of
from persona.weights.tied import is_shared


@dataclass(frozen=True)
class _Pair:
    """The A and B of one module or parameter of the adapter, and the bias of B if it has one."""

    module: str
    a: str
    b: str
    bias: str | None
    embedding: bool


@dataclass(frozen=True)
class _Reading:
    """A tensor of the base for a pair, the layouts that fit, and the path by which PEFT finds its scale."""

    pair: _Pair
    path: str
    target: Target
    layouts: tuple[Layout, ...]

    @property
    def spec(self) -> TensorSpec:
        """The tensor, or the stack of tensors."""
        return self.target.spec


def plan_adapter(base: Base, adapter: Adapter, config: AdapterConfig, choices: Choices) -> PlannedAdapter:
    """Finds a tensor of the base for every tensor of an adapter.

    Raises `InvalidInput` that lists every name without a match, or names the tensor that does not fit.
    """
    return _Planner(base, adapter, config, choices).plan()


class _Planner:
    def __init__(self, base: Base, adapter: Adapter, config: AdapterConfig, choices: Choices) -> None:
        self.base = base
        self.adapter = adapter
        self.config = config
        self.choices = choices
        self.names = Names(base, adapter.path)
        self.factors: dict[str, PlannedFactor] = {}
        self.dense: dict[str, PlannedDense] = {}
        self.frozen: list[PlannedDense] = []
        self.strays: list[PlannedDense] = []
        self.unknown: list[str] = []

    def plan(self) -> PlannedAdapter:
        pairs, others = self._sorted()
        readings = [reading for group in pairs.values() for reading in self._readings(group)]
        for reading in readings:
            self._add_factor(reading, self._chosen(reading, readings))
        for name, place in others:
            if place.role == "tokens":
                self._add_tokens(name, place)
            else:
                self._add_whole(name, place)
        self._drop_copies()
        if self.unknown:
            raise unmatched(self.adapter.path, self.base, self.unknown, self.config.trained_on)
        for name in [name for name in self.factors if name in self.dense]:
            if self.dense[name].tokens is not None:
                both = f"{self.factors[name].b} and {self.dense[name].source.name}"
                raise self._twice(f"{both} both change the tensor", name)
            self.frozen.append(self.dense.pop(name))
        for one in self.dense.values():
            if one.tokens is None:
                check_pair(one.spec, one.source, self.adapter.path, self.choices.cast)
        return PlannedAdapter(
            tuple(sorted(self.factors.values(), key=lambda one: sort_key(one.spec.name))),
            tuple(sorted(self.dense.values(), key=lambda one: sort_key(one.spec.name))),
            tuple(self.frozen),
            tuple(self._notes()),
        )

    def _sorted(self) -> tuple[dict[str, list[_Pair]], list[tuple[str, Place]]]:
        """The pairs by module, and the tensors that the adapter holds whole."""
        roles: defaultdict[tuple[str, int], dict[str, str]] = defaultdict(dict)
        others: list[tuple[str, Place]] = []
        replaced: list[tuple[str, Place]] = []
        for name in self.adapter.tensors:
            if any(part in name for part in self.config.ignored):
                continue
            place = place_of(name)
            if place.role in ("whole", "tokens"):
                others.append((name, place))
            elif place.role == "replaced":
                replaced.append((name, place))
            elif place.role in ("unknown", "a bias"):
                self.unknown.append(name)
            else:
                held = roles[place.module, place.depth]
                if place.role in held:
                    raise self._wrong(
                        f"{name} and {held[place.role]} belong to two adapters in one file; save each adapter"
                        " to a directory of its own"
                    )
                held[place.role] = name
        trained = {place.module.rpartition(".")[0] for _, place in others}
        self.unknown += [name for name, place in replaced if place.module.rpartition(".")[0] not in trained]
        pairs: defaultdict[str, list[_Pair]] = defaultdict(list)
        for (module, _), held in roles.items():
            embedding = "embedding a" in held or "embedding b" in held
            a, b = (held.get(f"embedding {letter}" if embedding else letter) for letter in "ab")
            if a is None or b is None:
                alone = a or b or next(iter(held.values()))
                raise self._wrong(f"{alone} has no counterpart; download or save the adapter again")
            pairs[module].append(_Pair(module, a, b, held.get("b bias"), embedding))
        return pairs, others

    # -- factors

    def _readings(self, group: list[_Pair]) -> Sequence[_Reading]:
        """The tensors of one module: its weight, or the parameters that PEFT wrapped one by one."""
        module = group[0].module
        wrapped = {
            f"{module}.{parameter.rpartition('.')[2]}": None
            for parameter in self.config.parameters
            if f".{module}.{parameter.rpartition('.')[2]}".endswith(f".{parameter}")
        }
        specs = self._targets(wrapped)
        keys = list(wrapped) if specs else [f"{module}.weight"]
        if not specs:  # a parameter without a path, as PEFT writes for all-linear, is one of any module
            specs = [(module, target) for _, target in self._targets(keys)]
        if not specs and self.names.find(f"{module}.in_proj_weight") is not None:
            raise self._wrong(
                f"{module} is a MultiheadAttention, whose output projection PEFT adapts twice when it merges;"
                " adapt layers of another kind"
            )
        if len(specs) < len(group):
            self.unknown += [name for pair in group for name in (pair.a, pair.b)]
            return ()
        ways = [
            [self._reading(pair, *given) for pair, given in zip(group, way, strict=True)]
            for way in permutations(specs, len(group))
        ]
        fits = [way for way in ways if all(reading.layouts for reading in way)]
        if not fits:
            raise self._misfit(next(reading for reading in ways[0] if not reading.layouts))
        if len(fits) > 1:
            raise self._wrong(
                f"the factors of {module} fit several of its parameters ({', '.join(keys)}), and the adapter"
                " does not say which",
                merge=True,
            )
        return fits[0]

    def _targets(self, keys: Iterable[str]) -> list[tuple[str, Target]]:
        return [(key, target) for key in keys if (target := self._target(key)) is not None]

    def _target(self, key: str) -> Target | None:
        """The tensor that the adapter calls `key`, or the stack of the base's experts."""
        spec = self.names.find(key)
        return stack_of_experts(key, self.names.find) if spec is None else Target(spec)

    def _reading(self, pair: _Pair, path: str, target: Target) -> _Reading:
        a, b = self.adapter.tensors[pair.a], self.adapter.tensors[pair.b]
        found = layouts(target.spec, a, b, embedding=pair.embedding, packing=self.config.experts_layout)
        if target.pieces:  # the base's own tensors are [out, in]
            found = [layout for layout in found if not layout.transposed]
        return _Reading(pair, path, target, tuple(found))

    def _chosen(self, reading: _Reading, readings: Sequence[_Reading]) -> Layout:
        """The layout of a factor. Two fit a square matrix, [out, in] and [in, out].

        Other matrices of the same name decide, else the config, if no other matrix contradicts it.
        """
        if len(reading.layouts) == 1:
            return reading.layouts[0]
        name = reading.spec.name
        if reading.layouts[0].blocks > 1:
            raise self._wrong(
                f"the experts of {name} are square, so their shape does not say whether they are [in, out] or"
                " [out, in]",
                merge=True,
            )
        others = [
            other
            for other in readings
            if len(other.layouts) == 1 and other.layouts[0].blocks == 1 and not other.pair.embedding
        ]
        last = reading.path.rpartition(".")[2]
        alike = {one.layouts[0].transposed for one in others if one.path.rpartition(".")[2] == last}
        said = self.config.fan_in_fan_out
        if len(alike) == 1:
            (said,) = alike
        elif {other.layouts[0].transposed for other in others} - {said}:
            raise self._wrong(
                f"the matrix {name} is square, so its shape does not say whether it is [in, out] or"
                f" [out, in], and other matrices contradict fan_in_fan_out of {self.config.where}",
                merge=True,
            )
        return next(layout for layout in reading.layouts if layout.transposed == said)

    def _add_factor(self, reading: _Reading, layout: Layout) -> None:
        pair, spec = reading.pair, reading.spec
        path = unwrapped(reading.path)
        given = self.config.rank_of(path)
        if given != layout.rank:
            raise self._wrong(
                f"{pair.a} has the rank {layout.rank}, but {self.config.where} gives it {given}; download or"
                " save the adapter again"
            )
        if layout.blocks > 1 and layout.rank > 1 and self.config.experts_layout is None:
            raise self._wrong(
                f"{pair.b} holds stacked experts, and trainers pack them in two ways; add to"
                f' {self.config.where} "lora_B_layout": "rank_major" (PEFT, and Unsloth since September 2026)'
                ' or "grouped_by_expert" (Unsloth before)'
            )
        scale = self.config.scale_of(path, layout.rank)
        if scale != self.config.scale_of(reading.path, layout.rank):
            raise self._wrong(
                f"{pair.a} has the name of a wrapped module, and {self.config.where} gives {path} another"
                f" scale than {reading.path}; save the adapter from the model without its wrapper"
            )
        dtype, pieces = self._dtype(pair.a, pair.b), reading.target.pieces
        factor = LowRankFactor(layout.rank, scale, dtype, 1 if pieces else layout.blocks)
        if not pieces:
            self._put(PlannedFactor(spec, factor, pair.a, pair.b, layout.turn))
        for part, piece in pieces:
            self._put(PlannedFactor(part, factor, pair.a, pair.b, layout.turn, piece))
        if pair.bias is not None:
            self._add_bias(pair.bias, f"{pair.module}.bias", scale)

    def _add_bias(self, name: str, key: str, scale: str) -> None:
        """The bias of a `lora_B`: t = s·bias, a factor of rank 1 whose A is 1."""
        spec, given = self.names.find(key), self.adapter.tensors[name]
        if spec is None:
            raise self._wrong(
                f"{name} changes a bias, but the base has no {key}; PEFT cannot merge this adapter either"
            )
        if given.shape != spec.shape or len(spec.shape) != 1:
            raise wrong_shape(self.adapter.path, given, spec)
        factor = LowRankFactor(1, scale, self._dtype(name))
        turn: Turn = lambda a, b: (a.reshape(1, 1, 1), b.reshape(1, -1, 1))  # noqa: E731
        self._put(PlannedFactor(spec, factor, None, name, turn))

    def _put(self, planned: PlannedFactor) -> None:
        name = planned.spec.name
        self._check_merged(planned.spec, planned.b)
        if name in self.factors:
            raise self._twice(f"{self.factors[name].b} and {planned.b} both change the tensor", name)
        self.factors[name] = planned

    def _dtype(self, *names: str) -> str:
        """The dtype that holds all of these tensors."""
        given = {name: self.adapter.tensors[name].dtype for name in names}
        for name, dtype in given.items():
            if dtype not in FACTOR_DTYPES:
                raise self._wrong(f"{name} has the dtype {dtype}; save it as BF16, F16 or F32")
        return given[names[0]] if len(set(given.values())) == 1 else "F32"

    # -- dense tensors

    def _add_whole(self, name: str, place: Place) -> None:
        target, source = self._target(place.module), self.adapter.tensors[name]
        if target is None:
            self.unknown.append(name)
            self.strays.append(PlannedDense(replace(source, name=place.module), source))
            return
        spec = longer(target.spec, source, self.adapter.path, take=self.choices.extend_vocab)
        check_pair(spec, source, self.adapter.path, cast=True)
        alias = self.names.tied.get(place.module)
        if alias is not None and self.choices.untie:
            spec, alias = replace(spec, name=alias), None
        if not target.pieces:
            self._put_whole(PlannedDense(spec, source, alias, apart=self.config.copies(place.module)))
        for part, (block, start, _) in target.pieces:
            _, rows, columns = spec.shape
            own = TensorSpec(name, source.dtype, part.shape)
            self._put_whole(PlannedDense(part, own, first=(block * rows + start) * columns))

    def _put_whole(self, planned: PlannedDense) -> None:
        spec, source = planned.spec, planned.source
        self._check_merged(spec, source.name)
        held = self.dense.get(spec.name)
        if held is None:
            self.dense[spec.name] = planned
        elif held.tokens is not None:
            self.frozen.append(planned)
        elif not self._equal(held, planned):
            said = f"{held.source.name} and {source.name} differ, and both are"
            raise self._twice(said, spec.name, held.alias or planned.alias)
        else:
            self.dense[spec.name] = replace(planned if held.alias is not None else held, apart=False)

    def _drop_copies(self) -> None:
        """Drops embeddings and heads whose names the base does not have, if they equal one that it has.

        PEFT saves a tensor under every name of the model if it keeps them tied (`ensure_weight_tying`).
        """
        for stray in self.strays:
            if not is_shared(stray.spec.name):
                continue
            for name, held in self.dense.items():
                if is_shared(name) and self._equal(held, stray):
                    self.dense[name] = replace(held, apart=False)
                    self.unknown.remove(stray.source.name)
                    break

    def _equal(self, one: PlannedDense, other: PlannedDense) -> bool:
        if (one.source.dtype, one.source.shape, one.tokens) != (
            other.source.dtype,
            other.source.shape,
            other.tokens,
        ):
            return False
        first, second = (np.empty(one.source.nbytes, np.uint8) for _ in range(2))
        self.adapter.read_into(one.source.name, one.first_byte, first.data)
        self.adapter.read_into(other.source.name, other.first_byte, second.data)
        return np.array_equal(first, second)

    def _add_tokens(self, name: str, place: Place) -> None:
        spec, source = self.names.find(f"{place.module}.weight"), self.adapter.tensors[name]
        if spec is None:
            self.unknown.append(name)
            return
        found = [
            indices
            for end, indices in self.config.tokens.items()
            if not end or f".{place.module}".endswith(f".{end}")
        ]
        if len(found) != 1:
            raise self._wrong(f"{self.config.where} does not say which tokens {name} holds")
        tokens = tuple(found[0])
        if len(spec.shape) != 2 or source.shape != (len(tokens), spec.shape[1]):
            raise wrong_shape(self.adapter.path, source, spec)
        spec = holding(spec, tokens, self.config.where, take=self.choices.extend_vocab)
        check_pair(spec, TensorSpec(name, source.dtype, spec.shape), self.adapter.path, self.choices.cast)
        self._check_merged(spec, name)
        planned, held = PlannedDense(spec, source, tokens=tokens), self.dense.get(spec.name)
        if held is not None and held.tokens is None:
            self.frozen.append(held)
        elif held is not None and not self._equal(held, planned):
            raise self._twice(f"{held.source.name} and {name} differ, and both are", spec.name)
        self.dense[spec.name] = planned

    # -- sentences

    def _wrong(self, text: str, *, merge: bool = False) -> InvalidInput:
        return InvalidInput(f"{self.adapter.path}: {text}", hint=MERGE_FIRST if merge else None)

    def _twice(self, said: str, name: str, alias: str | None = None) -> InvalidInput:
        said, as_one = f"{self.adapter.path}: {said}", self.config.as_one
        return changed_twice(self.base, said, name, alias=alias, one_change=as_one)

    def _check_merged(self, spec: TensorSpec, name: str) -> None:
        if not spec.merged or not spec.elements:
            raise self._wrong(
                f"{name} changes the tensor {spec.name} of dtype {spec.dtype}; only BF16, F16 and F32 tensors"
                " can change in a vector"
            )

    def _misfit(self, reading: _Reading) -> InvalidInput:
        pair = reading.pair
        a, b = (self.adapter.tensors[name] for name in (pair.a, pair.b))
        return misfit(self.adapter.path, reading.spec, a, b, embedding=pair.embedding)

    def _notes(self) -> list[str]:
        said: list[str] = []
        if self.names.remapped:
            said.append("the adapter names the parts of the model with another prefix than the base")
        if self.names.wrappers:
            parts = ", ".join(f"{part}." for part in sorted(self.names.wrappers))
            said.append(f"stripped from the names of the adapter: {parts}")
        dense = {name for name, one in self.dense.items() if not one.apart}
        alone = {name for name in self.factors if name not in self.dense or name in dense}
        ties = {alias: name for alias, name in self.base.tied.items() if alias not in self.dense}
        return [*said, *changing_both(ties, alone, dense)]
