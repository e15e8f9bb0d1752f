from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import IntegrityError
from persona.objects.ids import KINDS, NULL_ID, abbreviate, is_id, object_id, require_id
from tests.objects.strategies import ids


def test_an_id_is_the_hash_of_kind_version_and_payload() -> None:
    assert object_id("blob", b"hello") == blake3(b"blob\x001\x00hello").hexdigest()
    assert object_id("blob", b"hello", version=12) == blake3(b"blob\x0012\x00hello").hexdigest()


def test_the_id_of_the_empty_blob_never_changes() -> None:
    assert object_id("blob") == "89dea0ceacc91619c2a35b3b5006a282f227cf130ad111ecdd506dad5f93f974"


@given(st.lists(st.binary(max_size=9), max_size=5))
def test_an_id_does_not_depend_on_how_the_payload_is_cut(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    assert object_id("chunk", *parts) == object_id("chunk", whole)
    assert object_id("chunk", memoryview(whole), bytearray()) == object_id("chunk", whole)


@given(st.binary(max_size=40))
def test_kinds_and_versions_share_no_id(payload: bytes) -> None:
    found = {object_id(kind, payload, version=version) for kind in KINDS for version in (1, 2, 11)}
    assert len(found) == 3 * len(KINDS)


@given(ids)
def test_an_id_is_64_lowercase_hex_digits(id: str) -> None:
    assert is_id(id)
    assert require_id(id, "here") == id
    assert id.startswith(abbreviate(id))
    assert len(abbreviate(id)) == 8


# fmt: off
NO_IDS = [
    "", "ab", "A" * 64, "a" * 63, "a" * 65, "g" * 64, " " + "a" * 63, "a" * 63 + "\n", "\u0661" * 64,
    None, 5, b"a" * 64, ["a"] * 64,
]
# fmt: on


@pytest.mark.parametrize("value", NO_IDS)
def test_anything_else_is_no_id(value: object) -> None:
    assert not is_id(value)
    with pytest.raises(IntegrityError, match=r"the table: .* is not an object id"):
        require_id(value, "the table")


def test_the_null_id_stands_only_where_it_may() -> None:
    assert require_id(NULL_ID, "a chunk", null=True) == NULL_ID
    with pytest.raises(IntegrityError):
        require_id(NULL_ID, "a tree")
