"""**growth** — the rows that the vectors of a recipe add to its base: new tokens, or an output matrix.

**origin** — the tensor that a base has in place of a tensor that it lacks: the embedding of an output matrix.
**extended base** — a base as the vectors of a recipe grow it.

A tensor that grows ends in zeros. A tensor that the base lacks has the elements of its origin. So a recipe
means what it would mean if its base were the extended one.

The extended base is no object of the store. A vector stays bound to the base that it was imported against,
and a recipe without the vector has that base's own shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from blake3 import blake3

from persona.errors import Call, IntegrityError, InvalidInput
from persona.objects import canonical
from persona.objects.base import Base
from persona.objects.digest import PREFIX
from persona.objects.recipe import Recipe
from persona.objects.tensors import TensorSpec, sort_key
from persona.objects.vector import Vector

Origins = dict[str, str | None]
"""Grown tensors by name, each with its origin: None for a tensor of the base, whose elements come first."""


Sizes = tuple[int, int]
"""How many rows a base and a fine-tune have."""


class TwoSizes(InvalidInput):
    """Two vectors of a recipe, by their names, grow one tensor to different sizes."""

    def __init__(self, first: str, second: str, old: TensorSpec, new: TensorSpec) -> None:
        super().__init__(
            f"the vectors {first} and {second} grow {old.name} to different sizes, {list(old.shape)} and"
            f" {list(new.shape)}; one recipe cannot hold both: train them with the same vocabulary"
        )
        self.names = first, second
        drop = Call("recipe.remove", second), " or ", Call("recipe.remove", first)
        self.hint = (*drop, " drops one of them")

    def with_new(self, name: str) -> TwoSizes:
        """The error if `name` is that of a vector which is not in `recipe.toml` yet."""
        for other in self.names:
            if other != name:
                self.hint = Call("recipe.remove", other), f" drops that one; then {name} has room"
        return self


def sizes(before: TensorSpec, after: TensorSpec) -> Sizes | None:
    """The sizes of the dimension in which two tensors differ, if it is the only one."""
    pairs = [pair for pair in zip(before.shape, after.shape, strict=False) if pair[0] != pair[1]]
    return pairs[0] if len(before.shape) == len(after.shape) and len(pairs) == 1 else None


def vocabulary(base: Base, extended: Base) -> Sizes | None:
    """How many tokens a base and an extended base have rows for; None if they have as many."""
    pairs = (sizes(spec, extended.spec[spec.name]) for spec in base.tensors)
    return next((pair for pair in pairs if pair is not None), None)


def origins(vectors: Iterable[Vector]) -> Origins:
    """The tensors that some vectors grow."""
    return {name: origin for vector in vectors for name, origin in vector.grown}


def vectors_of(recipe: Recipe, manifest: Callable[[str], Vector]) -> list[tuple[str, Vector]]:
    """The manifests that a recipe needs, those of the parts of expressions included, by names of terms."""
    found = [(term.name, manifest(term.vector)) for term in recipe.terms]
    return found + [(name, manifest(part)) for name, vector in found for part, _ in vector.expression]


def extends(before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether a tensor of the shape `after` begins with all elements of one of the shape `before`."""
    if len(before) != len(after) or before == after:
        return False
    place = next(place for place, size in enumerate(before) if size != after[place])
    longer = after[place] > before[place] and before[place + 1 :] == after[place + 1 :]
    return longer and all(size == 1 for size in before[:place])


def growing(base: Base, grown: Mapping[TensorSpec, str | None]) -> Vector:
    """A vector that changes nothing, and grows a base by these tensors, each with its origin."""
    tensors = tuple(sorted(grown, key=lambda spec: sort_key(spec.name)))
    pairs = tuple((spec.name, grown[spec]) for spec in tensors)
    return Vector(base.digest, chunk=base.chunk, tensors=tensors, grown=pairs)


def extended(base: Base, vectors: Iterable[tuple[str, Vector]]) -> Base:
    """A base as some vectors grow it, each given with its name for messages; `base` itself if none does.

    Its `digest` stands for the base and for its growth: it is no weights digest. Raises `InvalidInput` if two
    vectors grow a tensor to different sizes, `IntegrityError` for a vector that does not fit the base.
    """
    grown: dict[str, tuple[str, TensorSpec, str | None]] = {}
    for vector_name, vector in vectors:
        for name, origin in vector.grown:
            spec = vector.spec[name]
            known = grown.setdefault(name, (vector_name, spec, origin))
            _check_alike((vector_name, spec, origin), known)
    if not grown:
        return base
    specs = dict(base.spec)
    shard_of = {spec.name: shard for spec, shard in zip(base.tensors, base.shard_of, strict=True)}
    for vector_name, spec, origin in sorted(grown.values(), key=lambda one: one[2] is not None):
        before = base.spec.get(origin or spec.name)
        known_alias = origin is None or spec.name not in base.spec
        fits = before is not None and (before.shape == spec.shape or extends(before.shape, spec.shape))
        if before is None or not known_alias or not fits or before.dtype != spec.dtype:
            raise IntegrityError(
                f"vector {vector_name} grows the tensor {spec.name}, which does not begin as its base's",
                kind="vector",
            )
        specs[spec.name] = spec if origin is None else replace(specs[origin], name=spec.name)
        shard_of[spec.name] = shard_of[origin or spec.name]
    tensors = tuple(sorted(specs.values(), key=lambda spec: sort_key(spec.name)))
    rows = [[name, list(specs[name].shape), grown[name][2]] for name in sorted(grown, key=sort_key)]
    return replace(
        base,
        digest=PREFIX + blake3(canonical.encode([base.digest, rows])).hexdigest(),
        tensors=tensors,
        shard_of=tuple(shard_of[spec.name] for spec in tensors),
        tied={alias: name for alias, name in base.tied.items() if alias not in grown},
    )


def _check_alike(one: tuple[str, TensorSpec, str | None], other: tuple[str, TensorSpec, str | None]) -> None:
    """`InvalidInput` if two vectors cannot grow one tensor in one recipe.

    A matrix that the base lacks takes the size of its origin, so vectors may give it different sizes.
    """
    (first, old, old_origin), (second, new, new_origin) = other, one
    if old_origin != new_origin:
        raise InvalidInput(
            f"the vectors {first} and {second} take {old.name} from different tensors of the base;"
            " one recipe cannot hold both"
        )
    if old_origin is None and old.shape != new.shape:
        raise TwoSizes(first, second, old, new)
