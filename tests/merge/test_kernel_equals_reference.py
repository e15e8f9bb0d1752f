"""The kernel equals the reference bit for bit: any dtype, axes and number of terms, whatever the numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persona.merge import reference
from persona.merge.rules import MergeRules, MergeTerm
from persona.objects.recipe import to_binary32
from tests.merge import checkpoints
from tests.merge.checkpoints import EXPONENT, UINT

SETTINGS = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])

ALPHAS = st.one_of(
    st.sampled_from([1.0, 1.0, 0.5, -1.0, -0.5, 0.0, 0.25, 2.0, 1e-30, 1e-44, 3e38, -3e38, 1e20]),
    st.floats(-2, 2, width=32),
)
"""Both signs, zero, tiny and huge."""


@st.composite
def rules(draw: st.DrawFn) -> MergeRules:
    """Every combination of axes."""
    return MergeRules(
        trim=draw(st.sampled_from(["tensor", "global", "joint", "none"])),
        rank=draw(st.sampled_from(["floor1", "plus1", "floor"])),
        weigh=draw(st.sampled_from(["before", "after"])),
        elect=draw(st.sampled_from(["mass", "count", "none"])),
        on_tie=draw(st.sampled_from(["drop", "positive", "majority"])),
        merge=draw(st.sampled_from(["mean", "mean", "sum", "max"])),
        divide=draw(st.sampled_from(["strength", "count", "weight"])),
        density=draw(st.sampled_from([1.0, 0.5, 0.2, 0.01])),
        lambda_=draw(st.sampled_from([1.0, 1.0, 0.5, -1.5, 0.0, 3e38])),
    )


@st.composite
def terms(draw: st.DrawFn, count: int, rules: MergeRules) -> list[MergeTerm]:
    own = st.none() if rules.trim in ("joint", "none") else st.sampled_from([None, None, 1.0, 0.3])
    return [
        MergeTerm(
            vector=draw(st.sampled_from("abcdef")) * 64,
            alpha=to_binary32(repr(draw(ALPHAS))) + 0.0,
            density=draw(own),
            join=draw(st.sampled_from(["vote", "vote", "vote", "add"])),
        )
        for _ in range(count)
    ]


def elements(seed: int, dtype: str, count: int, style: str, n: int) -> tuple[Any, list[Any]]:
    """A base and fine-tunes as bits, in one of the styles."""
    random = np.random.default_rng(seed)
    uint = UINT[dtype]
    top = np.iinfo(uint).max
    if style == "bits":
        base = random.integers(0, top, n, endpoint=True, dtype=uint)
        afters = [random.integers(0, top, n, endpoint=True, dtype=uint) for _ in range(count)]
    elif style == "steps":
        base = random.integers(0, top, n, endpoint=True, dtype=uint)
        afters = [base + random.integers(-3, 4, n).astype(uint) for _ in range(count)]
    elif style == "subnormal":
        sign = uint(top - top // 2)
        tiny = 1 << EXPONENT[dtype][0]
        values = lambda: random.integers(0, 2 * tiny, n).astype(uint) | random.choice([uint(0), sign], n)  # noqa: E731
        base = values()
        afters = [values() for _ in range(count)]
    else:
        scale, values = {
            "integers": (1.0, lambda: random.integers(-3, 4, n)),
            "weights": (0.02, lambda: random.normal(size=n)),
            "huge": (2e4 if dtype == "F16" else 1.2e38, lambda: random.normal(size=n)),
        }[style]
        with np.errstate(over="ignore"):
            numbers = [np.float32(scale) * values().astype(np.float32) for _ in range(count + 1)]
        base, *afters = [rounded(number, dtype) for number in numbers]
    for after in afters:
        same = random.random(n) < 0.4
        after[same] = base[same]
    shift, mask = EXPONENT[dtype]
    for after in afters:
        strange = ((after >> shift) & mask) == mask
        after[strange] = base[strange]
        fixed = ((base >> shift) & mask) == mask
        after[fixed] = base[fixed]
    return base, afters


def rounded(number: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """float32 → bits of the dtype."""
    import torch

    return checkpoints.bits(torch.from_numpy(number).to(checkpoints.TORCH[dtype])).copy()


def by_reference(
    base: Any, afters: list[Any], terms: list[MergeTerm], rules: MergeRules, dtype: str
) -> tuple[Any, int]:
    model = {"w": checkpoints.tensor(base, dtype)}
    fine_tuned = [{"w": checkpoints.tensor(after, dtype)} for after in afters]
    merged = reference.merge(model, fine_tuned, terms, rules)
    return checkpoints.bits(merged["w"]), reference.not_finite(model, merged).get("w", 0)


def owned(base: Any, afters: list[Any], terms: list[MergeTerm], rules: MergeRules) -> bool:
    """Whether the whole-tensor rule decides, which the kernel leaves to its caller."""
    reaching = [k for k, after in enumerate(afters) if (after != base).any()]
    if len(reaching) != 1 or rules.lambda_ != 1:
        return False
    return terms[reaching[0]].alpha == 1 and terms[reaching[0]].keeps_everything(rules)


@st.composite
def common_rules(draw: st.DrawFn) -> MergeRules:
    """The rules that have loops of their own."""
    return MergeRules(
        trim=draw(st.sampled_from(["tensor", "none"])),
        rank=draw(st.sampled_from(["floor1", "floor"])),
        on_tie=draw(st.sampled_from(["drop", "positive", "majority"])),
        divide=draw(st.sampled_from(["strength", "count", "weight"])),
        density=draw(st.sampled_from([1.0, 0.5, 0.2, 0.01])),
        lambda_=draw(st.sampled_from([1.0, 1.0, 0.5, -1.5, 0.0, 3e38])),
    )


@SETTINGS
@given(st.data())
@pytest.mark.parametrize("style", ["bits", "steps", "subnormal", "integers", "weights", "huge"])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_the_kernel_equals_the_reference(dtype: str, style: str, data: st.DataObject) -> None:
    axes = data.draw(rules())
    check_equality(dtype, style, axes, data.draw(terms(data.draw(st.integers(1, 12)), axes)), data)


@SETTINGS
@given(st.data())
@pytest.mark.parametrize("style", ["bits", "steps", "subnormal", "integers", "weights", "huge"])
def test_the_most_common_rules_in_one_pass_equal_the_reference(style: str, data: st.DataObject) -> None:
    axes = data.draw(common_rules())
    mixture = [replace(term, join="vote") for term in data.draw(terms(data.draw(st.integers(1, 5)), axes))]
    check_equality("BF16", style, axes, mixture, data)


def check_equality(
    dtype: str, style: str, axes: MergeRules, mixture: list[MergeTerm], data: st.DataObject
) -> None:
    count = len(mixture)
    n = data.draw(st.sampled_from([1, 7, 64, 300, 1024, 2100]))
    base, afters = elements(data.draw(st.integers(0, 1 << 32)), dtype, count, style, n)
    want, strange = by_reference(base, afters, mixture, axes, dtype)
    out, bad = checkpoints.merge_by_kernel(base, afters, mixture, axes, dtype)
    if owned(base, afters, mixture, axes):
        shift = out.dtype.itemsize * 8 - 1
        zero = (out ^ want) == out.dtype.type(1 << shift)
        same = out == want
        assert (same | (zero & (out << out.dtype.type(1) == 0))).all()
        return
    np.testing.assert_array_equal(out, want)
    assert bad == strange
