"""**vector** — the changes of one training run (τ), bound to the weights digest of its base.

There are three kinds. A ``delta`` holds lossless ulp differences in chunks for every changed tensor
(docs/format.md); unchanged tensors are absent. A ``lowrank`` holds the factors of an adapter, never
densified. If an adapter holds a tensor whole, the vector has chunks of a delta for that *dense* tensor. An
``expression`` is a linear combination of other vectors and holds no weights. A vector holds no provenance,
statistics or thresholds, so the same fine-tune imported twice is the same vector.

**factor** — two matrices A and B and a scale s that give the changes of a tensor: t = s·B·A.

A tensor of stacked experts has an A and a B for each expert; its experts are the *blocks* of the factor.

**grown tensor** — a tensor that has more rows in the fine-tune than in the base, or that the base lacks
(`persona.objects.growth`).
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from itertools import pairwise
from math import prod
from typing import Any, Final

from persona.errors import IntegrityError, InvalidInput
from persona.frozen import dataclass
from persona.limits import CHUNK_ELEMENTS, MAX_ELEMENTS, MAX_TENSORS, MAX_TERMS
from persona.objects import canonical, fields
from persona.objects.base import chunk_elements
from persona.objects.digest import require_digest
from persona.objects.ids import require_id
from persona.objects.names import check_tensor_name
from persona.objects.recipe import from_binary32, to_binary32
from persona.objects.rules import MAX_BINARY32
from persona.objects.tensors import TensorSpec, sort_key, specs_from_json, specs_to_json

VECTOR_KINDS: Final = ("delta", "lowrank", "expression")
FACTOR_DTYPES: Final = ("BF16", "F16", "F32")
_MAX_FACTOR_RANK: Final = 1 << 20


@dataclass(frozen=True)
class LowRankFactor:
    """The factor of one tensor: A [blocks, rank, columns], B [blocks, rows, rank], row-major, of `dtype`.

    `scale`: the shortest decimal of s, a finite binary32. A tensor of one block has shape[0] rows, and the
    product of its other dimensions is the number of columns. A tensor of several blocks has shape[0] blocks,
    shape[1] rows, and columns from its other dimensions (docs/numerics.md).
    """

    rank: int
    scale: str
    dtype: str
    blocks: int = 1

    def a(self, spec: TensorSpec) -> TensorSpec:
        """A of the factor of `spec`, as a tensor."""
        return TensorSpec(spec.name, self.dtype, (self.blocks, self.rank, self.columns(spec)))

    def b(self, spec: TensorSpec) -> TensorSpec:
        """B of the factor of `spec`, as a tensor."""
        return TensorSpec(spec.name, self.dtype, (self.blocks, self.rows(spec), self.rank))

    def rows(self, spec: TensorSpec) -> int:
        """Rows of one block of `spec`."""
        return spec.shape[0 if self.blocks == 1 else 1]

    def columns(self, spec: TensorSpec) -> int:
        """Columns of one block of `spec`."""
        return prod(spec.shape[1 if self.blocks == 1 else 2 :])


@dataclass(frozen=True)
class Vector:
    """The manifest of a vector.

    `tensors`: for `delta` the changed tensors, for `lowrank` all that it reaches, in byte order of names;
    empty for an `expression`. `table` names their chunks (`persona.objects.table`). `factors` is given for
    `lowrank`: one for each tensor, None for a dense one. `expression` is given as ((vector id, canonical
    decimal coefficient), …) in order of ids for an `expression`. `grown`: the grown tensors in byte order of
    names, each with its origin: None if its first elements are those of the base's tensor of this name, else
    the tensor that the base has in its place. `grown_table` names the chunks that their deltas are relative
    to.
    """

    base: str
    kind: str = "delta"
    chunk: int = CHUNK_ELEMENTS
    tensors: tuple[TensorSpec, ...] = ()
    table: str | None = None
    factors: tuple[LowRankFactor | None, ...] = ()
    expression: tuple[tuple[str, str], ...] = ()
    grown: tuple[tuple[str, str | None], ...] = ()
    grown_table: str | None = None

    @cached_property
    def spec(self) -> dict[str, TensorSpec]:
        """The tensors by name."""
        return {spec.name: spec for spec in self.tensors}

    @cached_property
    def factor(self) -> dict[str, LowRankFactor]:
        """The factors by the names of their tensors; dense tensors are absent."""
        pairs = zip(self.tensors, self.factors, strict=False)  # a delta has none
        return {spec.name: factor for spec, factor in pairs if factor is not None}

    @cached_property
    def parts(self) -> dict[str, tuple[TensorSpec, TensorSpec]]:
        """A and B of the factors, as tensors, by the names of the tensors that they change."""
        factor, spec = self.factor, self.spec
        return {name: (one.a(spec[name]), one.b(spec[name])) for name, one in factor.items()}

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of the factors, each once, ascending."""
        return tuple(sorted({factor.rank for factor in self.factor.values()}))

    def encode(self) -> bytes:
        """The canonical payload."""
        value: dict[str, Any] = {"base": self.base, "kind": self.kind}
        if self.kind == "expression":
            value["expression"] = [list(item) for item in self.expression]
        else:
            value |= {"chunk": self.chunk, "table": self.table, "tensors": specs_to_json(self.tensors)}
        if self.kind == "lowrank":
            value["factors"] = [
                factor and [factor.rank, factor.scale, factor.dtype, factor.blocks] for factor in self.factors
            ]
        if self.grown:
            value["grown"] = {"table": self.grown_table, "tensors": dict(self.grown)}
        return canonical.encode(value)

    @classmethod
    def decode(cls, data: bytes) -> Vector:
        """The manifest of canonical bytes; `IntegrityError` for anything else."""
        value = canonical.decode(data, "vector")
        kind = fields.one_of(value.get("kind") if type(value) is dict else None, "vector kind", VECTOR_KINDS)
        if kind == "expression":
            fields.mapping(value, "vector", ("base", "kind", "expression"))
            return cls(
                base=require_digest(value["base"], "vector base"),
                kind=kind,
                expression=_expression(value["expression"]),
            )
        more = ("factors",) if kind == "lowrank" else ()
        fields.mapping(value, "vector", ("base", "kind", "chunk", "table", "tensors", *more), ("grown",))
        tensors = specs_from_json(value["tensors"], "vector")
        for spec in tensors:
            if not spec.merged or not spec.elements:
                raise IntegrityError(f"vector: tensor {spec.name} of dtype {spec.dtype} cannot have changed")
        if not tensors:
            raise IntegrityError("vector: the list of its tensors must not be empty")
        grown = {}
        if "grown" in value:
            grown = fields.mapping(value["grown"], "vector grown", ("table", "tensors"))
        vector = cls(
            base=require_digest(value["base"], "vector base"),
            kind=kind,
            chunk=chunk_elements(value["chunk"], "vector chunk"),
            tensors=tensors,
            table=require_id(value["table"], "vector table"),
            factors=_factors(value["factors"], tensors) if more else (),
            grown=_grown(grown["tensors"]) if grown else (),
            grown_table=require_id(grown["table"], "vector grown table") if grown else None,
        )
        for name, _ in vector.grown:
            if name not in vector.spec or name in vector.factor:
                raise IntegrityError(f"vector grown: {name} must be a dense tensor of the vector")
        return vector


