"""A seed decides the draws of DARE and DELLA. Nothing else of a merge changes a draw."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from persona.merge import reference, reference_trims
from persona.merge.arithmetic import layout
from persona.merge.arithmetic.filters import MagnitudeSum
from persona.merge.rows.reader import Workspaces
from persona.merge.rows.slices import Budget
from persona.merge.rows.stored import StoredRows
from persona.merge.rules import MergeRules, MergeTerm, draw_key, keep_below, norm_factor
from persona.merge.trim.cutoffs import cutoffs
from persona.merge.trim.densities import CACHE
from persona.merge.trim.walk import Walk
from persona.objects.recipe import Term, to_binary32
from persona.objects.rules import Rules
from tests.merge.chunks import bits as bits_of
from tests.merge.chunks import tensor
from tests.merge.models import Sandbox, run
from tests.merge.strategies import elements

CHUNK, SIZE, VECTORS = 256, 1000, 3
DRAWING = ["dare_linear", "dare_ties", "della_linear", "della"]


class Drawn:
    """Three vectors over three dtypes, and a digest of their merge."""

    def __init__(self, folder: Path) -> None:
        self.model: dict[str, Any] = {}
        tuned: list[dict[str, Any]] = [{} for _ in range(VECTORS)]
        for seed, (name, dtype) in enumerate((("a", "BF16"), ("b", "F16"), ("c", "F32"))):
            bits, afters = elements(seed, dtype, VECTORS, "weights", SIZE + seed)
            self.model[name] = (dtype, bits.shape, bits)
            for k, after in enumerate(afters):
                tuned[k][name] = (dtype, bits.shape, after)
        self.tuned = tuned
        self.sandbox = Sandbox(folder, self.model, chunk=CHUNK)
        self.ids = [self.sandbox.vector(after).id for after in tuned]

    def terms(self, *names: str, only: tuple[str, ...] = ()) -> list[Term]:
        """Terms of the first vectors; the filter is that of the last one."""
        filters = [()] * (len(names) - 1) + [only]
        return [
            Term(name, id, alpha="0.7", only=filter_)
            for name, id, filter_ in zip(names, self.ids, filters, strict=False)
        ]

    def bytes(self, terms: list[Term], rules: Rules, **options: Any) -> dict[str, bytes]:
        return run(self.sandbox.plan(terms, rules), self.model, **options)[0]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    return Drawn(tmp_path_factory.mktemp("draws"))


def half(preset: str, **axes: Any) -> Rules:
    return Rules.of(preset, density="0.5", **axes)


@pytest.mark.parametrize("rescale", [True, False, "norm"])
@pytest.mark.parametrize("preset", DRAWING)
def test_a_seed_gives_the_same_bits_on_any_threads_and_in_slices(
    drawn: Drawn, preset: str, rescale: bool | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules, terms = half(preset, rescale=rescale, seed=7), drawn.terms("x", "y", "z")
    want = drawn.bytes(terms, rules, threads=1)
    assert drawn.bytes(terms, rules, threads=8) == want
    monkeypatch.setattr(layout, "SHORTEST_SLICE", 64)
    plan = drawn.sandbox.plan(terms, rules)
    tensor = plan.tensors[0]
    row_bytes = plan.rows.row_bytes(tensor.spec, tensor.terms)
    found = []
    for length in (CHUNK, 64):
        budget = Budget(1, length * row_bytes)
        cuts = cutoffs(plan, plan.tensors, budget)
        stored = StoredRows(plan.rows, budget, Workspaces(plan.base.tensors, CHUNK), cuts.filter)
        parts = stored.parts(tensor.spec, tensor.terms, 1) or ()
        found.append([part.row(0).tobytes() for part in parts])
    whole, sliced = found
    assert (len(whole), len(sliced)) == (1, CHUNK // 64)
    assert b"".join(sliced) == whole[0]


@pytest.mark.parametrize("rescale", [True, "norm"])
@pytest.mark.parametrize("preset", DRAWING)
def test_another_seed_gives_another_draw_and_the_same_seed_the_same(
    drawn: Drawn, preset: str, rescale: bool | str
) -> None:
    terms = drawn.terms("x", "y", "z")
    found = [drawn.bytes(terms, half(preset, rescale=rescale, seed=seed)) for seed in (0, 7, 7, 8)]
    assert found[1] == found[2]
    for name in drawn.model:
        assert len({made[name] for made in found}) == 3


@pytest.mark.parametrize("preset", DRAWING)
def test_names_and_other_vectors_change_no_draw(drawn: Drawn, preset: str) -> None:
    rules = half(preset, seed=7)
    alone = drawn.bytes(drawn.terms("x"), rules)
    assert drawn.bytes(drawn.terms("renamed"), rules) == alone
    beside = drawn.bytes(drawn.terms("x", "y", only=("b",)), rules)
    assert (beside["a"], beside["c"]) == (alone["a"], alone["c"])
    assert beside["b"] != alone["b"]
    filtered = drawn.bytes(drawn.terms("x", only=("c",)), rules)
    assert filtered["c"] == alone["c"]
    assert filtered["a"] == drawn.model["a"][2].tobytes()


def test_seed_vector_and_tensor_each_have_draws_of_their_own() -> None:
    keys = {
        draw_key(seed, vector, tensor)
        for seed in ("0", "1")
        for vector in ("a" * 64, "b" * 64)
        for tensor in ("w", "x")
    }
    assert len(keys) == 8
    first = reference_trims.draws(1000, draw_key("0", "a" * 64, "w"))
    other = reference_trims.draws(1000, draw_key("1", "a" * 64, "w"))
    assert not (first == other).any()


@pytest.mark.parametrize("probability", [0.0, 2.0**-32, 2.0**-33, 0.1, 0.3, 0.5, 0.7, 1 - 2.0**-33, 1.0])
def test_a_probability_is_cut_to_32_bits(probability: float) -> None:
    assert keep_below(probability) == int(Fraction(probability) * 2**32)


def test_the_fraction_that_is_kept_is_the_density() -> None:
    t = torch.randn(200_000, generator=torch.Generator().manual_seed(1))
    for density in (0.1, 0.5, 0.93):
        kept = reference_trims.dare(t, density, rescale=False, key=(1, 2)) != 0
        assert kept.float().mean().item() == pytest.approx(density, abs=0.005)
        p = reference_trims.probabilities(t, density, 0.05)
        assert p.mean().item() == pytest.approx(density, abs=1e-9)
        kept = reference_trims.della(t, density, 0.05, rescale=False, key=(1, 2)) != 0
        large = t.abs() > t.abs().median()
        assert kept[large].float().mean().item() == pytest.approx(density + 0.025, abs=0.006)
        assert kept[~large].float().mean().item() == pytest.approx(density - 0.025, abs=0.006)


def test_a_rescaled_draw_keeps_the_mean() -> None:
    t = torch.full((200_000,), 0.25)
    for u in (
        reference_trims.dare(t, 0.3, rescale=True, key=(3, 4)),
        reference_trims.della(torch.linspace(0.1, 0.4, 200_000), 0.3, 0.2, rescale=True, key=(3, 4)),
    ):
        assert u.mean().item() == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize("preset", ["dare_ties", "della"])
def test_a_norm_is_found_once_and_found_again_if_the_cache_was_deleted(
    drawn: Drawn, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms, rules = drawn.terms("x", "y"), half(preset, rescale="norm", seed=11)
    want = drawn.bytes(terms, rules)
    with monkeypatch.context() as patch:
        patch.setattr(Walk, "masses", None)
        assert drawn.bytes(terms, rules) == want
        for other in (
            half(preset, rescale="norm", seed=12),
            Rules.of(preset, density="0.6", rescale="norm", seed=11),
            half("della", rescale="norm", seed=11, epsilon="0.1"),
            half("della", rescale="norm", seed=11, trim="dare"),
        ):
            with pytest.raises(TypeError):  # it has factors of its own
                drawn.bytes(terms, other)
    for file in (drawn.sandbox.folder / ".persona" / "cache" / CACHE).iterdir():
        file.unlink()
    assert drawn.bytes(terms, rules) == want


NEAR = 2.0**-24
"""The relative error of one rounding to binary32."""


@pytest.mark.parametrize("preset", ["dare_linear", "della_linear"])
def test_a_norm_keeps_the_sum_of_magnitudes(preset: str) -> None:
    t = torch.randn(20_000, generator=torch.Generator().manual_seed(2))
    rules = MergeRules.of(Rules.of(preset, density="0.2", rescale="norm", seed=3))
    u = reference_trims.filtered(t, MergeTerm("a" * 64), rules, "w")
    every, kept = (each.double().abs().sum().item() for each in (t, u))
    assert 0.1 < (u != 0).float().mean().item() < 0.3
    assert abs(kept - every) <= 2.01 * NEAR * every  # one rounding of the factor, one of each product


def test_a_sum_of_magnitudes_is_exact_in_any_order_and_parts() -> None:
    random = np.random.default_rng(4)
    bits = random.integers(0, 0x7F800000, 5000, dtype=np.uint32)
    bits |= random.choice([np.uint32(0), np.uint32(1 << 31)], bits.size)
    bits[:3] = 0, 1, 0x007FFFFF  # zero, the smallest and the largest subnormal
    found = []
    for order, lengths in ((bits, (5000,)), (random.permutation(bits), (1, 2, 1000, 3997))):
        total = MagnitudeSum()
        for part in np.split(order, np.cumsum(lengths)[:-1]):
            total.add(part.view(np.float32).copy())
        found.append(total.units)
    want = sum(Fraction(abs(float(each))) for each in bits.view(np.float32))
    assert found == [want * 2**149] * 2
    for strange in (np.inf, -np.inf, np.nan):
        total.add(np.array([strange], np.float32))
        assert total.units is None


@pytest.mark.parametrize(
    ("every", "kept", "factor"),
    [
        (3, 2, 1.5),
        (Fraction(4, 3), 1, float(np.float32(4 / 3))),
        (1 + Fraction(1, 2**24), 1, 1.0),  # halfway between two binary32: to even
        (
            1 + Fraction(1, 2**24) + Fraction(1, 2**149),
            1,
            1 + 2.0**-23,
        ),  # just above, which binary64 rounds off
        (0, 0, 1.0),
        (5, 0, 1.0),
        (1, Fraction(1, 10**7) - Fraction(1, 2**149), 1.0),
        (1, Fraction(1, 10**7) + Fraction(1, 2**149), 1e7),
        (10**39, 1, np.inf),
        (None, 1, np.nan),
        (None, None, np.nan),
    ],
)
def test_the_factor_is_the_exact_quotient_rounded_once(
    every: Fraction | int | None, kept: Fraction | int | None, factor: float
) -> None:
    units = [None if each is None else round(each * 2**149) for each in (every, kept)]
    np.testing.assert_equal(norm_factor(*units), factor)


def test_a_change_that_is_not_finite_makes_a_norm_not_finite() -> None:
    t = torch.full((100,), 0.5)
    t[7] = float("inf")
    u = reference_trims.filtered(
        t, MergeTerm("a" * 64), MergeRules.of(half("dare_ties", rescale="norm")), "w"
    )
    assert {*u[u == 0].tolist()} == {0}
    assert u[u != 0].isnan().all()


def test_equal_chunks_at_two_places_are_drawn_apart(tmp_path: Path) -> None:
    """A row cache must not take the filtered row of one chunk for that of the other."""
    bits, (after,) = elements(1, "BF16", 1, "weights", CHUNK)
    model: dict[str, Any] = {"w": ("BF16", (2 * CHUNK,), np.tile(bits, 2))}
    sandbox = Sandbox(tmp_path, model, chunk=CHUNK)
    id = sandbox.vector({"w": ("BF16", (2 * CHUNK,), np.tile(after, 2))}).id
    plan = sandbox.plan([Term("v", id)], half("dare_ties"))
    spec, budget = plan.tensors[0].spec, Budget(1, 1 << 20)
    cuts = cutoffs(plan, plan.tensors, budget)
    stored = StoredRows(plan.rows, budget, Workspaces(plan.base.tensors, CHUNK), cuts.filter)
    assert plan.sources[0].chunk_id(spec, 0) == plan.sources[0].chunk_id(spec, 1)
    assert stored.changes(spec, [0], 0) != stored.changes(spec, [0], 1)
    first, second = (next(iter(stored.parts(spec, [0], index) or ())).row(0).copy() for index in (0, 1))
    assert (first != second).any()


@pytest.mark.parametrize("preset", ["breadcrumbs_ties", *DRAWING])
def test_an_expression_is_filtered_as_one_vector(drawn: Drawn, preset: str) -> None:
    one, two, _ = drawn.ids
    id = drawn.sandbox.expression(**{one: "1", two: "-0.5"})
    rules = half(preset)
    plan = drawn.sandbox.plan([Term("e", id, alpha="0.7"), Term("z", drawn.ids[2], alpha="0.4")], rules)
    found = run(plan, drawn.model, threads=2)[0]
    base = {name: tensor(bits, dtype) for name, (dtype, _, bits) in drawn.model.items()}
    tuned = [{name: tensor(bits, dtype) for name, (dtype, _, bits) in each.items()} for each in drawn.tuned]
    order = sorted((0, 1), key=lambda k: drawn.ids[k])
    numbers = {
        name: reference.Numbers(
            reference.expression(
                [reference.tau(base[name], tuned[k][name]) for k in order], [(1.0, -0.5)[k] for k in order]
            )
        )
        for name in base
    }
    (identity,) = {source.identity for source in plan.sources} - set(drawn.ids)
    terms = [
        MergeTerm(id, to_binary32("0.7"), identity=identity),
        MergeTerm(drawn.ids[2], to_binary32("0.4")),
    ]
    want = reference.merge(base, [numbers, tuned[2]], terms, MergeRules.of(rules))
    assert found == {name: bits_of(merged).tobytes() for name, merged in want.items()}


@pytest.mark.parametrize("rescale", ["true", "norm"])
def test_a_layer_at_density_1_is_whole_and_the_others_are_drawn(tmp_path: Path, rescale: str) -> None:
    names = [f"model.layers.{layer}.w" for layer in range(3)]
    model: dict[str, Any] = {}
    tuned: dict[str, Any] = {}
    for seed, name in enumerate(names):
        bits, (after,) = elements(seed, "BF16", 1, "weights", 300)
        model[name], tuned[name] = ("BF16", (300,), bits), ("BF16", (300,), after)
    sandbox, rules = Sandbox(tmp_path, model), Rules.of("dare_ties", seed=7, rescale=rescale)
    term = Term("v", sandbox.vector(tuned).id, density=("0.5", "0.4", "1"))
    found = run(sandbox.plan([term], rules), model)[0]
    tensors = [{name: tensor(each[name][2], "BF16") for name in names} for each in (model, tuned)]
    want = reference.merge(tensors[0], [tensors[1]], [MergeTerm.of(term)], MergeRules.of(rules))
    assert found == {name: bits_of(merged).tobytes() for name, merged in want.items()}
    assert found[names[2]] == tuned[names[2]][2].tobytes()
    assert found[names[0]] != tuned[names[0]][2].tobytes()


# -- against the formulas of mergekit 0.1.5, with these masks put in


def by_mergekit(
    base: torch.Tensor, deltas: list[torch.Tensor], weights: list[float], *, elect: bool, normalize: bool
) -> torch.Tensor:
    """A merge of trimmed changes as mergekit computes it in float32."""
    weighted = torch.stack([weight * delta for weight, delta in zip(weights, deltas, strict=True)])
    shares = torch.tensor(weights).reshape(-1, 1)
    if elect:
        majority = torch.where(weighted.sum(dim=0) >= 0, 1.0, -1.0)
        agree = (weighted.sign() == majority).float()
        mixed, divisor = (weighted * agree).sum(dim=0), (shares * agree).sum(dim=0)
        divisor[divisor == 0] = 1
    else:
        mixed, divisor = weighted.sum(dim=0), shares.sum(dim=0).expand(base.shape)
    return base + (mixed / divisor if normalize else mixed)


@pytest.mark.parametrize(
    ("preset", "elect", "normalize"),
    [
        ("breadcrumbs", False, False),
        ("breadcrumbs_ties", True, False),
        ("dare_linear", False, False),
        ("dare_ties", True, False),
        ("della_linear", False, False),
        ("della", True, True),
    ],
)
def test_given_the_mask_a_merge_is_that_of_mergekit(preset: str, elect: bool, normalize: bool) -> None:
    random = torch.Generator().manual_seed(5)
    base = torch.randn(5000, generator=random)
    afters = [base + 0.01 * torch.randn(5000, generator=random) for _ in range(2)]
    rescale = {} if "breadcrumbs" in preset else {"rescale": False, "seed": 9}
    rules = MergeRules.of(half(preset, **rescale))
    terms = [MergeTerm(id * 64, alpha) for id, alpha in (("a", 0.75), ("b", 0.5))]
    found = reference.merge({"w": base}, [{"w": after} for after in afters], terms, rules)["w"]
    deltas = [after - base for after in afters]
    masks = [
        reference_trims.filtered(t, term, rules, "w") != 0 for t, term in zip(deltas, terms, strict=True)
    ]
    assert 0.45 < np.mean([mask.float().mean().item() for mask in masks]) < 0.55
    trimmed = [delta * mask for delta, mask in zip(deltas, masks, strict=True)]
    want = by_mergekit(base, trimmed, [0.75, 0.5], elect=elect, normalize=normalize)
    assert torch.equal(found, want)


def rescaled_by_mergekit(tensor: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """`rescaled_masked_tensor` of mergekit 0.1.5 for `rescale: true`: sums in the dtype of the tensor."""
    masked = tensor * mask
    before_scale = tensor.abs().sum()
    after_scale = masked.abs().sum()
    if before_scale < 1e-7 or after_scale < 1e-7:
        return masked
    return masked * (before_scale / after_scale)


@pytest.mark.parametrize(
    ("preset", "elect", "normalize"),
    [
        ("dare_linear", False, False),
        ("dare_ties", True, False),
        ("della_linear", False, False),
        ("della", True, True),
    ],
)
def test_given_the_mask_a_merge_with_norm_is_that_of_mergekit(
    preset: str, elect: bool, normalize: bool
) -> None:
    """To the bit, because every sum of these magnitudes is a binary32: no order of additions rounds."""
    random = torch.Generator().manual_seed(6)
    base = torch.randint(-512, 512, (5000,), generator=random) / 64
    deltas = [torch.randint(-1000, 1000, (5000,), generator=random) / 4096 for _ in range(2)]
    rules = MergeRules.of(half(preset, rescale="norm", seed=9))
    terms = [MergeTerm(id * 64, alpha) for id, alpha in (("a", 0.75), ("b", 0.5))]
    found = reference.merge({"w": base}, [{"w": base + t} for t in deltas], terms, rules)["w"]
    kept = [reference_trims.filtered(t, term, rules, "w") for t, term in zip(deltas, terms, strict=True)]
    assert 0.45 < np.mean([(u != 0).float().mean().item() for u in kept]) < 0.55
    trimmed = [rescaled_by_mergekit(t, (u != 0).float()) for t, u in zip(deltas, kept, strict=True)]
    assert all(map(torch.equal, kept, trimmed))
    want = by_mergekit(base, trimmed, [0.75, 0.5], elect=elect, normalize=normalize)
    assert torch.equal(found, want)


@pytest.mark.parametrize("preset", ["dare_linear", "della_linear"])
def test_a_norm_differs_from_mergekits_by_the_rounding_of_its_sums(preset: str) -> None:
    """With the sums in binary64, mergekit's factor is at most one binary32 beside the exact one."""
    t = 1e-3 * torch.randn(50_000, generator=torch.Generator().manual_seed(7))
    rules = MergeRules.of(Rules.of(preset, density="0.3", rescale="norm", seed=5))
    u = reference_trims.filtered(t, MergeTerm("a" * 64), rules, "w")
    mask = u != 0
    theirs = rescaled_by_mergekit(t.double(), mask.double())
    assert bool(((u.double() - theirs).abs() <= 2.01 * NEAR * theirs.abs()).all())
    theirs = rescaled_by_mergekit(t, mask.float()).double()
    assert bool(((u.double() - theirs).abs() <= 1e-6 * theirs.abs()).all())


