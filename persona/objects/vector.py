"""**vector** — the changes of one training run (τ), bound to the weights digest of its base.

There are three kinds. A ``delta`` holds lossless ulp differences in chunks for every changed tensor
(docs/format.md); unchanged tensors are absent. A ``lowrank`` holds an adapter's factors as they came, never
densified. An ``expression`` is a linear combination of other vectors and holds no weights. A vector holds no
provenance, statistics or thresholds, so the same fine-tune imported twice is the same vector.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Any, Final

from persona.errors import IntegrityError
from persona.frozen import dataclass
from persona.limits import CHUNK_ELEMENTS, MAX_TENSORS, MAX_TERMS
from persona.objects import canonical, fields
from persona.objects.base import chunk_elements
from persona.objects.digest import require_digest
from persona.objects.ids import require_id
from persona.objects.tensors import TensorSpec, specs_from_json, specs_to_json

VECTOR_KINDS: Final = ("delta", "lowrank", "expression")


@dataclass(frozen=True)
class LowRankFactor:
    """The factors of one tensor: t = scale · B·A, with `rank` columns; both are tables of raw chunks."""

    rank: int
    scale: str
    dtype: str


@dataclass(frozen=True)
class Vector:
    """The manifest of a vector.

    `tensors`: for `delta` the changed tensors, for `lowrank` those with factors, in byte order of names;
    empty for an `expression`. `table` names their chunks (for `lowrank` A then B of each tensor). `factors`
    is given for `lowrank`, `expression` as ((vector id, canonical decimal coefficient), …) in order of ids
    for an `expression`.
    """

    base: str
    kind: str = "delta"
    chunk: int = CHUNK_ELEMENTS
    tensors: tuple[TensorSpec, ...] = ()
    table: str | None = None
    factors: tuple[LowRankFactor, ...] = ()
    expression: tuple[tuple[str, str], ...] = ()

    @cached_property
    def spec(self) -> dict[str, TensorSpec]:
        """The tensors by name."""
        return {spec.name: spec for spec in self.tensors}

    def encode(self) -> bytes:
        """The canonical payload."""
        value: dict[str, Any] = {"base": self.base, "kind": self.kind}
        if self.kind == "expression":
            value["expression"] = [list(item) for item in self.expression]
        else:
            value |= {"chunk": self.chunk, "table": self.table, "tensors": specs_to_json(self.tensors)}
        if self.kind == "lowrank":
            value["factors"] = [[factor.rank, factor.scale, factor.dtype] for factor in self.factors]
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
        fields.mapping(value, "vector", ("base", "kind", "chunk", "table", "tensors", *more))
        tensors = specs_from_json(value["tensors"], "vector")
        for spec in tensors:
            if not spec.merged or not spec.elements:
                raise IntegrityError(f"vector: tensor {spec.name} of dtype {spec.dtype} cannot have changed")
        if not tensors:
            raise IntegrityError("vector: the list of its tensors must not be empty")
        return cls(
            base=require_digest(value["base"], "vector base"),
            kind=kind,
            chunk=chunk_elements(value["chunk"], "vector chunk"),
            tensors=tensors,
            table=require_id(value["table"], "vector table"),
            factors=_factors(value["factors"], len(tensors)) if more else (),
        )


def _expression(value: object) -> tuple[tuple[str, str], ...]:
    terms: list[tuple[str, str]] = []
    for item in fields.items(value, "vector expression", MAX_TERMS):
        if type(item) is not list or len(item) != 2:
            raise IntegrityError("vector expression: a term must be [vector id, coefficient]")
        terms.append(
            (require_id(item[0], "vector expression"), fields.decimal(item[1], "vector coefficient"))
        )
    if not terms or any(first[0] >= second[0] for first, second in pairwise(terms)):
        raise IntegrityError("vector expression: its terms must be in ascending order of ids")
    return tuple(terms)


def _factors(value: object, count: int) -> tuple[LowRankFactor, ...]:
    factors: list[LowRankFactor] = []
    for item in fields.items(value, "vector factors", MAX_TENSORS):
        if type(item) is not list or len(item) != 3:
            raise IntegrityError("vector factors: a factor must be [rank, scale, dtype]")
        rank = fields.integer(item[0], "vector factor rank", 1, 1 << 20)
        scale = fields.decimal(item[1], "vector factor scale")
        factors.append(
            LowRankFactor(rank, scale, fields.one_of(item[2], "factor dtype", ("BF16", "F16", "F32")))
        )
    if len(factors) != count:
        raise IntegrityError("vector factors: each tensor must have one factor")
    return tuple(factors)
