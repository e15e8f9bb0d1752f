"""The one table of dtypes, held against numpy and torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from persona.objects.dtypes import DTYPES, Dtype, merged_dtype, uint

IN_NUMPY = [dtype for dtype in DTYPES.values() if dtype.numpy]
IN_TORCH = [dtype for dtype in DTYPES.values() if dtype.torch]
FLOATS = [dtype for dtype in DTYPES.values() if dtype.is_float]


@pytest.mark.parametrize("dtype", IN_NUMPY, ids=lambda dtype: dtype.name)
def test_numpys_type_is_as_wide_and_little_endian(dtype: Dtype) -> None:
    found = np.dtype(str(dtype.numpy))
    assert (found.itemsize * 8, found.newbyteorder("<")) == (dtype.bits, found)


@pytest.mark.parametrize("dtype", IN_TORCH, ids=lambda dtype: dtype.name)
def test_torchs_type_is_as_wide(dtype: Dtype) -> None:
    found = getattr(torch, str(dtype.torch))
    assert isinstance(found, torch.dtype)
    assert found.itemsize * 8 == dtype.bits


def test_what_numpy_and_torch_both_have_they_agree_on() -> None:
    for dtype in IN_NUMPY:
        assert np.dtype(str(dtype.numpy)).name == dtype.torch


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: dtype.name)
def test_the_fields_of_a_float_are_those_of_torch(dtype: Dtype) -> None:
    found = getattr(torch, str(dtype.torch))
    bits = torch.from_numpy(np.array([dtype.infinity, dtype.infinity - 1], uint(dtype.bits // 8)))
    infinite, largest = bits.view(found).tolist()
    assert (infinite, largest) == (math.inf, torch.finfo(found).max)
    assert torch.finfo(found).eps == 2.0**-dtype.mantissa
    assert 1 + dtype.exponent + dtype.mantissa == dtype.bits


def test_merged_are_bf16_f16_and_f32() -> None:
    assert {dtype.name for dtype in DTYPES.values() if dtype.merged} == {"BF16", "F16", "F32"}


def test_a_float_holds_another_if_neither_field_is_narrower() -> None:
    held = {(one.name, other.name) for one in FLOATS for other in FLOATS if one != other and one.holds(other)}
    assert held == {("F32", "F16"), ("F32", "BF16"), *(("F64", name) for name in ("F16", "BF16", "F32"))}


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("bfloat16", "BF16"),
        ("bf16", "BF16"),
        ("float16", "F16"),
        ("fp16", "F16"),
        ("F16", "F16"),
        ("FP32", "F32"),
        ("float32", "F32"),
        ("f32", "F32"),
    ],
)
def test_the_words_for_a_merged_dtype(word: str, name: str) -> None:
    found = merged_dtype(word)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("word", ["float64", "F64", "int8", "half", "", "none"])
def test_other_words_mean_no_merged_dtype(word: str) -> None:
    assert merged_dtype(word) is None
