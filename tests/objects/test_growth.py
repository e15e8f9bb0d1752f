from __future__ import annotations

from dataclasses import replace

import pytest

from persona.errors import IntegrityError, InvalidInput
from persona.objects.base import Base, Shard
from persona.objects.growth import extended, extends, growing, origins, sizes
from persona.objects.tensors import TensorSpec
from persona.objects.vector import Vector

ID = "ab" * 32
EMBEDDING, HEAD, BIAS = "embed.weight", "head.weight", "head.bias"
BASE = Base(
    chunk=64,
    digest="blake3:" + ID,
    files={},
    shards=(Shard("a.safetensors", {}), Shard("b.safetensors", {})),
    table=ID,
    tensors=(
        TensorSpec(EMBEDDING, "BF16", (4, 8)),
        TensorSpec(BIAS, "F32", (4,)),
        TensorSpec("norm", "BF16", (8,)),
    ),
    shard_of=(1, 0, 0),
    tied={HEAD: EMBEDDING},
)


def grows(name: str, *shape: int, dtype: str = "BF16", origin: str | None = None) -> Vector:
    return growing(BASE, {TensorSpec(name, dtype, shape): origin})


@pytest.mark.parametrize(
    ("before", "after"),
    [((4, 8), (5, 8)), ((4,), (9,)), ((1, 4), (1, 5)), ((0, 3), (2, 3)), ((1, 1, 2, 3), (1, 1, 4, 3))],
)
def test_a_tensor_extends_another_if_the_old_elements_come_first(
    before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    assert extends(before, after)
    assert not extends(after, before)
    assert not extends(after, after)


@pytest.mark.parametrize(
    ("before", "after"), [((4, 8), (4, 9)), ((4, 8), (5, 9)), ((4, 8), (5,)), ((2, 4), (1, 8)), ((), (1,))]
)
def test_a_tensor_whose_old_elements_do_not_come_first_extends_none(
    before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    assert not extends(before, after)


def test_the_sizes_of_a_vocabulary_are_those_of_the_only_other_dimension() -> None:
    small, large = TensorSpec("a", "BF16", (1, 4, 2)), TensorSpec("a", "BF16", (1, 6, 2))
    assert sizes(small, large) == (4, 6)
    assert sizes(small, small) is None
    assert sizes(small, TensorSpec("a", "BF16", (1, 6, 3))) is None


def test_without_growth_the_base_is_the_base() -> None:
    assert extended(BASE, []) is BASE
    assert extended(BASE, [("plain", Vector(BASE.digest))]) is BASE


def test_a_base_grows_by_what_its_vectors_grow() -> None:
    tokens, head = grows(EMBEDDING, 6, 8), grows(HEAD, 4, 8, origin=EMBEDDING)
    for vectors in ([("t", tokens), ("h", head)], [("h", head), ("t", tokens), ("again", tokens)]):
        found = extended(BASE, vectors)
        assert [spec.name for spec in found.tensors] == [EMBEDDING, BIAS, HEAD, "norm"]
        assert found.spec[EMBEDDING].shape == found.spec[HEAD].shape == (6, 8)
        assert found.shard_of == (1, 0, 1, 0)
        assert found.tied == {}
        assert found.digest not in (BASE.digest, extended(BASE, [("h", head)]).digest)
        assert found.digest == extended(BASE, vectors[::-1]).digest
    assert origins([tokens, head]) == {EMBEDDING: None, HEAD: EMBEDDING}


def test_vectors_of_two_sizes_are_refused_with_both() -> None:
    with pytest.raises(InvalidInput, match=r"the vectors a and b grow .* \[6, 8\] and \[7, 8\]"):
        extended(BASE, [("a", grows(EMBEDDING, 6, 8)), ("b", grows(EMBEDDING, 7, 8))])
    heads = grows(HEAD, 4, 8, origin=EMBEDDING), grows(HEAD, 4, 8, origin="norm")
    with pytest.raises(InvalidInput, match="from different tensors of the base"):
        extended(BASE, list(zip("ab", heads, strict=True)))


@pytest.mark.parametrize(
    "vector",
    [
        grows(EMBEDDING, 3, 8),
        grows(EMBEDDING, 4, 9),
        grows(EMBEDDING, 6, 8, dtype="F32"),
        grows("new", 6, 8),
        grows(HEAD, 4, 8, origin="nothing"),
        grows(HEAD, 5, 7, origin=EMBEDDING),
        grows(BIAS, 4, 8, origin=EMBEDDING),
    ],
)
def test_growth_that_does_not_fit_the_base_is_damage(vector: Vector) -> None:
    with pytest.raises(IntegrityError, match="which does not begin as its base's"):
        extended(BASE, [("odd", vector)])


def test_a_vector_that_grows_a_base_changes_nothing() -> None:
    made = growing(BASE, {TensorSpec(EMBEDDING, "BF16", (6, 8)): None})
    assert made == replace(made, kind="delta", table=None)
    assert made.grown == ((EMBEDDING, None),)
