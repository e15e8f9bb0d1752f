"""The sentences of docs/numerics.md, one by one, on the reference; the kernel equals it by another test."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
import torch

from persona.errors import InvalidInput
from persona.merge import reference
from persona.merge.rules import MergeRules, MergeTerm, canonical_order
from persona.objects.rules import PRESETS, Rules

A, B, C = "a" * 64, "b" * 64, "c" * 64
DTYPES = [torch.bfloat16, torch.float16, torch.float32]
NAN = float("nan")
INF = float("inf")


def preset(name: str, **axes: object) -> MergeRules:
    return MergeRules.of(Rules.of(name, **axes))


def merged(
    base: Sequence[float],
    afters: Sequence[Sequence[float]],
    terms: Sequence[MergeTerm],
    rules: MergeRules,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """One tensor through the reference."""
    fine_tuned = [{"w": torch.tensor(after, dtype=dtype)} for after in afters]
    return reference.merge({"w": torch.tensor(base, dtype=dtype)}, fine_tuned, terms, rules)["w"]


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    return torch.equal(left.contiguous().view(torch.uint8), right.contiguous().view(torch.uint8))


def weights(seed: int, dtype: torch.dtype, n: int = 500) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A base with zeros of both signs, and three fine-tunes of which many elements are unchanged."""
    random = torch.Generator().manual_seed(seed)
    base = (torch.randn(n, generator=random) * 0.02).to(dtype)
    base[:8] = torch.tensor([0.0, -0.0] * 4)
    afters = []
    for _ in range(3):
        update = torch.randn(n, generator=random) * 1e-3 * (torch.rand(n, generator=random) < 0.5)
        afters.append((base.float() + update).to(dtype))
        afters[-1][1] = -0.0
    return base, afters


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PRESETS)
def test_nothing_to_add_leaves_the_base(name: str, dtype: torch.dtype) -> None:
    base, _ = weights(1, dtype)
    base[3] = NAN
    after = base.clone()
    for alpha in (1.0, 0.0, -2.5):
        out = reference.merge({"w": base}, [{"w": after}], [MergeTerm(A, alpha)], preset(name))
        assert same_bits(out["w"], base)


@pytest.mark.parametrize("name", PRESETS)
def test_alpha_zero_leaves_the_base_to_the_bit(name: str) -> None:
    base, (after, *_) = weights(2, torch.bfloat16)
    out = reference.merge({"w": base}, [{"w": after}], [MergeTerm(A, 0.0)], preset(name))
    assert same_bits(out["w"], base)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lone_vector_at_full_strength_owns_its_tensor(dtype: torch.dtype) -> None:
    base, (after, *_) = weights(3, dtype)
    after[0], after[1] = -0.0, 0.0
    out = reference.merge({"w": base}, [{"w": after}], [MergeTerm(A)], preset("ties"))
    assert same_bits(out["w"], after)


def test_lone_vector_that_is_trimmed_does_not_own_the_signs_of_its_zeros() -> None:
    base = torch.zeros(4)
    after = torch.tensor([-0.0, 1.0, 2.0, 3.0])
    out = reference.merge({"w": base}, [{"w": after}], [MergeTerm(A)], preset("ties", density="0.5"))
    assert same_bits(out["w"], torch.tensor([0.0, 0.0, 2.0, 3.0]))


def test_vector_is_lone_where_the_others_do_not_reach_the_tensor() -> None:
    base, (after, *_) = weights(4, torch.bfloat16)
    after[0] = -0.0
    terms = [MergeTerm(A), MergeTerm(B, 0.3, only=("other.*",)), MergeTerm(C, -1.0)]
    out = reference.merge({"w": base}, [{"w": after}, {"w": after}, {}], terms, preset("ties"))
    assert same_bits(out["w"], after)