def _grown(value: object) -> tuple[tuple[str, str | None], ...]:
    if type(value) is not dict or not value:
        raise IntegrityError("vector grown: its tensors must be a mapping that is not empty")
    for origin in value.values():
        try:
            if origin is not None:
                check_tensor_name(fields.text(origin, "vector grown"))
        except InvalidInput as error:
            raise IntegrityError(f"vector grown: {error.message}") from None
    return tuple(sorted(value.items(), key=lambda item: sort_key(item[0])))


def _expression(value: object) -> tuple[tuple[str, str], ...]:
    terms: list[tuple[str, str]] = []
    for item in fields.items(value, "vector expression", MAX_TERMS):
        if type(item) is not list or len(item) != 2:
            raise IntegrityError("vector expression: a term must be [vector id, coefficient]")
        coefficient = fields.decimal(item[1], "vector coefficient")
        if coefficient == "0" or not _is_shortest(coefficient):
            raise IntegrityError(
                "vector expression: a coefficient must be the shortest decimal of a finite binary32, not 0"
            )
        terms.append((require_id(item[0], "vector expression"), coefficient))
    if not terms or any(first[0] >= second[0] for first, second in pairwise(terms)):
        raise IntegrityError("vector expression: its terms must be in ascending order of ids")
    return tuple(terms)


def _factors(value: object, tensors: tuple[TensorSpec, ...]) -> tuple[LowRankFactor | None, ...]:
    listed = fields.items(value, "vector factors", MAX_TENSORS)
    if len(listed) != len(tensors):
        raise IntegrityError("vector factors: each tensor must have one entry")
    factors = tuple(
        None if item is None else _factor(item, spec) for item, spec in zip(listed, tensors, strict=True)
    )
    if not any(factors):
        raise IntegrityError("vector factors: no tensor has a factor, so the vector must be a delta")
    return factors


def _factor(item: object, spec: TensorSpec) -> LowRankFactor:
    where = f"vector factor of {spec.name}"
    if type(item) is not list or len(item) != 4:
        raise IntegrityError(f"{where}: it must be [rank, scale, dtype, blocks]")
    factor = LowRankFactor(
        rank=fields.integer(item[0], f"{where}: its rank", 1, _MAX_FACTOR_RANK),
        scale=fields.decimal(item[1], f"{where}: its scale"),
        dtype=fields.one_of(item[2], f"{where}: its dtype", FACTOR_DTYPES),
        blocks=fields.integer(item[3], f"{where}: its blocks", 1, MAX_ELEMENTS),
    )
    if not _is_shortest(factor.scale):
        raise IntegrityError(f"{where}: its scale must be the shortest decimal of a finite binary32")
    if factor.blocks > 1 and (len(spec.shape) < 3 or factor.blocks != spec.shape[0]):
        raise IntegrityError(f"{where}: {factor.blocks} blocks do not fit the shape {list(spec.shape)}")
    lines = factor.blocks * factor.rank
    if not spec.shape or lines * max(factor.rows(spec), factor.columns(spec)) >= MAX_ELEMENTS:
        raise IntegrityError(f"{where}: a tensor of shape {list(spec.shape)} has no factor of this rank")
    return factor


@lru_cache(64)
def _is_shortest(decimal: str) -> bool:
    """Whether a canonical decimal is the shortest one of a finite binary32.

    The factors of an adapter have few scales, mostly one.
    """
    number = to_binary32(decimal)
    return abs(number) <= MAX_BINARY32 and from_binary32(number) == decimal
