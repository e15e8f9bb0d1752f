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
MIXED = Vector(
    DIGEST,
    "lowrank",
    64,
    (TensorSpec("experts", "BF16", (4, 6, 8)), TensorSpec("norm", "F32", (8,))),
    ID,
    (LowRankFactor(2, "0.1", "F16", blocks=4), None),
)
GROWN = Vector(
    DIGEST,
    "delta",
    64,
    TENSORS,
    ID,
    grown=(("a", None), ("b", "model.embed_tokens.weight")),
    grown_table=OTHER,
)
EXPRESSION = Vector(DIGEST, "expression", expression=((ID, "1"), (OTHER, "-0.5")))


@pytest.mark.parametrize("vector", [DELTA, LOW_RANK, MIXED, GROWN, EXPRESSION])
def test_a_vector_comes_back_as_it_was(vector: Vector) -> None:
    assert Vector.decode(vector.encode()) == vector


def test_the_bytes_of_each_kind_never_change() -> None:
    tensors = f'"table":"{ID}","tensors":[["a","BF16",[3,5]],["b","F32",[2]]]}}'
    assert DELTA.encode().decode() == f'{{"base":"{DIGEST}","chunk":1048576,"kind":"delta",{tensors}'
    assert LOW_RANK.encode().decode() == (
        f'{{"base":"{DIGEST}","chunk":64,"factors":[[8,"2","F32",1],[16,"-0.5","BF16",1]],'
        f'"kind":"lowrank",{tensors}'
    )
    assert b'"factors":[[2,"0.1","F16",4],null],"kind"' in MIXED.encode()
    growth = f'"grown":{{"table":"{OTHER}","tensors":{{"a":null,"b":"model.embed_tokens.weight"}}}}'
    assert GROWN.encode().decode() == f'{{"base":"{DIGEST}","chunk":64,{growth},"kind":"delta",{tensors}'
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
    (DELTA, "grown", {}),
    (DELTA, "grown", {"table": OTHER, "tensors": {}}),
    (GROWN, "grown", None),
    (GROWN, "grown", {"tensors": {"a": None}}),
    (GROWN, "grown", {"table": "0" * 64, "tensors": {"a": None}}),
    (GROWN, "grown", {"table": OTHER, "tensors": {"c": None}}),
    (GROWN, "grown", {"table": OTHER, "tensors": {"a": 1}}),
    (GROWN, "grown", {"table": OTHER, "tensors": {"a": ""}}),
    (GROWN, "grown", {"table": OTHER, "tensors": ["a"]}),
    (LOW_RANK, "grown", {"table": OTHER, "tensors": {"a": None}}),
    (EXPRESSION, "grown", {"table": OTHER, "tensors": {"a": None}}),
    (LOW_RANK, "factors", []),
    (LOW_RANK, "factors", [[8, "2", "F32", 1]]),
    (LOW_RANK, "factors", [None, None]),
    (LOW_RANK, "factors", [[8, "2", "F32", 1], [8, "2", "F32", 1], None]),
    *(
        (LOW_RANK, "factors", [None, factor])
        for factor in (
            False,
            [],
            [1, "2", "F32"],
            [1, "2", "F32", 1, 1],
            {"rank": 1},
            [0, "2", "F32", 1],
            [-1, "2", "F32", 1],
            [(1 << 20) + 1, "2", "F32", 1],
            [True, "2", "F32", 1],
            [1, 2, "F32", 1],
            [1, "2.0", "F32", 1],
            [1, "1e3", "F32", 1],
            [1, "-0", "F32", 1],
            [1, "0.10000000149011612", "F32", 1],
            [1, "0.3333333333333333", "F32", 1],  # not the shortest
            [1, "4" + "0" * 38, "F32", 1],
            [1, "0." + "0" * 50 + "1", "F32", 1],  # infinite and 0 in binary32
            [1, "2", "I64", 1],
            [1, "2", "F64", 1],
            [1, "2", None, 1],
            [1, "2", "F32", 0],
            [1, "2", "F32", 2],
            [1, "2", "F32", None],
        )
    ),
    (MIXED, "factors", [[2, "0.1", "F16", 6], None]),
    (MIXED, "factors", [[2, "0.1", "F16", 2], None]),
    (MIXED, "tensors", [["experts", "BF16", [4, 48]], ["norm", "F32", [8]]]),
    (MIXED, "tensors", [["experts", "BF16", []], ["norm", "F32", [8]]]),
    (MIXED, "tensors", [["experts", "BF16", [4, 1, (1 << 51) - 1]], ["norm", "F32", [8]]]),  # A is too long
    (EXPRESSION, "expression", []),
    (EXPRESSION, "expression", [[OTHER, "1"], [ID, "1"]]),
    (EXPRESSION, "expression", [[ID, "1"], [ID, "1"]]),
    (EXPRESSION, "expression", [[ID, 1]]),
    (EXPRESSION, "expression", [[ID, "1e3"]]),
    (EXPRESSION, "expression", [[ID, "0"]]),
    (EXPRESSION, "expression", [[ID, "0.3333333333333333"]]),  # not the shortest
    (EXPRESSION, "expression", [[ID, "4" + "0" * 38]]),  # infinite in binary32
    (EXPRESSION, "expression", [[ID, "0." + "0" * 50 + "1"]]),  # 0 in binary32
    (EXPRESSION, "expression", [["0" * 64, "1"]]),
    (EXPRESSION, "expression", {ID: "1"}),
    (EXPRESSION, "table", ID),
]


@pytest.mark.parametrize(("vector", "key", "value"), WRONG)
def test_a_vector_with_a_wrong_field_is_refused(vector: Vector, key: str, value: Any) -> None:
    with pytest.raises(IntegrityError):
        Vector.decode(canonical.encode(canonical.decode(vector.encode()) | {key: value}))


def test_a_factor_has_the_shapes_of_its_tensor() -> None:
    one, several = LowRankFactor(3, "1", "F32"), LowRankFactor(3, "1", "BF16", blocks=4)
    for shape, factor, a, b in [
        ((6, 8), one, (1, 3, 8), (1, 6, 3)),
        ((6, 8, 2, 2), one, (1, 3, 32), (1, 6, 3)),
        ((6,), one, (1, 3, 1), (1, 6, 3)),
        ((4, 6, 8), several, (4, 3, 8), (4, 6, 3)),
        ((4, 6, 8, 2), several, (4, 3, 16), (4, 6, 3)),
    ]:
        spec = TensorSpec("w", "BF16", shape)
        assert factor.a(spec) == TensorSpec("w", factor.dtype, a)
        assert factor.b(spec) == TensorSpec("w", factor.dtype, b)
