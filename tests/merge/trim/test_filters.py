"""The rows that breadcrumbs, DARE and DELLA leave are those of the reference, in every order and slice."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from persona.codec.delta import restore
from persona.merge import reference_trims
from persona.merge.arithmetic import layout
from persona.merge.arithmetic.filters import SMALLEST, ElementFilter
from persona.merge.plan import Plan
from persona.merge.rows.reader import Workspaces
from persona.merge.rows.slices import Budget
from persona.merge.rows.stored import StoredRows
from persona.merge.rules import MergeRules, MergeTerm, keep_below
from persona.merge.trim import breadcrumbs, della
from persona.merge.trim.cutoffs import Cutoffs, cutoffs
from persona.objects.recipe import Term
from persona.objects.rules import Rules
from persona.store.files import replaced_calls
from tests.disks import Quick
from tests.merge.chunks import tensor
from tests.merge.models import Model, Sandbox
from tests.merge.strategies import FILTERED, SETTINGS, STYLES, elements

DTYPES = ["BF16", "F16", "F32"]
SIZES = [1, 2, 63, 64, 65, 128, 200]


def words(*values: int) -> list[torch.Tensor]:
    return [torch.tensor([value]) for value in values]


@pytest.mark.parametrize(
    ("counter", "key", "drawn"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF, 0xFFFFFFFF),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_generator_gives_the_published_words(
    counter: tuple[int, ...], key: tuple[int, int], drawn: tuple[int, ...]
) -> None:
    """The known answers of philox4x32-10 in kat_vectors of Random123."""
    assert tuple(int(word) for word in reference_trims.philox(words(*counter), key)) == drawn


@pytest.mark.parametrize(("below", "kept"), [(0x6627E8D5, False), (0x6627E8D6, True)])
def test_the_loops_draw_the_published_word(below: int, kept: bool) -> None:
    some = ElementFilter("", key=(0, 0), below=np.array([below], np.int64))
    t, z = np.ones(1, np.float32), np.ones(1, np.uint16)
    some.numbers(t, 0)
    some.steps(np.zeros(1, np.uint16), z, 0, None, "BF16")
    assert (bool(t[0]), bool(z[0])) == (kept, kept)


@pytest.mark.parametrize(("below", "kept"), [(0x6627E8D5, False), (0x6627E8D6, True)])
def test_the_reference_draws_the_published_word(below: int, kept: bool) -> None:
    t, density = torch.ones(1), below * 2.0**-32
    assert bool(reference_trims.dare(t, density, rescale=False, key=(0, 0))) is kept
    assert bool(reference_trims.della(t, density, 0.1, rescale=False, key=(0, 0))) is kept


def test_the_loops_keep_what_is_tied_at_a_cut_off() -> None:
    t = np.array([0.5, 1, -1, 2, -3, 3, 4], np.float32)
    low, high = (int(np.float32(one).view(np.uint32)) for one in (1, 3))
    some = ElementFilter("", low=low, high=high)
    numbers = t.copy()
    some.numbers(numbers, 0)
    assert numbers.tolist() == [0, 1, -1, 2, -3, 3, 0]
    base = np.array([0x3F800000] * 7, np.uint32)
    tuned = np.array([0.5, 0.75, 1.25, 1.5, 0.5, 1.75, 2], np.float32).view(np.uint32)
    z = np.array([int(one) - int(b) for one, b in zip(tuned, base, strict=True)], np.int64)
    z = ((z << 1) ^ (z >> 63)).astype(np.uint32)
    low, high = (int(np.float32(one).view(np.uint32)) for one in (0.5, 0.75))
    before = z.copy()
    ElementFilter("", low=low, high=high).steps(base, z, 0, None, "F32")
    assert (z == before).tolist() == [True, False, False, True, True, True, False]


@given(
    t=st.lists(
        st.sampled_from([0.0, 1e-44, 0.5, -0.5, 0.501, 1.0, -3.0, 3.5, 1e30]), min_size=1, max_size=40
    ),
    density=st.sampled_from([0.5, 0.3]),
    epsilon=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_the_probabilities_of_della_are_those_of_the_reference(
    t: list[float], density: float, epsilon: float
) -> None:
    values = np.array(t, np.float32)
    upper = (values.view(np.uint32) & 0x7FFFFFFF) >> 16
    sizes, counts = np.unique(upper[values != 0], return_counts=True)
    ranked = sizes.astype(np.uint16), counts.astype(np.int64)
    made = della.filter_of("", ranked, len(t), density, epsilon, rescale=True, key=(0, 0))
    wanted = reference_trims.probabilities(torch.from_numpy(values), density, epsilon)[values != 0]
    at = upper[values != 0].astype(np.int64) - made.bottom
    assert made.below[at].tolist() == [keep_below(one) for one in wanted.tolist()]
    assert made.divisors[at].tolist() == wanted.float().tolist()


def test_the_counter_has_64_bits() -> None:
    first, half, key = (1 << 32) - 20, 1 << 31, (5, 6)
    index = torch.arange(first, first + 40)
    zero = torch.zeros_like(index)
    (drawn, *_) = reference_trims.philox((index & 0xFFFFFFFF, index >> 32, zero, zero), key)
    t, z = np.ones(40, np.float32), np.ones(40, np.uint16)
    some = ElementFilter("", key=key, below=np.array([half], np.int64))
    some.numbers(t, first)
    order = np.arange(40, dtype=np.uint32)[::-1].copy()
    some.steps(np.zeros(40, np.uint16), z, first, order, "BF16")
    assert (t != 0).tolist() == (drawn < half).tolist() == (z[::-1] != 0).tolist()


def test_a_rank_beyond_all_elements_is_no_low_cut() -> None:
    """With γ + d = 1, rank = plus1 asks for one element more than there are."""
    search = breadcrumbs.search("plus1", 0.9, 0.1, 10)
    assert tuple(search.ranks) == (11, 2)
    assert breadcrumbs.bounds(search)[0] == SMALLEST


def difference(before: Any, after: Any, dtype: str) -> torch.Tensor:
    """t of bits: 0 where they are the same."""
    t = tensor(after, dtype).float() - tensor(before, dtype).float()
    return torch.where(torch.from_numpy(before == after), torch.zeros(()), t)


def rows_of(plan: Plan, cuts: Cutoffs, budget: Budget) -> dict[str, torch.Tensor]:
    """t of the first term in each tensor that it reaches, as it is merged: float32[n]."""
    rows = StoredRows(plan.rows, budget, Workspaces(plan.base.tensors, plan.base.chunk), cuts.filter)
    found = {}
    for one in plan.tensors:
        if not one.terms:
            continue
        spec, made = one.spec, np.zeros(one.spec.units, np.float32)
        for index in range(plan.chunks(one)):
            start = index * plan.base.chunk
            for part in rows.parts(spec, one.terms[:1], index) or ():
                row, size = part.row(0), part.sorted_base.size
                t = row
                if row.dtype != np.float32:
                    tuned = np.empty_like(row)
                    restore(part.sorted_base, row, np.arange(size, dtype=np.uint32), tuned)
                    t = difference(part.sorted_base, tuned, spec.dtype).numpy()
                made[start + part.order[:size].astype(np.int64)] = t
        found[spec.name] = torch.from_numpy(made)
    return found


def by_reference(base: Model, after: Model, term: Term, rules: Rules) -> dict[str, torch.Tensor]:
    found = {}
    for name, (dtype, _, bits) in base.items():
        if dtype in DTYPES and (after[name][2] != bits).any():
            t = difference(bits, after[name][2], dtype)
            found[name] = reference_trims.filtered(t, MergeTerm.of(term), MergeRules.of(rules), name)
    return found


@st.composite
def filtering(draw: st.DrawFn, preset: str) -> Rules:
    """Rules with a filter whose gamma or epsilon fits its density."""
    axes: dict[str, Any] = {"density": draw(st.sampled_from(["0.5", "0.2", "0.9", "0.01", "0.333"]))}
    if "breadcrumbs" in preset:
        axes["gamma"] = draw(st.sampled_from(["0", "0.01", "0.1"]))
        axes["rank"] = draw(st.sampled_from(["floor", "floor1", "plus1"]))
    else:
        axes["rescale"] = draw(st.sampled_from(["true", "false", "norm"]))
        axes["seed"] = draw(st.integers(0, 3))
    if "della" in preset:
        axes["epsilon"] = draw(st.sampled_from(["0", "0.005", "0.01"]))
    return Rules.of(preset, **axes)


@SETTINGS
@given(st.data())
def test_a_filtered_row_equals_the_reference(data: st.DataObject) -> None:
    base: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for name in ("a", "b", "c"):
        dtype, style = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(STYLES))
        size = data.draw(st.sampled_from(SIZES))
        bits, (tuned,) = elements(data.draw(st.integers(0, 1 << 32)), dtype, 1, style, size)
        base[name], after[name] = (dtype, (size,), bits), (dtype, (size,), tuned)
    assume(any((after[name][2] != base[name][2]).any() for name in base))
    rules = data.draw(filtering(data.draw(st.sampled_from(FILTERED))))
    chunk, memory = data.draw(st.sampled_from([64, 128])), data.draw(st.sampled_from([1, 1 << 20]))
    with (
        tempfile.TemporaryDirectory() as folder,
        replaced_calls(Quick()),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(layout, "SHORTEST_SLICE", 16)
        sandbox = Sandbox(Path(folder), base, chunk=chunk)
        term = Term("v", sandbox.vector(after).id, alpha="0.5")
        plan, budget = sandbox.plan([term], rules), Budget(1, memory)
        found = rows_of(plan, cutoffs(plan, plan.tensors, budget), budget)
    want = by_reference(base, after, term, rules)
    assert found.keys() == want.keys()
    for name, t in want.items():
        assert torch.equal(found[name].view(torch.int32), t.view(torch.int32) * (t != 0)), name