@pytest.mark.parametrize("scale", [1e-9, 1e-13])
def test_a_sum_that_mergekit_calls_0_is_not_matched(scale: float) -> None:
    """mergekit does not divide by a sum below 10^−7: 0.9·10^−7 of 100 elements, and less."""
    t = torch.full((100,), 1.8 * scale)
    rules = MergeRules.of(half("dare_linear", rescale="norm", seed=2))
    u = reference_trims.filtered(t, MergeTerm("a" * 64), rules, "w")
    assert torch.equal(u, rescaled_by_mergekit(t, (u != 0).float()))
    assert {*u.tolist()} == {0.0, t[0].item()}


@pytest.mark.parametrize("gamma", ["0", "0.01", "0.1"])
@pytest.mark.parametrize("density", ["0.5", "0.333", "0.9"])
def test_breadcrumbs_keeps_what_mergekit_keeps_where_nothing_is_tied(density: str, gamma: str) -> None:
    t = torch.randn(1009, generator=torch.Generator().manual_seed(3))
    n, kept, top = t.numel(), int(float(density) * t.numel()), int(float(gamma) * t.numel())
    order = t.abs().sort().indices
    mask = torch.zeros(n, dtype=torch.bool)
    mask[order[n - kept - top : n - top]] = True
    rules = MergeRules.of(Rules.of("breadcrumbs", density=density, gamma=gamma))
    assert torch.equal(reference_trims.filtered(t, MergeTerm("a" * 64), rules, "w") != 0, mask)


def test_breadcrumbs_keeps_all_that_are_tied_at_both_cuts() -> None:
    t = torch.tensor([5.0, 4, -4, 3, 3, 2, -2, 1, 0, 0])
    kept = reference_trims.breadcrumbs(t, 0.4, 0.2)  # the two largest go, four of the others stay
    assert kept.tolist() == [0, 4, -4, 3, 3, 2, -2, 0, 0, 0]


def test_breadcrumbs_that_keeps_no_element_keeps_none_that_is_tied() -> None:
    t = torch.tensor([5.0, 5, 1, 1, 1, 1, 1, 1, 1, 1])
    assert not reference_trims.breadcrumbs(t, 0.01, 0.1).any()
    assert reference_trims.breadcrumbs(t, 0.01, 0.1, "floor1").count_nonzero() == 2
