"""The CUDA kernel, run by Triton's interpreter, on what `test_writings` does not draw."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from persona.merge.rules import KEEP_NOTHING, NO_TRIM, MergeRules
from tests.merge.arithmetic.cuda_kernels import check_bits, run, run_on_cpu
from tests.merge.chunks import CODE, UINT, Chunk
from tests.merge.strategies import ALPHAS, elements, rules

SETTINGS = settings(max_examples=20, deadline=None)


@SETTINGS
@given(st.data())
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_the_kernel_equals_the_cpu_on_any_bits(cuda: ModuleType, dtype: str, data: st.DataObject) -> None:
    """Also on what no checkpoint may bring: changes of or to numbers that are not finite. What these add to
    a majority is not asked: it is given.
    """
    axes = data.draw(rules())
    count = data.draw(st.integers(1, 5))
    random = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    top = np.iinfo(UINT[dtype]).max
    n = 400
    base = random.integers(0, top, n, endpoint=True, dtype=UINT[dtype])
    z = random.integers(0, top, (count, n), endpoint=True, dtype=UINT[dtype])
    z[random.random(z.shape) < 0.5] = 0
    infinity = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000}[dtype]
    base[:100] = random.integers(infinity - 3, infinity + 4, 100) | random.choice([0, top // 2 + 1], 100)
    z[:, :100] >>= UINT[dtype](random.integers(0, z.itemsize * 8))
    chunk = Chunk(base, z, random.permutation(n).astype(np.uint32))
    cut = st.sampled_from([NO_TRIM, KEEP_NOTHING, 0.0, 1e-40, 0.5, 1e30, np.inf])
    theta = np.array([data.draw(cut) for _ in range(count)], np.float32)
    alpha = np.array([data.draw(ALPHAS) for _ in range(count)], np.float32) + np.float32(0)
    add = np.arange(count) >= data.draw(st.integers(0, count))
    with np.errstate(all="ignore"):
        majority = data.draw(st.integers(-1, 1))
        terms_and_rules = (chunk, theta, alpha, add, axes, dtype)
        want, strange = run_on_cpu(*terms_and_rules, majority=majority)
        out, bad = run(cuda, *terms_and_rules, majority=majority)
    np.testing.assert_array_equal(out, want)
    assert bad == strange


def test_a_few_mixtures_equal_the_reference(cuda: ModuleType) -> None:
    """The ones that every mutant has to fail, or be found in its machine code."""
    check_bits(cuda)


@pytest.mark.parametrize("count", [0, 5, 40])
def test_any_number_of_terms(cuda: ModuleType, count: int) -> None:
    base, afters = elements(3, "BF16", count, "weights", 700)
    chunk = Chunk.of(base, afters, "BF16")
    theta = np.full(count, 0.01, np.float32)
    alpha = np.linspace(-1, 1, count, dtype=np.float32)
    add = np.arange(count) >= count - count // 3
    given = (chunk, theta, alpha, add, MergeRules(), "BF16")
    want, _ = run_on_cpu(*given)
    np.testing.assert_array_equal(run(cuda, *given)[0], want)


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_a_merge_of_no_terms_scatters_any_bits(cuda: ModuleType, dtype: str) -> None:
    """As `persona.merge.devices.cuda` scatters: rows of vectors too, and fp16 by the code of bf16."""
    random = np.random.default_rng(5)
    uint, none = UINT[dtype], np.empty(0, np.float32)
    bits = random.integers(0, np.iinfo(uint).max, 70_000, endpoint=True, dtype=uint)
    bits[:65_536] = np.arange(65_536).astype(uint) << (16 if dtype == "F32" else 0)
    order = random.permutation(bits.size).astype(np.uint32)
    chunk = Chunk(bits, np.empty((0, bits.size), uint), order)
    scattered, bad = run(cuda, chunk, none, none, np.empty(0, np.bool_), MergeRules(), dtype)
    np.testing.assert_array_equal(scattered[order], bits)
    assert bad == 0


def arguments(cuda: ModuleType, **changed: Any) -> dict[str, Any]:
    """Terms and tensors of 50 elements that fit each other."""
    one = np.ones(3, np.float32)
    given = {
        "base": torch.zeros(50, dtype=torch.uint16),
        "z": torch.zeros(3, 50, dtype=torch.uint16),
        "numbers": None,
        "row_of": None,
        "order": torch.arange(50, dtype=torch.int32).view(torch.uint32),
        "out": torch.zeros(50, dtype=torch.uint16),
        "terms": cuda.Terms.of(one, one, np.zeros(3, np.bool_), MergeRules(), "cpu"),
        "rules": MergeRules(),
        "dtype": CODE["BF16"],
        "not_finite": torch.zeros(1, dtype=torch.int64),
    }
    return given | changed


@pytest.mark.parametrize(
    "changed",
    [
        {"base": torch.zeros(50, dtype=torch.int16)},
        {"base": torch.zeros(51, dtype=torch.uint16)},
        {"base": torch.zeros(100, dtype=torch.uint16)[::2]},
        {"z": torch.zeros(2, 50, dtype=torch.uint16)},
        {"z": torch.zeros(50, 3, dtype=torch.uint16).T},
        {"numbers": torch.zeros(3, 50)},
        {"numbers": torch.zeros(3, 49), "row_of": torch.zeros(3, dtype=torch.int32)},
        {"numbers": torch.zeros(3, 50), "row_of": torch.zeros(3, dtype=torch.int64)},
        {"numbers": torch.zeros(3, 50), "row_of": torch.zeros(2, dtype=torch.int32)},
        {"out": torch.zeros(49, dtype=torch.uint16)},
        {"order": torch.zeros(50, dtype=torch.int32)},
        {"order": torch.zeros(49, dtype=torch.uint32)},
        {"dtype": CODE["F32"]},
        {"not_finite": torch.zeros(1, dtype=torch.int32)},
        {"out": torch.zeros(50, dtype=torch.uint16, device="meta")},
    ],
)
def test_tensors_that_do_not_fit_are_refused(cuda: ModuleType, changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"chunk|contiguous|int64|int32|together"):
        cuda.merge_chunk(**arguments(cuda, **changed))


def test_an_empty_chunk_is_no_work(cuda: ModuleType) -> None:
    empty = torch.zeros(0, dtype=torch.uint16)
    cuda.merge_chunk(**arguments(cuda, base=empty, out=empty, z=torch.zeros(3, 0, dtype=torch.uint16)))


def mixtures(size: int) -> list[tuple[Any, Any, Any]]:
    """theta, alpha and add of this many terms, the last one added: of each kind that code is compiled for."""
    theta, alpha = np.linspace(0, 0.1, size, dtype=np.float32), np.full(size, 0.5, np.float32)
    add, last = np.arange(size) == size - 1, np.arange(size) == size - 1
    return [
        (theta, alpha, add),
        (theta, alpha, ~last & last),  # none is added
        (theta, np.where(last, np.float32(1), alpha), add),  # lone
        (theta, np.where(last, alpha, np.float32(-3)), add),  # strong
        (theta, np.where(last, np.float32(0), alpha), add),  # careful
        (np.where(last, theta, np.float32(-1)), alpha, add),  # careful, by its cut-offs only
    ]


@pytest.mark.parametrize("rules", [MergeRules(), MergeRules(divide="strength"), MergeRules(merge="max")])
def test_terms_made_at_once_are_those_made_one_by_one(cuda: ModuleType, rules: MergeRules) -> None:
    given = [mixture for size in (2, 5, 3, 7) for mixture in mixtures(size)] * 2
    found = cuda.Terms.all(given, rules, "cpu")
    for terms, (theta, alpha, add) in zip(found, given, strict=True):
        one = cuda.Terms.of(theta, alpha, add, rules, "cpu")
        for numbers, want in ((terms.alpha, one.alpha), (terms.cut, one.cut)):
            assert numbers.numpy().tobytes() == want.numpy().tobytes()
            assert (numbers.data_ptr() - found[0].alpha.data_ptr()) % 16 == 0
        kind = [(of.votes, of.careful, of.lone, of.strong) for of in (terms, one)]
        assert kind[0] == kind[1]
    assert cuda.Terms.all([], rules, "cpu") == []


def test_terms_made_at_once_differ_in_kind(cuda: ModuleType) -> None:
    rules = MergeRules(divide="strength")
    found = cuda.Terms.all(mixtures(4), rules, "cpu")
    kinds = [(terms.votes, terms.careful, terms.lone, terms.strong) for terms in found]
    assert kinds == [
        (3, False, False, False),
        (4, False, False, False),
        (3, False, True, False),
        (3, False, False, True),
        (3, True, False, False),
        (3, True, False, False),
    ]


@pytest.mark.parametrize(
    ("theta", "alpha", "add"),
    [
        (np.ones(3), np.ones(3, np.float32), np.zeros(3, np.bool_)),
        (np.ones(2, np.float32), np.ones(3, np.float32), np.zeros(3, np.bool_)),
        (np.ones(3, np.float32), np.ones(3, np.float32), np.array([True, False, False])),
    ],
)
def test_terms_that_do_not_fit_are_refused(cuda: ModuleType, theta: Any, alpha: Any, add: Any) -> None:
    with pytest.raises(ValueError, match=r"theta|vote"):
        cuda.Terms.of(theta, alpha, add, MergeRules(), "cpu")
