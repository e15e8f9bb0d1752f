"""The CUDA kernel, run by Triton's interpreter, equals the reference bit for bit."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.merge.cuda_kernels import load, merge_by_kernel, source
from tests.merge.test_kernel_equals_reference import by_reference, elements, owned, rules, terms

pytest.importorskip("triton")


@pytest.fixture(scope="module")
def cuda() -> ModuleType:
    return load(source(), interpreted=True)


@settings(max_examples=25, deadline=None)
@given(st.data())
@pytest.mark.parametrize("style", ["bits", "steps", "subnormal", "integers", "weights", "huge"])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_the_kernel_equals_the_reference(
    cuda: ModuleType, dtype: str, style: str, data: st.DataObject
) -> None:
    axes = data.draw(rules())
    count = data.draw(st.integers(1, 12))
    mixture = data.draw(terms(count, axes))
    n = data.draw(st.sampled_from([1, 7, 64, 300, 1024, 2100]))
    base, afters = elements(data.draw(st.integers(0, 1 << 32)), dtype, count, style, n)
    want, strange = by_reference(base, afters, mixture, axes, dtype)
    out, bad = merge_by_kernel(cuda, base, afters, mixture, axes, dtype, data.draw(st.booleans()))
    if owned(base, afters, mixture, axes):
        # The whole-tensor rule, which decides the signs of zeros too, is the caller's.
        top = out.dtype.type(1 << (out.dtype.itemsize * 8 - 1))
        different = out != want
        assert ((out[different] | top) == top).all()
        assert ((want[different] | top) == top).all()
        return
    np.testing.assert_array_equal(out, want)
    assert bad == strange
