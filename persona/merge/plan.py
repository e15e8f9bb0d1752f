"""**plan** — what a checkout has to do for each tensor, decided from manifests: no chunk is read.

A term reaches a tensor if its filter admits the tensor and its vector changed it.

**way** — how a tensor gets its bytes:

* ``base``: no term reaches it, so it has the base's own bytes;
* ``lone``: one vector owns it (docs/numerics.md), so it has the fine-tune's own bytes;
* ``merge``: everything else.

**key** — a digest of everything that decides a tensor's bytes, the version of the arithmetic included.

Two tensors with one key are equal, so a checkout may reuse a tensor whose key did not change.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import cached_property

from blake3 import blake3

from persona.codec.floats import in_default_environment
from persona.errors import IntegrityError, InvalidInput
from persona.frozen import dataclass
from persona.objects import canonical
from persona.objects.base import Base
from persona.objects.ids import abbreviate
from persona.objects.recipe import Recipe, Term, to_binary32
from persona.objects.rules import NUMERICS
from persona.objects.table import Table, decode_table, decode_vector_table
from persona.objects.tensors import TensorSpec, chunk_count
from persona.objects.vector import Vector
from persona.store.store import Store


@dataclass(frozen=True)
class TensorPlan:
    """One tensor: its way, the indices of the terms that reach it in canonical order, and its key.

    `admitted` counts the terms whose filters admit it, whether they changed it or not.
    """

    spec: TensorSpec
    way: str
    terms: tuple[int, ...]
    admitted: int
    key: str


@dataclass(frozen=True)
class Plan:
    """A recipe joined with its base and vectors, tensor by tensor in byte order of names."""

    store: Store
    recipe: Recipe
    base: Base
    base_table: Table
    vectors: Mapping[str, Vector]
    tables: Mapping[str, Table]
    tensors: tuple[TensorPlan, ...]

    @cached_property
    def by_name(self) -> dict[str, TensorPlan]:
        """The tensors by name."""
        return {tensor.spec.name: tensor for tensor in self.tensors}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.spec.nbytes for tensor in self.tensors)

    def chunks(self, tensor: TensorPlan) -> int:
        """How many chunks a tensor has."""
        return self.chunks_of(tensor.spec)

    def chunks_of(self, spec: TensorSpec) -> int:
        """How many chunks a tensor of the base has."""
        return chunk_count(spec, self.base.chunk)


@in_default_environment
def plan(store: Store, recipe: Recipe, base: Base, vectors: Mapping[str, Vector]) -> Plan:
    """The plan of a recipe. `vectors` holds the manifest of every term's vector, by id.

    Raises `InvalidInput` for a vector of another base or of a kind or rule that cannot be computed,
    `IntegrityError` for manifests that contradict each other.
    """
    _check(recipe, base, vectors)
    base_table = decode_table(
        store.objects.get(base.table, "table"), base.tensors, base.chunk, "the base's table"
    )
    tables = {id: _vector_table(store, base, id, vector) for id, vector in vectors.items()}
    terms = recipe.terms
    admits = [_admitting(term) for term in terms]
    unfiltered = all(not term.only and not term.except_ for term in terms)
    everything = tuple(range(len(terms)))
    ways: dict[tuple[tuple[int, ...], int], tuple[str, bytes]] = {}
    tensors: list[TensorPlan] = []
    for spec in base.tensors:
        admitted: tuple[int, ...] = ()
        if spec.merged:
            admitted = everything if unfiltered else tuple(i for i in everything if admits[i](spec.name))
        reaching = tuple(i for i in admitted if spec.name in tables[terms[i].vector])
        way_and_seed = ways.get((reaching, len(admitted)))
        if way_and_seed is None:
            way_and_seed = ways[reaching, len(admitted)] = _way(recipe, base, reaching, len(admitted))
        way, seed = way_and_seed
        key = blake3(seed + spec.name.encode()).hexdigest()
        tensors.append(TensorPlan(spec, way, reaching, len(admitted), key))
    return Plan(store, recipe, base, base_table, vectors, tables, tuple(tensors))


def _way(recipe: Recipe, base: Base, reaching: tuple[int, ...], admitted: int) -> tuple[str, bytes]:
    """The way of the tensors that these terms reach, and the start of their keys."""
    if not reaching:
        return "base", _seed(["base", base.digest])
    terms = [recipe.terms[index] for index in reaching]
    rules = recipe.rules
    lambda_ = to_binary32(rules.lambda_)
    if len(terms) == 1 and terms[0].alpha32 == 1.0 and lambda_ == 1.0 and not recipe.trims(terms[0]):
        return "lone", _seed(["lone", base.digest, terms[0].vector])
    axes = {axis: value for axis, value in rules.axes().items() if axis not in ("density", "lambda")}
    effects = [_effect(recipe, term) for term in terms]
    whole = [
        admitted if rules.trim == "joint" else None,
        [[*_effect(recipe, term), list(term.only), list(term.except_)] for term in recipe.terms]
        if rules.on_tie == "majority"
        else None,
    ]
    return "merge", _seed(["merge", base.digest, axes, _hex32(lambda_), effects, whole])


def _effect(recipe: Recipe, term: Term) -> list[object]:
    """The values of a term that decide its effect on a tensor."""
    density = recipe.density_of(term) if recipe.trims(term) else None
    return [term.vector, _hex32(term.alpha32), density, term.join]


def _seed(value: list[object]) -> bytes:
    return blake3(canonical.encode([NUMERICS, *value])).digest()


def _hex32(value: float) -> str:
    return struct.pack(">f", value).hex()


def _admitting(term: Term) -> Callable[[str], bool]:
    return term.admits if term.only or term.except_ else lambda _name: True


def _vector_table(store: Store, base: Base, id: str, vector: Vector) -> Table:
    if vector.table is None or vector.chunk != base.chunk:
        raise IntegrityError(
            f"vector {abbreviate(id)} and its base must have chunks of one length", kind="vector", id=id
        )
    for spec in vector.tensors:
        if base.spec.get(spec.name) != spec:
            raise IntegrityError(
                f"vector {abbreviate(id)} changes the tensor {spec.name}, which its base lacks",
                kind="vector",
                id=id,
            )
    return decode_vector_table(store.objects.get(vector.table, "table"), vector, f"vector {abbreviate(id)}")


def _check(recipe: Recipe, base: Base, vectors: Mapping[str, Vector]) -> None:
    for term in recipe.terms:
        vector = vectors[term.vector]
        if vector.base != base.digest:
            raise InvalidInput(
                f"vector {term.name} ({abbreviate(term.vector)}) belongs to the base with weights"
                f" {vector.base}, not to this recipe's base with weights {base.digest}:"
                " import its fine-tune against this base"
            )
        if vector.kind != "delta":
            raise InvalidInput(
                f"vector {term.name} is of kind {vector.kind}, which this persona cannot merge;"
                " install a newer one"
            )
