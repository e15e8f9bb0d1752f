"""Whatever bytes a decoder is given: an object that encodes to those very bytes, or `IntegrityError`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona.errors import IntegrityError
from persona.objects import canonical
from persona.objects.table import decode_table, decode_vector_table
from tests.objects.strategies import OBJECTS, changed_specs, mangled, values, vectors

KINDS = sorted(OBJECTS)


def admits_only_its_own_encoding(decode: Any, data: bytes) -> None:
    try:
        found = decode(data)
    except IntegrityError:
        return
    assert found.encode() == data


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_every_object_survives_its_own_encoding(kind: str, data: st.DataObject) -> None:
    decode, objects = OBJECTS[kind]
    one = data.draw(objects)
    assert decode(one.encode()) == one
    assert decode(one.encode()).encode() == one.encode()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100)
@given(st.data())
def test_an_object_with_one_thing_changed_is_taken_whole_or_refused(kind: str, data: st.DataObject) -> None:
    decode, objects = OBJECTS[kind]
    admits_only_its_own_encoding(decode, data.draw(mangled(objects)))


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_damaged_bytes_are_taken_whole_or_refused(kind: str, data: st.DataObject) -> None:
    decode, objects = OBJECTS[kind]
    payload = bytearray(data.draw(objects).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    admits_only_its_own_encoding(decode, bytes(payload))


@pytest.mark.parametrize("kind", KINDS)
@given(st.binary(max_size=100) | values.map(canonical.encode))
def test_bytes_that_were_never_an_object_are_refused(kind: str, payload: bytes) -> None:
    decode, _ = OBJECTS[kind]
    admits_only_its_own_encoding(decode, payload)


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_an_object_of_another_kind_is_refused(kind: str, data: st.DataObject) -> None:
    other = data.draw(st.sampled_from([name for name in KINDS if name != kind]))
    payload = data.draw(OBJECTS[other][1]).encode()
    with pytest.raises(IntegrityError):
        OBJECTS[kind][0](payload)


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_a_missing_or_unknown_field_is_refused(kind: str, data: st.DataObject) -> None:
    decode, objects = OBJECTS[kind]
    value = canonical.decode(data.draw(objects).encode())
    gone = data.draw(st.sampled_from(sorted(value)))
    with pytest.raises(IntegrityError):
        decode(canonical.encode({key: item for key, item in value.items() if key != gone}))
    with pytest.raises(IntegrityError, match="unknown field"):
        decode(canonical.encode(value | {"surplus": None}))


@given(st.binary(max_size=200), changed_specs, st.sampled_from([64, 1024]))
def test_a_table_has_the_length_that_its_manifest_implies_or_is_refused(
    payload: bytes, specs: Any, chunk: int
) -> None:
    try:
        table = decode_table(payload, specs, chunk)
    except IntegrityError:
        return
    assert len(table) * 32 == len(payload)


@given(st.binary(max_size=400), vectors())
def test_a_vectors_table_has_the_length_that_its_manifest_implies_or_is_refused(
    payload: bytes, vector: Any
) -> None:
    try:
        table = decode_vector_table(payload[: len(payload) // 32 * 32], vector)
    except IntegrityError:
        return
    assert sum(len(table.chunks(spec.name)) for spec in vector.tensors) == len(table)
