"""A kernel that computes other bits than docs/numerics.md says is not used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from persona.merge import reference
from persona.merge.arithmetic import cpu, golden, trial
from persona.merge.devices import cuda
from persona.merge.devices.device import DeviceFault, DeviceFull, NoDevice, OtherBits
from persona.merge.devices.lanes import Lanes, Need
from persona.merge.rules import MergeTerm
from tests.merge.arithmetic.cuda_kernels import load, source
from tests.merge.arithmetic.cuda_mutants import MUTANTS
from tests.merge.chunks import bits, tensor
from tests.merge.devices.hosted import Hosted

DIVISION = "tl.math.div_rn(tl.where(total.to(tl.int32, bitcast=True) == 0, 1.0, total), divisor)"
FLUSHED = "tl.where(tl.abs({0}) < 1.1754943508222875e-38, 0.0, {0})"
WRONG = {
    "quotients flushed to zero": (DIVISION, FLUSHED.format(DIVISION)),
    "dividends flushed to zero": (
        DIVISION,
        DIVISION.replace("1.0, total)", f"1.0, {FLUSHED.format('total')})"),
    ),
    "sums flushed to zero": ("    y = b + x\n", f"    y = {FLUSHED.format('(b + x)')}\n"),
    "differences flushed to zero": (
        "    t = _number(f, DTYPE) - b\n",
        f"    t = {FLUSHED.format('(_number(f, DTYPE) - b)')}\n",
    ),
    **{
        name: MUTANTS[name]
        for name in (
            "terms backward",
            "ties at the cut trimmed",
            "halves rounded away from zero",
            "a lone vector only nearly itself",
            "untouched not left alone",
        )
    },
}


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    with np.errstate(all="ignore"):
        yield


def by_reference(case: trial.Case) -> tuple[Any, int]:
    """(bits, count not finite) where the kernel puts them."""
    dtype, mixture = case.name.split()[0], case.arguments
    terms = [
        MergeTerm(letter * 64, float(alpha), join="add" if add else "vote")
        for letter, alpha, add in zip("abcde", mixture.alpha, mixture.add, strict=False)
    ]
    base, theta = tensor(case.base, dtype), [float(one) for one in mixture.theta]
    after = [
        tensor(case.after[row], dtype)
        if row >= 0
        else reference.Numbers(torch.from_numpy(case.numbers[~row]))
        for row in case.chunk.rows()
    ]
    made = reference.merge_tensor(base, after, theta, terms, mixture.rules, mixture.rules.tie())
    out = np.empty_like(case.base)
    out[case.order] = bits(made)
    return out, reference.not_finite({"w": base}, {"w": made}).get("w", 0)


@pytest.mark.parametrize("case", trial.cases(), ids=lambda case: case.name)
def test_the_digests_are_the_reference_s_and_the_cpu_s(case: trial.Case) -> None:
    assert case.passes(*by_reference(case))
    out = np.empty_like(case.base)
    bad = cpu.merge_chunk(case.chunk, case.arguments, out)
    assert case.passes(out, bad)
    assert not case.passes(out, bad + 1)


def test_the_golden_digests_of_the_merge_are_the_reference_s() -> None:
    every = [*trial.cases(), *golden.few_terms()]
    by_kernel = [case.digest for case in golden.cases("merge_chunk", 0)]
    assert by_kernel == [case.digest(*by_reference(case)) for case in every]


def test_no_golden_case_of_a_few_terms_hides_its_loop_behind_a_number_that_is_not_finite() -> None:
    for case in golden.few_terms():
        assert case.base.size > 200
        assert by_reference(case)[1] == 0


def test_a_kernel_that_computes_the_page_is_used(hosted: None) -> None:
    device = Hosted(load(source(), interpreted=True))
    device.try_out()
    assert cuda._working([device]) == (device,)


@pytest.mark.parametrize("name", WRONG)
def test_a_kernel_with_other_bits_is_refused(name: str, hosted: None, tmp_path: Path) -> None:
    text, (old, new) = source().read_text(), WRONG[name]
    assert text.count(old) == 1, "the kernels no longer read like that: write the mutant anew"
    mutant = tmp_path / "mutant.py"
    mutant.write_text(text.replace(old, new))
    device = Hosted(load(mutant, interpreted=True))
    with pytest.raises(NoDevice, match=r"^this GPU, with Triton .* other bits .*3\.6 or newer$"):
        cuda._working([device])


class Full(Hosted):
    """A device that had no room when it was tried."""

    def _stream(self) -> Any:
        if not self._tried and self.full:
            raise DeviceFull("full")
        return super()._stream()

    full = True


def test_a_device_that_was_full_is_tried_before_its_first_lane(
    hosted: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (1 << 30, 1 << 31))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda where: 0)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda where: 0)
    text, (old, new) = source().read_text(), WRONG["quotients flushed to zero"]
    mutant = tmp_path / "mutant.py"
    mutant.write_text(text.replace(old, new))
    wrong = Full(load(mutant, interpreted=True))
    assert cuda._working([wrong]) == (wrong,)
    wrong.full = False
    with pytest.raises(DeviceFault, match="other bits") as told:
        Lanes([wrong], Need(1 << 16, 1 << 16))
    assert isinstance(told.value, OtherBits)
