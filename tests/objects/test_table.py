from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import IntegrityError
from persona.objects.ids import NULL_ID
from persona.objects.table import decode_table, decode_vector_table, encode_table, factor_chunks
from persona.objects.tensors import TensorSpec, chunk_count
from persona.objects.vector import LowRankFactor, Vector
from tests.objects.strategies import ids, specs

dtypes = st.sampled_from(["BF16", "F32", "U8"])
shapes = st.lists(st.integers(0, 20), max_size=2).map(tuple)


@given(specs(dtypes, shapes), st.data())
def test_a_table_gives_every_tensor_its_own_chunks(found: Any, data: st.DataObject) -> None:
    rows = {
        spec.name: data.draw(
            st.lists(ids | st.just(NULL_ID), min_size=chunk_count(spec, 64), max_size=chunk_count(spec, 64))
        )
        for spec in found
    }
    payload = encode_table(id for row in rows.values() for id in row)
    table = decode_table(payload, found, 64)
    assert len(payload) == 32 * len(table) == 32 * sum(map(len, rows.values()))
    assert {name: table.chunks(name) for name in rows} == rows
    for name, row in rows.items():
        assert name in table
        assert [table.chunk(name, index) for index in range(len(row))] == row


def test_a_tensor_that_the_table_does_not_hold_has_no_chunks() -> None:
    table = decode_table(b"", [TensorSpec("empty", "F32", (0,))], 64)
    assert table.chunks("empty") == table.chunks("other") == []
    assert "empty" in table
    assert "other" not in table


def test_a_table_is_ids_and_nothing_else() -> None:
    assert encode_table(["01" * 32, NULL_ID]) == b"\x01" * 32 + bytes(32)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 63, 65, 95, 96])
def test_a_table_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(IntegrityError, match="its manifest implies 64"):
        decode_table(bytes(length), [TensorSpec("a", "F32", (65,))], 64)


def id_of(number: int) -> str:
    return f"{number:064x}"


def test_a_tensor_with_a_factor_has_the_chunks_of_a_then_of_b_and_a_dense_one_its_deltas() -> None:
    factored, dense = TensorSpec("a", "BF16", (70, 3)), TensorSpec("b", "F32", (65,))
    factors = (LowRankFactor(2, "1", "F32"), None)
    vector = Vector("blake3:" + id_of(1), "lowrank", 64, (factored, dense), id_of(2), factors)
    ids = [id_of(number) for number in (3, 4, 5, 6)]  # A: 6 elements, B: 140
    payload = encode_table([*ids, NULL_ID, id_of(7)])
    table = decode_vector_table(payload, vector)
    assert table.chunks("a") == ids
    assert factor_chunks(table, vector, factored) == (ids[:1], ids[1:])
    assert table.chunks("b") == [NULL_ID, id_of(7)]
    with pytest.raises(IntegrityError, match="its manifest implies 192"):
        decode_vector_table(payload[:-32], vector)
    assert (
        decode_vector_table(
            payload[: -32 * 2], Vector(vector.base, "delta", 64, (TensorSpec("a", "F32", (200,)),), id_of(2))
        ).chunks("a")
        == ids
    )
