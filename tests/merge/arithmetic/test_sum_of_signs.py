"""Σ sign(e) of the kernels is the reference's, on changes that are infinite and on strengths of 0."""

from __future__ import annotations

from itertools import product
from types import ModuleType

import numpy as np
import pytest
import torch

from persona.merge import reference
from persona.merge.arithmetic import cpu
from persona.merge.rules import NO_TRIM, MergeRules, MergeTerm
from tests.merge.chunks import CODE, UINT, Chunk, tensor

HARD = {
    "BF16": (0x0000, 0x8000, 0x0001, 0x3F80, 0xBF80, 0x7F7F, 0xFF7F),
    "F16": (0x0000, 0x8000, 0x0001, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF),
    "F32": (0x00000000, 0x80000000, 0x00000001, 0x3F800000, 0xBF800000, 0x7F7FFFFF, 0xFF7FFFFF),
}
"""Zeros, the smallest, one, and the largest, whose differences are infinite in BF16 and F32."""
ALPHAS = ((0.0, 1.0), (0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, -1.0), (3e38, -3e38))


def by_reference(
    base: np.ndarray, afters: list[np.ndarray], alphas: tuple[float, float], rules: MergeRules, dtype: str
) -> int:
    b = tensor(base, dtype)
    taus = [reference.tau(b, tensor(after, dtype)) for after in afters]
    terms = [
        MergeTerm(letter * 64, float(np.float32(alpha))) for letter, alpha in zip("ab", alphas, strict=True)
    ]
    return reference._majority(taus, [NO_TRIM, NO_TRIM], terms, rules, "w")


@pytest.mark.parametrize("dtype", HARD)
@pytest.mark.parametrize("weigh", ["before", "after"])
@pytest.mark.parametrize("elect", ["mass", "count"])
def test_hard_elements_have_the_sum_of_the_reference(
    elect: str, weigh: str, dtype: str, cuda: ModuleType
) -> None:
    rules = MergeRules(elect=elect, weigh=weigh, on_tie="majority", trim="none")
    grid = np.array(list(product(HARD[dtype], repeat=3)), UINT[dtype])
    theta = np.full(2, NO_TRIM, np.float32)
    for base_one in HARD[dtype]:  # one base at a time, so that no error hides behind another
        rows = grid[grid[:, 0] == base_one]
        base, afters = rows[:, 0].copy(), [rows[:, 1].copy(), rows[:, 2].copy()]
        chunk = Chunk.of(base, afters, dtype)
        for alphas in ALPHAS:
            alpha = np.array(alphas, np.float32)
            want = by_reference(base, afters, alphas, rules, dtype)
            assert cpu.sum_of_signs(chunk.decoded, theta, alpha, rules, CODE[dtype]) == want
            signs = torch.zeros(1, dtype=torch.int64, device=cuda.WHERE)
            terms = cuda.Terms.of(theta, alpha, np.zeros(2, np.bool_), rules, cuda.WHERE)
            with np.errstate(all="ignore"):
                there = [torch.from_numpy(array).to(cuda.WHERE) for array in (chunk.base, chunk.z)]
                rows = *there, None, None
                cuda.sum_of_signs(*rows, terms, rules, CODE[dtype], signs)
            assert int(signs) == want
