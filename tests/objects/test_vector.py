from __future__ import annotations

from typing import Any

import pytest

from persona.errors import IntegrityError
from persona.objects import canonical
from persona.objects.tensors import TensorSpec
from persona.objects.vector import LowRankFactor, Vector

ID, OTHER = "ab" * 32, "cd" * 32
DIGEST = "blake3:" + ID
TENSORS = (TensorSpec("a", "BF16", (3, 5)), TensorSpec("b", "F32", (2,)))
DELTA = Vector(DIGEST, "delta", 1 << 20, TENSORS, ID)
LOW_RANK = Vector(
    DIGEST, "lowrank", 64, TENSORS, ID, (LowRankFactor(8, "2", "F32"), LowRankFactor(16, "-0.5", "BF16"))
)
EXPRESSION = Vector(DIGEST, "expression", expression=((ID, "1"), (OTHER, "-0.5")))


@pytest.mark.parametrize("vector", [DELTA, LOW_RANK, EXPRESSION], ids=lambda vector: vector.kind)
def test_a_vector_comes_back_as_it_was(vector: Vector) -> None:
    assert Vector.decode(vector.encode()) == vector


def test_the_bytes_of_each_kind_never_change() -> None:
    tensors = f'"table":"{ID}","tensors":[["a","BF16",[3,5]],["b","F32",[2]]]}}'
    assert DELTA.encode().decode() == f'{{"base":"{DIGEST}","chunk":1048576,"kind":"delta",{tensors}'
    assert LOW_RANK.encode().decode() == (
        f'{{"base":"{DIGEST}","chunk":64,"factors":[[8,"2","F32"],[16,"-0.5","BF16"]],"kind":"lowrank",{tensors}'
    )
    assert EXPRESSION.encode().decode() == (
        f'{{"base":"{DIGEST}","expression":[["{ID}","1"],["{OTHER}","-0.5"]],"kind":"expression"}}'
    )


WRONG: list[tuple[Vector, str, Any]] = [
    (DELTA, "base", ID),
    (DELTA, "kind", "sparse"),
    (DELTA, "kind", ["delta"]),
    (DELTA, "kind", "lowrank"),
    (DELTA, "kind", "expression"),
    (DELTA, "chunk", 100),
    (DELTA, "table", None),
    (DELTA, "table", "0" * 64),
    (DELTA, "tensors", []),
    (DELTA, "tensors", [["a", "I64", [1]]]),
    (DELTA, "tensors", [["a", "BF16", [0]]]),
    (DELTA, "tensors", [["b", "BF16", [1]], ["a", "BF16", [1]]]),
    (DELTA, "factors", []),
    (LOW_RANK, "factors", []),
    (LOW_RANK, "factors", [[8, "2", "F32"]]),
    (LOW_RANK, "factors", [[8, "2", "F32"], [0, "2", "F32"]]),
    (LOW_RANK, "factors", [[8, "2", "F32"], [1, "2.0", "F32"]]),
    (LOW_RANK, "factors", [[8, "2", "F32"], [1, 2, "F32"]]),
    (LOW_RANK, "factors", [[8, "2", "F32"], [1, "2", "I64"]]),
    (LOW_RANK, "factors", [[8, "2", "F32"], None]),
    (EXPRESSION, "expression", []),
    (EXPRESSION, "expression", [[OTHER, "1"], [ID, "1"]]),
    (EXPRESSION, "expression", [[ID, "1"], [ID, "1"]]),
    (EXPRESSION, "expression", [[ID, 1]]),
    (EXPRESSION, "expression", [[ID, "1e3"]]),
    (EXPRESSION, "expression", [["0" * 64, "1"]]),
    (EXPRESSION, "expression", {ID: "1"}),
    (EXPRESSION, "table", ID),
]


@pytest.mark.parametrize(("vector", "key", "value"), WRONG)
def test_a_vector_with_a_wrong_field_is_refused(vector: Vector, key: str, value: Any) -> None:
    with pytest.raises(IntegrityError):
        Vector.decode(canonical.encode(canonical.decode(vector.encode()) | {key: value}))
