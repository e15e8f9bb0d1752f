"""The CUDA kernels without a GPU, and with one."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

PLACES = ["interpreted", "gpu"] if torch.cuda.is_available() else ["interpreted"]


@pytest.fixture(scope="session", params=PLACES)
def cuda(request: pytest.FixtureRequest) -> ModuleType:
    """The kernels for Triton's interpreter, and again for the GPU if there is one; without triton, the test
    is skipped.
    """
    kernels = pytest.importorskip("tests.merge.arithmetic.cuda_kernels")
    loaded: ModuleType = kernels.load(kernels.source(), interpreted=request.param == "interpreted")
    return loaded
