from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import IntegrityError
from persona.objects.ids import NULL_ID
from persona.objects.table import decode_table, encode_table
from persona.objects.tensors import TensorSpec, chunk_count
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
