"""The machine code of the CUDA kernels, compiled on any machine for three generations of GPU."""

from __future__ import annotations

from types import ModuleType

import pytest

from persona.merge.rules import MergeRules
from tests.merge.arithmetic.cuda_kernels import check_code, is_fused, load, merge_kernel, signs_kernel, source

CAPABILITIES = [80, 90, 100]
PLAIN = MergeRules()
SUM = MergeRules(trim="none", elect="none", merge="sum")
EVERYTHING = MergeRules(weigh="after", on_tie="majority", divide="weight")


@pytest.fixture(scope="module")
def cuda() -> ModuleType:
    return load(source(), interpreted=False)


@pytest.mark.parametrize("ordered", [False, True], ids=["in-place", "scattered"])
@pytest.mark.parametrize("rules", [PLAIN, SUM, EVERYTHING], ids=["ties", "linear", "after"])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_each_byte_moves_once_in_wide_accesses_and_nothing_is_fused_flushed_or_spilt(
    cuda: ModuleType, capability: int, dtype: str, rules: MergeRules, ordered: bool
) -> None:
    kernel = merge_kernel(cuda, capability, dtype, [0.5, 1.0, -0.7, 1.0], rules, ordered=ordered)
    check_code(kernel, dtype, 4, ordered=ordered, mean=rules.merge == "mean")


@pytest.mark.parametrize(("votes", "adds"), [(1, 0), (2, 0), (3, 0), (2, 1), (3, 1)])
def test_a_term_costs_one_row_whether_it_votes_or_adds(cuda: ModuleType, votes: int, adds: int) -> None:
    terms = votes + adds
    kernel = merge_kernel(cuda, 90, "BF16", [0.5, 0.7, 0.3, 1.0][:terms], PLAIN, adds=adds)
    check_code(kernel, "BF16", terms, ordered=True)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_counting_signs_reads_each_byte_once(cuda: ModuleType, dtype: str) -> None:
    check_code(signs_kernel(cuda, 90, dtype, 3), dtype, 3, ordered=False, stores=False, mean=False)


@pytest.mark.parametrize("rules", [PLAIN, EVERYTHING], ids=["ties", "after"])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_many_terms_are_a_loop_of_four_that_loads_each_row_once_and_spills_nothing(
    cuda: ModuleType, capability: int, dtype: str, rules: MergeRules
) -> None:
    kernel = merge_kernel(cuda, capability, dtype, [1.0] * 40 + [0.0], rules)
    assert kernel.resources["STACK"] == kernel.resources["LOCAL"] == 0
    row = 16 if dtype == "F32" else 8
    base, loop, last, order = [row], [row] * cuda.UNROLLED, [row], [16]
    assert kernel.moved()["ld"] == base + loop + last + order


def test_a_chunk_of_one_element_compiles(cuda: ModuleType) -> None:
    """Triton makes a constant of a number that is 1."""
    kernel = merge_kernel(cuda, 90, "BF16", [0.5, 0.7], PLAIN, adds=1, n=1, z_stride=1)
    assert kernel.resources["STACK"] == 0


def test_fused_steps_and_flushes_stand_in_the_routine_of_the_division(cuda: ModuleType) -> None:
    """So that the checks above look for what is there to be found."""
    own, routine = merge_kernel(cuda, 90, "BF16", [0.5, 0.25], PLAIN).sass
    assert any(is_fused(line) for line in routine)
    assert any(".FTZ" in line for line in routine)
    assert any(is_fused(line) for line in own)