@pytest.mark.parametrize("join", ["vote", "add"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_lone_member_at_full_strength_is_the_fine_tune(dtype: torch.dtype, join: str) -> None:
    """b + (f − b) often rounds to something else than f; a lone term is f all the same."""
    base, (one, two, _) = weights(5, dtype)
    alone = torch.arange(500) % 2 == 0
    one, two = torch.where(alone, one, base), torch.where(alone, base, two)
    terms = [MergeTerm(A, join=join), MergeTerm(B, 0.5)]
    out = reference.merge({"w": base}, [{"w": one}, {"w": two}], terms, preset("ties"))["w"]
    changed = alone & (one != base)
    assert changed.any()
    assert torch.equal(out[changed], one[changed])


def test_add_term_is_itself_whatever_lambda() -> None:
    out = merged([1e8], [[1.25]], [MergeTerm(A, join="add")], preset("ties", **{"lambda": "0.5"}))
    assert out.item() == 1.25
    assert merged([1e8], [[1.25]], [MergeTerm(A)], preset("ties", **{"lambda": "0.5"})).item() != 1.25


@pytest.mark.parametrize("name", PRESETS)
def test_order_of_adding_changes_no_bit(name: str) -> None:
    base, afters = weights(6, torch.bfloat16)
    terms = [MergeTerm(A, 0.7), MergeTerm(B, -0.4), MergeTerm(C, 1.0, join="add")]
    rules = preset(name)
    outputs = [
        reference.merge({"w": base}, [{"w": afters[k]} for k in order], [terms[k] for k in order], rules)["w"]
        for order in permutations(range(3))
    ]
    assert all(same_bits(out, outputs[0]) for out in outputs)


def test_terms_are_ordered_by_id_alpha_and_density() -> None:
    terms = [
        MergeTerm(B, 1.0),
        MergeTerm(A, 1.0),
        MergeTerm(A, -0.5),
        MergeTerm(A, 1.0, density=0.2),
        MergeTerm(A, 1.0, join="add"),
        MergeTerm(A, 1.0, only=("x",)),
    ]
    assert canonical_order(terms, preset("ties")) == [2, 3, 5, 4, 1, 0]


def test_strength_is_additive_while_the_total_is_under_one() -> None:
    terms = [MergeTerm(A, 0.5), MergeTerm(B, 0.25)]
    assert merged([0.0], [[4.0], [8.0]], terms, preset("ties")).item() == 4.0
    assert merged([0.0], [[4.0], [8.0]], terms, preset("ties", divide="count")).item() == 2.0


@pytest.mark.parametrize("alpha", [2.0, -3.0, 0.3, -1.0, 1.5])
def test_a_lone_vector_at_any_alpha_is_the_base_and_so_many_times_its_change(alpha: float) -> None:
    random = np.random.default_rng(1)
    base, after = random.normal(size=(2, 200)).astype(np.float32)
    out = merged(base.tolist(), [after.tolist()], [MergeTerm(A, float(np.float32(alpha)))], preset("ties"))
    want = base + np.float32(alpha) * (after - base)
    np.testing.assert_array_equal(out.numpy(), want)


def test_equal_strengths_above_one_are_so_many_times_the_mean() -> None:
    for alpha in (2.0, 3.0, -4.0):
        terms = [MergeTerm(A, alpha), MergeTerm(B, alpha)]
        assert merged([0.0], [[4.0], [8.0]], terms, preset("ties")).item() == 6 * alpha


def test_mass_keeps_the_mean_whatever_the_scale_and_the_signs() -> None:
    for scale in (0.125, 1.0, 8.0, -2.0):
        terms = [MergeTerm(A, scale), MergeTerm(B, 3 * scale)]
        out = merged([0.0], [[4.0], [8.0]], terms, preset("ties", divide="mass")).item()
        assert out == (7.0 if scale > 0 else -7.0)


def test_numbers_have_no_fine_tune_to_come_out_as() -> None:
    """1 + 2^-30 rounds to 1, the base; a fine-tune would have said how it was meant."""
    base = torch.tensor([1.0, -0.0])
    t = reference.Numbers(torch.tensor([2.0**-30, -0.0]))
    out = reference.merge({"w": base}, [{"w": t}], [MergeTerm(A)], preset("ties"))["w"]
    assert out.tolist() == [1.0, 0.0]
    assert out.signbit().tolist() == [False, True]


def test_weights_that_cancel_divide_by_one() -> None:
    terms = [MergeTerm(A, 1.0), MergeTerm(B, -1.0)]
    assert merged([0.0], [[4.0], [-2.0]], terms, preset("mergekit")).item() == 6.0


def test_ties_drop_or_are_positive_or_follow_the_majority() -> None:
    terms = [MergeTerm(A), MergeTerm(B)]
    afters = [[2.0, 1.0, 1.0, 0.0], [-2.0, 0.0, 1.0, -1.0]]
    flat = [0.0] * 4
    assert merged(flat, afters, terms, preset("ties")).tolist() == [0, 1, 1, -1]
    assert merged(flat, afters, terms, preset("ties", on_tie="positive")).tolist() == [2, 1, 1, -1]
    assert merged(flat, afters, terms, preset("ties", on_tie="majority")).tolist() == [2, 1, 1, -1]
    opposite = [[-number for number in after] for after in afters]
    assert merged(flat, opposite, terms, preset("ties", on_tie="majority")).tolist() == [-2, -1, -1, 1]


def test_a_majority_of_zero_is_negative() -> None:
    terms = [MergeTerm(A), MergeTerm(B)]
    out = merged([0.0] * 3, [[2.0, 1.0, 0.0], [-2.0, 0.0, -1.0]], terms, preset("ties", on_tie="majority"))
    assert out.tolist() == [-2, 1, -1]


def test_the_majority_is_counted_over_the_whole_model() -> None:
    base = {
        "w": torch.zeros(1),
        "x": torch.zeros(3, dtype=torch.bfloat16),
        "n": torch.zeros(2, dtype=torch.int64),
    }
    one = {"w": torch.tensor([1.0]), "x": torch.ones(3, dtype=torch.bfloat16)}
    two = {"w": torch.tensor([-1.0])}
    rules = preset("ties", on_tie="majority")
    assert reference.merge(base, [one, two], [MergeTerm(A), MergeTerm(B)], rules)["w"].item() == 1
    filtered = [MergeTerm(A, except_=("x",)), MergeTerm(B)]
    assert reference.merge(base, [one, two], filtered, rules)["w"].item() == -1


def test_alpha_zero_votes_only_when_alpha_comes_after() -> None:
    terms = [MergeTerm(A, 0.0), MergeTerm(B, 1.0)]
    afters = [[4.0], [-1.0]]
    assert merged([0.0], afters, terms, preset("ties", weigh="before")).item() == -1
    assert merged([0.0], afters, terms, preset("ties", weigh="after")).item() == 0


def test_max_takes_the_first_in_order_among_equals() -> None:
    terms = [MergeTerm(B, 1.0), MergeTerm(A, -1.0)]
    rules = preset("linear", merge="max")
    assert merged([0.0], [[2.0], [2.0]], terms, rules).item() == -2


def test_lambda_scales_what_was_elected_and_not_what_is_added() -> None:
    terms = [MergeTerm(A), MergeTerm(B, join="add")]
    out = merged([0.0], [[2.0], [8.0]], terms, preset("ties", **{"lambda": "0.5"}))
    assert out.item() == 9


def test_an_add_term_neither_votes_nor_is_trimmed() -> None:
    terms = [MergeTerm(A), MergeTerm(B, join="add")]
    out = merged([0.0] * 4, [[1.0, 2, 3, 4], [-8.0, -8, -8, -1]], terms, preset("ties", density="0.25"))
    assert out.tolist() == [-8, -8, -8, 3]


@pytest.mark.parametrize(
    ("name", "kept"), [("ties", 1), ("paper", 2), ("peft", 1), ("mergekit", 1), ("joint", 1), ("linear", 4)]
)
def test_each_preset_keeps_its_rank(name: str, kept: int) -> None:
    axes = {} if name == "linear" else {"density": "0.25"}
    rules = preset(name, **axes)
    out = merged(
        [0.0] * 4, [[1.0, 2.0, 3.0, 4.0], [0.0] * 4], [MergeTerm(A), MergeTerm(B, only=("z",))], rules
    )
    assert int((out != 0).sum()) == kept


def test_rank_floor_may_keep_nothing_and_floor1_keeps_one() -> None:
    afters = [[1.0, 2.0, 3.0, 4.0]]
    assert merged([0.0] * 4, afters, [MergeTerm(A)], preset("peft", density="0.2")).tolist() == [0, 0, 0, 0]
    assert merged([0.0] * 4, afters, [MergeTerm(A)], preset("ties", density="0.2")).tolist() == [0, 0, 0, 4]


def test_magnitudes_that_tie_at_the_cut_are_all_kept() -> None:
    out = merged([0.0] * 4, [[2.0, -2.0, 2.0, 1.0]], [MergeTerm(A)], preset("ties", density="0.25"))
    assert out.tolist() == [2, -2, 2, 0]


def test_a_global_cut_counts_what_the_vector_leaves_unchanged() -> None:
    base = {"w": torch.zeros(2), "x": torch.zeros(6), "i": torch.zeros(8, dtype=torch.int32)}
    after = {"w": torch.tensor([1.0, 2.0])}
    wide = reference.merge(base, [after], [MergeTerm(A)], preset("paper", density="0.2"))
    assert wide["w"].tolist() == [1, 2]
    narrow = reference.merge(base, [after], [MergeTerm(A)], preset("paper", density="0.1"))
    assert narrow["w"].tolist() == [0, 2]


def test_a_joint_cut_is_shared_and_counts_alpha_zero() -> None:
    terms = [MergeTerm(A), MergeTerm(B, 0.0)]
    rules = preset("joint", density="0.5", divide="strength")
    assert merged([0.0] * 2, [[1.0, 2.0], [3.0, 4.0]], terms, rules).tolist() == [0, 0]
    assert merged([0.0] * 2, [[1.0, 2.0], [0.5, 0.5]], terms, rules).tolist() == [1, 2]


def test_a_joint_stack_holds_a_term_that_joins_by_adding_too() -> None:
    terms = [MergeTerm(A), MergeTerm(B, join="add")]
    rules = preset("joint", density="0.5")
    assert merged([0.0] * 2, [[1.0, 2.0], [32.0, 64.0]], terms, rules).tolist() == [32, 64]


def test_filters_and_alpha_do_not_move_a_cut() -> None:
    rules = preset("ties", density="0.5")
    base = {"w": torch.zeros(2), "x": torch.zeros(2)}
    after = {"w": torch.tensor([1.0, 2.0]), "x": torch.tensor([10.0, 20.0])}
    terms = [MergeTerm(A, 0.5, only=("w",))]
    out = reference.merge(base, [after], terms, rules)
    assert out["w"].tolist() == [0, 1]
    assert out["x"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("dtype", "bits"), [(torch.bfloat16, 0x7FC0), (torch.float16, 0x7E00), (torch.float32, 0x7FC00000)]
)
def test_a_rounding_that_overflows_is_the_canonical_nan_and_counted(dtype: torch.dtype, bits: int) -> None:
    most = torch.finfo(dtype).max
    base = {"w": torch.tensor([most, -most, 1.0], dtype=dtype)}
    after = {"w": torch.tensor([most / 2, -most / 2, 2.0], dtype=dtype)}
    out = reference.merge(base, [after], [MergeTerm(A, -2.0)], preset("linear"))
    signed = torch.int32 if dtype == torch.float32 else torch.int16
    assert out["w"][2].item() == -1
    assert out["w"].view(signed)[:2].tolist() == [bits, bits]
    assert reference.not_finite(base, out) == {"w": 2}


def test_a_difference_beyond_binary32_is_the_fine_tune_where_it_is_alone() -> None:
    out = merged([3e38], [[-3e38]], [MergeTerm(A)], preset("ties", density="0.5"))
    assert out.item() == torch.tensor(-3e38).item()
    assert merged([3e38], [[-3e38]], [MergeTerm(A, 0.5)], preset("ties")).isnan().all()


@pytest.mark.parametrize("join", ["vote", "add"])
def test_alpha_zero_is_the_base_even_where_the_difference_overflows(join: str) -> None:
    for name in PRESETS:
        density = {} if PRESETS[name]["density"] is None else {"density": "1"}
        out = merged([3e38, -0.0], [[-3e38, 3e38]], [MergeTerm(A, 0.0, join=join)], preset(name, **density))
        assert torch.equal(out, torch.tensor([3e38, -0.0]))
        assert out[1].signbit()


def test_infinite_changes_against_each_other_are_not_finite() -> None:
    out = merged(
        [0.0], [[3e38], [3e38], [-3e38], [-3e38]], [MergeTerm(v * 64, 2.0) for v in "abcd"], preset("ties")
    )
    assert out.isnan().all()


def test_a_divisor_beyond_binary32_is_not_finite() -> None:
    terms = [MergeTerm(A, 3e38), MergeTerm(B, 3e38)]
    assert merged([1.0], [[1.0 + 2**-20]] * 2, terms, preset("ties")).isnan().all()


def test_what_is_not_finite_stays_when_nobody_changed_it() -> None:
    base = [NAN, INF, -INF, 1.0]
    out = merged(
        base, [[NAN, INF, -INF, 2.0], [NAN, INF, -INF, 3.0]], [MergeTerm(A), MergeTerm(B)], preset("ties")
    )
    assert torch.equal(out[1:], torch.tensor([INF, -INF, 2.5]))
    assert out[0].isnan()


def test_a_change_to_or_from_what_is_not_finite_is_refused() -> None:
    for base, after in ((1.0, NAN), (INF, 1.0), (INF, -INF)):
        with pytest.raises(InvalidInput, match="first at 1"):
            merged([0.0, base], [[0.0, after]], [MergeTerm(A)], preset("ties"))


def test_other_dtypes_are_copied_and_must_not_differ() -> None:
    base = {"n": torch.tensor(3), "b": torch.tensor([True]), "w": torch.zeros(())}
    out = reference.merge(base, [{"w": torch.ones(())}], [MergeTerm(A)], preset("ties"))
    assert out["n"].item() == 3
    assert out["b"].item() is True
    assert out["w"].item() == 1
    with pytest.raises(InvalidInput, match=r"^n:"):
        reference.merge(base, [{"n": torch.tensor(4)}], [MergeTerm(A)], preset("ties"))


def test_a_product_is_taken_in_binary64_before_the_floor() -> None:
    after = np.arange(1, 101, dtype=np.float32).tolist()
    out = merged([0.0] * 100, [after], [MergeTerm(A)], preset("ties", density="0.29"))
    assert int((out != 0).sum()) == 28


def test_low_rank_adds_products_in_order() -> None:
    a, b = torch.tensor([[1e8, 1.0], [1.0, 1.0], [-1e8, 1.0]]), torch.tensor([[1.0, 1.0, 1.0]])
    assert reference.low_rank(a, b, 0.5).tolist() == [[0.0, 1.5]]


def test_an_expression_of_one_vector_once_is_that_vector() -> None:
    tau = torch.randn(16, generator=torch.Generator().manual_seed(0))
    assert same_bits(reference.expression([tau], [1.0]), tau)
