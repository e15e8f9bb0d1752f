"""The checks of the CUDA kernels catch what they are there to catch."""

from __future__ import annotations

from pathlib import Path

import pytest

from persona.merge.rules import MergeRules
from tests.merge.cuda_kernels import check_bits, check_code, load, merge_kernel, signs_kernel, source

VOTES = "    for k in tl.range(0, VOTES, loop_unroll_factor=UNROLL):\n"
ROW = "        z = tl.load(row + lane, mask=inside, other=0)\n        row += z_stride\n"
TERM = "        alpha = tl.load(alpha_ptr + k)\n        cut = tl.load(cut_ptr + k)\n"
BASE = "    bits = tl.load(base_ptr + start + lane, mask=inside, other=0)\n"
STORE = "tl.store(out, result.to(bits.dtype), mask=inside)"
ADDS = "    for k in tl.range(VOTES, VOTES + ADDS, loop_unroll_factor=UNROLL):\n"
SIGNS = "        t = _change(_moved(word, z, DTYPE), b, DTYPE)\n"
BACKWARD = "(VOTES - 1 - k)"

MUTANTS = {
    "fusion allowed": ('"enable_fp_fusion": False', '"enable_fp_fusion": True'),
    "no mask on the base": (BASE, BASE.replace(", mask=inside, other=0", "")),
    "no mask on a vote": (VOTES + ROW + TERM, (VOTES + ROW + TERM).replace(", mask=inside, other=0", "")),
    "no mask on an addition": (ADDS + ROW, (ADDS + ROW).replace(", mask=inside, other=0", "")),
    "no mask on a vote that is counted": (ROW + SIGNS, (ROW + SIGNS).replace(", mask=inside, other=0", "")),
    "no mask on the order": ("order_ptr + start + lane, mask=inside, other=0", "order_ptr + start + lane"),
    "no mask on the output": (STORE, STORE.replace(", mask=inside", "")),
    "terms backward": (
        ROW + TERM,
        (ROW + TERM)
        .replace("row + lane", f"z_ptr + start + {BACKWARD} * z_stride + lane")
        .replace("_ptr + k", f"_ptr + {BACKWARD}"),
    ),
    "division that is not rounded": (
        "tl.math.div_rn(tl.where(total.to(tl.int32, bitcast=True) == 0, 1.0, total), divisor)",
        "tl.where(total.to(tl.int32, bitcast=True) == 0, 1.0, total) / divisor",
    ),
    "ties at the cut trimmed": ("tl.abs(t) < cut", "tl.abs(t) <= cut"),
    "a zero counted": ("p, q = v > 0.0, v < 0.0", "p, q = v >= 0.0, v < 0.0"),
    "halves rounded away from zero": ("bits + 0x7FFF + ((bits >> 16) & 1)", "bits + 0x8000"),
    "a lone vector only nearly itself": ("result = tl.where(alone, own, result)", "pass"),
    "untouched not left alone": ("untouched |= changed == 0", "untouched = changed == 0"),
    "the later of equals": (
        "p & (_magnitude(w) > _magnitude(total_p))",
        "p & (_magnitude(w) >= _magnitude(total_p))",
    ),
    "a tie elects": ("positive, negative = e > 0.0, e < 0.0", "positive, negative = e >= 0.0, e < 0.0"),
}


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
