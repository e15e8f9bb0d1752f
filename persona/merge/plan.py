"""**plan** — what a checkout has to do for each tensor, decided from manifests: no chunk is read.

A term reaches a tensor if its filter admits the tensor and its vector changes it. The source of a term's
vector (`merge.rows.source`) knows that; the plan knows no kind of vector.

**way** — how a tensor gets its bytes:

* ``base``: no term reaches it, so it has the base's own bytes;
* ``lone``: one vector owns it (docs/numerics.md), so it has the fine-tune's own bytes;
* ``merge``: everything else.

**key** — a digest of everything that decides a tensor's bytes, the version of the arithmetic included.

Two tensors with one key are equal, so a checkout may reuse a tensor whose key did not change.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import cached_property
from typing import NamedTuple

from blake3 import blake3

from persona.codec.floats import in_default_environment
from persona.errors import InvalidInput
from persona.frozen import dataclass
from persona.merge.rows.growth import KnownBase
from persona.merge.rows.source import Source
from persona.merge.rows.sources import Sources
from persona.merge.rows.terms import TermSources
from persona.merge.rules import MergeRules
from persona.objects import canonical
from persona.objects.base import Base
from persona.objects.growth import vectors_of
from persona.objects.ids import abbreviate
from persona.objects.layers import Place, places
from persona.objects.recipe import Recipe, Term, to_binary32
from persona.objects.rules import NUMERICS
from persona.objects.tensors import TensorSpec, chunk_count
from persona.objects.vector import Vector
from persona.store.store import Store


@dataclass(frozen=True)
class TensorPlan:
    """One tensor: its way, the indices of the terms that reach it in canonical order, and its key.

    `admitted` counts the terms whose filters admit it, whether they changed it or not. `alphas`, binary32,
    and `densities`, binary64, run along `terms`: the values of lists over layers at this tensor, which may
    give the terms another order than the recipe's. The density of a term that is never trimmed is 1.
    """

    spec: TensorSpec
    way: str
    terms: tuple[int, ...]
    admitted: int
    key: str
    alphas: tuple[float, ...]
    densities: tuple[float, ...]

    @cached_property
    def alpha_of(self) -> dict[int, float]:
        """α of each term, binary32, by its index."""
        return dict(zip(self.terms, self.alphas, strict=True))

    @cached_property
    def density_of(self) -> dict[int, float]:
        """The density of each term, binary64, by its index."""
        return dict(zip(self.terms, self.densities, strict=True))


@dataclass(frozen=True)
class Plan:
    """A recipe joined with its base and vectors, tensor by tensor in byte order of names.

    `base`: as the vectors grow it.
    """

    store: Store
    recipe: Recipe
    base: Base
    rows: TermSources
    tensors: tuple[TensorPlan, ...]
    origins: Mapping[str, str | None] = field(default_factory=dict)
    """The tensors that the vectors grow, each with its origin (`objects.growth`)."""

    @property
    def is_extended(self) -> bool:
        """Whether the vectors grow the base."""
        return bool(self.origins)

    @cached_property
    def by_name(self) -> dict[str, TensorPlan]:
        """The tensors by name."""
        return {tensor.spec.name: tensor for tensor in self.tensors}

    @property
    def sources(self) -> tuple[Source, ...]:
        """The source of each term of the recipe."""
        return self.rows.sources

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

    def cache_id(self, source: Source) -> str:
        """The name under which caches hold what was found of a vector: ranks count all rows of the base."""
        if not self.is_extended:
            return source.identity
        return blake3(canonical.encode([source.identity, self.base.digest])).hexdigest()

    def source_of(self, id: str) -> Source:
        """The source of a vector of the recipe."""
        terms = self.recipe.terms
        return next(self.sources[index] for index in range(len(terms)) if terms[index].vector == id)


@in_default_environment
def plan(store: Store, recipe: Recipe, base: Base, vectors: Mapping[str, Vector]) -> Plan:
    """The plan of a recipe.

    `vectors` holds the manifest of every term's vector, by id, and those of the vectors that an expression
    among them names. Raises `InvalidInput` for a vector of another base or of a kind or rule that cannot be
    computed, `IntegrityError` for manifests that contradict each other.
    """
    _check(recipe, base, vectors)
    terms = recipe.terms
    known = KnownBase.of(store.objects, base)
    whole = known.extended(store.objects, vectors_of(recipe, vectors.__getitem__))
    made = Sources(store.objects, known, whole, vectors)
    base = whole.base
    sources = tuple(made.source(term.vector) for term in terms)
    admits = [_admitting(term) for term in terms]
    unfiltered = all(not term.only and not term.except_ for term in terms)
    everything = tuple(range(len(terms)))
    layers = places(spec.name for spec in base.tensors) if any(term.in_layers for term in terms) else {}
    groups: dict[tuple[tuple[int, ...], int, bool, Place | None, bool], _Group] = {}
    tensors: list[TensorPlan] = []
    for spec in base.tensors:
        admitted: tuple[int, ...] = ()
        if spec.merged:
            admitted = everything if unfiltered else tuple(i for i in everything if admits[i](spec.name))
        reaching = tuple(i for i in admitted if sources[i].reaches(spec.name))
        own = len(reaching) == 1 and sources[reaching[0]].steps(spec)
        group = reaching, len(admitted), own, layers.get(spec.name), spec.name in whole.origins
        if group not in groups:
            groups[group] = _group(recipe, known.base.digest, base.digest, sources, *group)
        found = groups[group]
        key = blake3(found.seed + spec.name.encode()).hexdigest()
        tensors.append(
            TensorPlan(spec, found.way, found.terms, len(admitted), key, found.alphas, found.densities)
        )
    rescaled = _rescaled(recipe, tensors)
    rows = TermSources(whole.chunks, sources, rescaled, made.shared_bytes)
    return Plan(store, recipe, base, rows, tuple(tensors), whole.origins)


def _rescaled(recipe: Recipe, tensors: Sequence[TensorPlan]) -> frozenset[tuple[str, int]]:
    """The tensors and terms whose steps the trim rescales, which makes numbers of them."""
    if not MergeRules.of(recipe.rules).rescales:
        return frozenset()
    return frozenset(
        (tensor.spec.name, term)
        for tensor in tensors
        for term, density in tensor.density_of.items()
        if density < 1.0
    )


class _Group(NamedTuple):
    """What the tensors that the same terms reach in one layer have in common."""

    way: str
    seed: bytes
    """The start of their keys."""
    terms: tuple[int, ...] = ()
    alphas: tuple[float, ...] = ()
    densities: tuple[float, ...] = ()


def _group(
    recipe: Recipe,
    base: str,
    extended: str,
    sources: Sequence[Source],
    reaching: tuple[int, ...],
    admitted: int,
    own: bool,
    place: Place | None,
    grown: bool,
) -> _Group:
    """The group of the tensors in a layer that these terms reach.

    `base`, `extended`: the digests of the base and of the extended one. `own`: whether one term alone reaches
    them, with rows of steps. `grown`: whether they are grown tensors.
    """
    digest = extended if grown else base
    if not reaching:
        return _Group("base", _seed(["base", digest]))
    rules = recipe.rules
    lambda_ = to_binary32(rules.lambda_)
    here = sorted((_effect(recipe, index, place) for index in reaching), key=lambda effect: effect.order)
    values = (
        tuple(effect.term for effect in here),
        tuple(effect.alpha for effect in here),
        tuple(effect.density for effect in here),
    )
    first = here[0]
    if own and first.alpha == 1.0 and lambda_ == 1.0 and first.density == 1.0:
        return _Group("lone", _seed(["lone", digest, sources[first.term].identity]), *values)
    axes = {axis: value for axis, value in rules.axes().items() if axis not in ("density", "lambda")}
    whole = [
        admitted if rules.trim == "joint" else None,
        [
            [source.identity, term.alpha, _density(recipe, term), term.join, term.only, term.except_]
            for source, term in zip(sources, recipe.terms, strict=True)
        ]
        if rules.on_tie == "majority"
        else None,
    ]
    effects = [
        [sources[one.term].identity, _hex32(one.alpha), one.density.hex(), recipe.terms[one.term].join]
        for one in here
    ]
    if rules.on_tie == "majority" or min(values[2]) < 1.0:  # cut-offs and signs may count all tensors
        digest = extended
    return _Group("merge", _seed(["merge", digest, axes, _hex32(lambda_), effects, whole]), *values)


class _Effect(NamedTuple):
    """The numbers of a term in one layer, and its place in the canonical order there."""

    term: int
    alpha: float
    density: float
    order: tuple[object, ...]


def _effect(recipe: Recipe, index: int, place: Place | None) -> _Effect:
    term = recipe.terms[index]
    alpha, density = term.alpha_at(place), term.density_at(recipe.rules, place)
    # Terms of one vector, α and density add the same numbers, so filters need not order them. Then a list
    # over layers has the key of the terms that it stands for.
    order = (term.vector, alpha, density, term.join, index)
    return _Effect(index, alpha, density if recipe.trims(term) else 1.0, order)


def _density(recipe: Recipe, term: Term) -> object:
    return recipe.density_of(term) if recipe.trims(term) else None


def _seed(value: list[object]) -> bytes:
    return blake3(canonical.encode([NUMERICS, *value])).digest()


def _hex32(value: float) -> str:
    return struct.pack(">f", value).hex()


def _admitting(term: Term) -> Callable[[str], bool]:
    return term.admits if term.only or term.except_ else lambda _name: True


def _check(recipe: Recipe, base: Base, vectors: Mapping[str, Vector]) -> None:
    for term in recipe.terms:
        vector = vectors[term.vector]
        if vector.base != base.digest:
            raise InvalidInput(
                f"vector {term.name} ({abbreviate(term.vector)}) belongs to the base with weights"
                f" {vector.base}, not to this recipe's base with weights {base.digest}:"
                " import its fine-tune against this base"
            )
