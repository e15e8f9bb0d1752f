"""The checks of the CUDA kernels catch what they are there to catch."""

from __future__ import annotations

from pathlib import Path

import pytest

from persona.merge.rules import MergeRules
from tests.merge.arithmetic.cuda_kernels import (
    check_bits,
    check_code,
    load,
    merge_kernel,
    signs_kernel,
    source,
)
from tests.merge.arithmetic.cuda_mutants import MUTANTS


def check(path: Path) -> None:
    """All that the kernels are checked for, in little."""
    cuda = load(path, interpreted=False)
    kernel = merge_kernel(cuda, 90, "BF16", [0.5, 0.7, 0.3, 1.0], MergeRules(), adds=1)
    check_code(kernel, "BF16", 4, ordered=True)
    check_code(signs_kernel(cuda, 90, "BF16", 3), "BF16", 3, ordered=False, stores=False, mean=False)
    check_bits(load(path, interpreted=True))


def test_the_kernels_pass_the_checks() -> None:
    check(source())


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fails_the_checks(name: str, tmp_path: Path) -> None:
    text, (old, new) = source().read_text(), MUTANTS[name]
    assert text.count(old) == 1, "the kernels no longer read like that: write the mutant anew"
    mutant = tmp_path / "mutant.py"
    mutant.write_text(text.replace(old, new))
    with pytest.raises(AssertionError):
        check(mutant)
