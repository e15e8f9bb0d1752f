"""The kernel equals the reference bit for bit: any dtype, axes and number of terms, whatever the numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persona.merge.rules import MergeRules, MergeTerm
from tests.merge import chunks
from tests.merge.chunks import by_reference
from tests.merge.strategies import common_rules, elements, owned, rules, terms

SETTINGS = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])


@SETTINGS
@given(st.data())
@pytest.mark.parametrize("style", ["bits", "steps", "subnormal", "integers", "weights", "huge"])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_the_kernel_equals_the_reference(dtype: str, style: str, data: st.DataObject) -> None:
    axes = data.draw(rules())
    check_equality(dtype, style, axes, data.draw(terms(data.draw(st.integers(1, 12)), axes)), data)


@SETTINGS
@given(st.data())
@pytest.mark.parametrize("style", ["bits", "steps", "subnormal", "integers", "weights", "huge"])
def test_the_most_common_rules_in_one_pass_equal_the_reference(style: str, data: st.DataObject) -> None:
    axes = data.draw(common_rules())
    mixture = [replace(term, join="vote") for term in data.draw(terms(data.draw(st.integers(1, 5)), axes))]
    check_equality("BF16", style, axes, mixture, data)


def check_equality(
    dtype: str, style: str, axes: MergeRules, mixture: list[MergeTerm], data: st.DataObject
) -> None:
    count = len(mixture)
    n = data.draw(st.sampled_from([1, 7, 64, 300, 1024, 2100]))
    base, afters = elements(data.draw(st.integers(0, 1 << 32)), dtype, count, style, n)
    want, strange = by_reference(base, afters, mixture, axes, dtype)
    out, bad = chunks.merge_by_kernel(base, afters, mixture, axes, dtype)
    if owned(base, afters, mixture, axes):
        shift = out.dtype.itemsize * 8 - 1
        zero = (out ^ want) == out.dtype.type(1 << shift)
        same = out == want
        assert (same | (zero & (out << out.dtype.type(1) == 0))).all()
        return
    np.testing.assert_array_equal(out, want)
    assert bad == strange
