"""The digest of tensors in memory is that of their bytes in order, in blocks, wherever the bytes lie."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from persona.live.slots import Slot, digest_of
from persona.objects.tensors import TensorSpec
from tests import checkpoints

ELEMENTS = (4 << 20) + 6
"""Of bf16: two blocks and 12 bytes."""


def laid_out(tensor: torch.Tensor, how: str) -> torch.Tensor:
    """The same elements, contiguous or as a transposed view."""
    return tensor.clone() if how == "contiguous" else tensor.t().contiguous().t()


@pytest.mark.parametrize("how", ["contiguous", "transposed"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_tensor_of_several_blocks(how: str, threads: int) -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 16, ELEMENTS, dtype=np.uint16).reshape(2, -1)
    tensor = laid_out(torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16), how)
    assert tensor.is_contiguous() == (how == "contiguous")
    small = torch.arange(5, dtype=torch.int64)
    slots = {
        "w": Slot(TensorSpec("w", "BF16", tuple(bits.shape)), tensor),
        "n": Slot(TensorSpec("n", "I64", (5,)), small),
        "e": Slot(TensorSpec("e", "F32", (0, 3)), torch.empty(0, 3)),
    }
    expected = checkpoints.digest_of(
        {
            "w": bits,
            "n": ("I64", (5,), small.numpy().view(np.uint64)),
            "e": ("F32", (0, 3), np.empty(0, np.uint32)),
        }
    )
    assert digest_of(slots, threads) == expected
