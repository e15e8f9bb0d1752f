from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import IntegrityError, InvalidInput
from persona.limits import MAX_RANK
from persona.objects.dtypes import DTYPES
from persona.objects.tensors import (
    TensorSpec,
    check_spec,
    chunk_count,
    chunk_span,
    sort_key,
    specs_from_json,
    specs_to_json,
)
from tests.objects.strategies import specs


@given(specs(), st.integers(6, 12).map((1).__lshift__))
def test_the_chunks_of_a_tensor_cover_it_once_without_a_gap(
    found: tuple[TensorSpec, ...], chunk: int
) -> None:
    for spec in found:
        end = 0
        for index in range(min(chunk_count(spec, chunk), 100)):
            start, stop = chunk_span(spec, index, chunk)
            assert start == end < stop
            assert stop - start == chunk or index == chunk_count(spec, chunk) - 1
            end = stop
        assert chunk_count(spec, chunk) > 100 or end == spec.units
        assert spec.units * spec.unit == spec.nbytes


@pytest.mark.parametrize(
    ("dtype", "shape", "elements", "nbytes", "units", "chunks"),
    [
        ("BF16", (), 1, 2, 1, 1),
        ("F32", (0, 5), 0, 0, 0, 0),
        ("BF16", (64,), 64, 128, 64, 1),
        ("BF16", (65,), 65, 130, 65, 2),
        ("F4", (256,), 256, 128, 128, 2),
        ("F6_E2M3", (4, 4), 16, 12, 12, 1),
        ("C64", (3,), 3, 24, 3, 1),
        ("I8", (2, 3), 6, 6, 6, 1),
    ],
)
def test_sizes_of_a_tensor(
    dtype: str, shape: Any, elements: int, nbytes: int, units: int, chunks: int
) -> None:
    spec = check_spec(TensorSpec("a", dtype, shape))
    assert (spec.elements, spec.nbytes, spec.units, chunk_count(spec, 64)) == (
        elements,
        nbytes,
        units,
        chunks,
    )


def test_only_three_dtypes_are_merged() -> None:
    assert {dtype for dtype in DTYPES if TensorSpec("a", dtype, ()).merged} == {"BF16", "F16", "F32"}


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("F8", (1,)),
        ("bf16", (1,)),
        ("", ()),
        ("F32", (-1,)),
        ("F32", (1.0,)),
        ("F32", (True,)),
        ("F32", ("2",)),
        ("F32", (None,)),
        ("F32", (1 << 53,)),
        ("F32", (1 << 27, 1 << 27)),
        ("F32", (10**4000,)),
        ("F32", (1,) * (MAX_RANK + 1)),
        ("F4", (3,)),
        ("F6_E2M3", (2,)),
    ],
    ids=lambda value: None,
)
def test_an_impossible_tensor_is_refused(dtype: str, shape: Any) -> None:
    with pytest.raises(InvalidInput):
        check_spec(TensorSpec("a", dtype, shape))


@given(specs())
def test_tensors_survive_their_canonical_form(found: tuple[TensorSpec, ...]) -> None:
    assert specs_from_json(specs_to_json(found), "base") == found


@given(specs().filter(lambda found: len(found) > 1), st.data())
def test_tensors_out_of_order_or_twice_are_refused(
    found: tuple[TensorSpec, ...], data: st.DataObject
) -> None:
    form = specs_to_json(found)
    at = data.draw(st.integers(0, len(form) - 2))
    for wrong in ([*form[:at], form[at + 1], form[at], *form[at + 2 :]], [*form[: at + 1], *form[at:]]):
        with pytest.raises(IntegrityError, match="out of place"):
            specs_from_json(wrong, "base")


def test_order_is_that_of_utf_8_bytes() -> None:
    names = ["\U0001f600", "\uffff", "a", "Z", "a.b", "a-b", "\xe9"]
    assert sorted(names, key=sort_key) == ["Z", "a", "a-b", "a.b", "\xe9", "\uffff", "\U0001f600"]


# fmt: off
NO_TENSORS = [
    None, {}, [None], [[]], [["a", "F32"]], [["a", "F32", None]], [[1, "F32", []]], [["a", ["F32"], []]],
    [["a", "F32", [], 1]], [["", "F32", []]], [["../a", "F32", []]], [["a", "F32", [[]]]], [["a", "F33", []]],
]
# fmt: on


@pytest.mark.parametrize("form", NO_TENSORS)
def test_what_is_no_list_of_tensors_is_refused(form: Any) -> None:
    with pytest.raises(IntegrityError):
        specs_from_json(form, "base")
