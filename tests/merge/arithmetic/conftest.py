"""The CUDA kernels without a GPU."""

from __future__ import annotations

from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def cuda() -> ModuleType:
    """The kernels for Triton's interpreter; without triton, the test is skipped."""
    kernels = pytest.importorskip("tests.merge.arithmetic.cuda_kernels")
    loaded: ModuleType = kernels.load(kernels.source(), interpreted=True)
    return loaded
