"""The machine code of the CUDA kernels, compiled on any machine for three generations of GPU."""

from __future__ import annotations

from types import ModuleType

import pytest

from persona.merge.rules import MergeRules
from tests.merge.cuda_kernels import check_code, is_fused, load, merge_kernel, signs_kernel, source

CAPABILITIES = [80, 90, 100]
PLAIN = MergeRules()
SUM = MergeRules(trim="none", elect="none", merge="sum")
EVERYTHING = MergeRules(weigh="after", on_tie="majority", divide="weight")


@pytest.fixture(scope="module")
def cuda() -> ModuleType:
    return load(source(), interpreted=False)


@pytest.mark.parametrize("rules", [PLAIN, SUM, EVERYTHING], ids=["ties", "linear", "after"])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_each_byte_moves_once_in_wide_accesses_and_nothing_is_fused_flushed_or_spilt(
    cuda: ModuleType, capability: int, dtype: str, rules: MergeRules
) -> None:
    kernel = merge_kernel(cuda, capability, dtype, [0.5, 1.0, -0.7, 1.0], rules, ordered=False)
    check_code(kernel, dtype, 4, ordered=False, mean=rules.merge == "mean")
    assert kernel.resources["REG"] <= 128


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_an_order_costs_four_bytes_an_element_and_a_term_that_adds_one_row(
    cuda: ModuleType, dtype: str
) -> None:
    kernel = merge_kernel(cuda, 90, dtype, [0.5, 0.7, 0.3, 1.0], PLAIN, adds=1, ordered=True)
    check_code(kernel, dtype, 4, ordered=True)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_counting_signs_reads_each_byte_once(cuda: ModuleType, dtype: str) -> None:
    check_code(signs_kernel(cuda, 90, dtype, 3), dtype, 3, ordered=False, stores=False, mean=False)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_many_terms_spill_no_register(cuda: ModuleType, capability: int) -> None:
    """Loops of four terms: a row is still loaded once and nothing is kept of it but sums."""
    for rules in (PLAIN, EVERYTHING):
        kernel = merge_kernel(cuda, capability, "BF16", [1.0] * 40 + [0.0], rules)
        assert kernel.resources["STACK"] == kernel.resources["LOCAL"] == 0
        assert kernel.resources["REG"] <= 128
        assert kernel.moved()["ld"] == [8] * len(kernel.moved()["ld"][:-1]) + [16]


def test_fused_steps_and_flushes_stand_in_the_routine_of_the_division(cuda: ModuleType) -> None:
    """So that the checks above look for what is there to be found."""
    own, routine = merge_kernel(cuda, 90, "BF16", [0.5, 0.25], PLAIN).sass
    assert any(is_fused(line) for line in routine)
    assert any(".FTZ" in line for line in routine)
    assert any(is_fused(line) for line in own)
