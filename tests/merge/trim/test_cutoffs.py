"""The cut-offs of the grid, found when a vector is taken in, are those that a selection finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.merge.arithmetic import cpu
from persona.merge.rules import KEEP_NOTHING, NO_TRIM, cut_rank
from persona.merge.trim.cutoffs import kept_fraction, prepare
from persona.merge.trim.densities import CACHE, DENSITIES, CutoffTable, grid_ranks, on_grid
from persona.merge.trim.selection import Magnitudes, Selection
from persona.merge.trim.walk import reached
from persona.objects.recipe import Term
from persona.objects.rules import Rules
from tests.merge.models import Model, Sandbox, run
from tests.merge.strategies import one_model

SOME = st.lists(st.integers(0, 40).map(lambda n: n / 8), max_size=60)


def as_magnitudes(numbers: list[float], elements: int) -> Magnitudes:
    bits = np.array([number for number in numbers if number], np.float32).view(np.uint32)
    return Magnitudes.join(elements, [(bits[k::2], np.ones(bits[k::2].size, np.int64)) for k in (0, 1)])


@given(SOME, st.integers(0, 20), st.lists(st.integers(-1, 90), min_size=1, max_size=10))
def test_a_cut_of_counted_magnitudes_is_the_order_statistic(
    numbers: list[float], zeros: int, ranks: list[int]
) -> None:
    everything = sorted([*numbers, *[0.0] * zeros], reverse=True)
    theta, kept = as_magnitudes(numbers, len(everything)).cut(np.array(ranks))
    for rank, cut, count in zip(ranks, theta.tolist(), kept.tolist(), strict=True):
        if rank <= 0:
            assert (cut, count) == (KEEP_NOTHING, 0)
        elif rank > len(everything):
            assert np.isnan(cut)
            assert count == np.count_nonzero(numbers)
        else:
            assert cut == everything[rank - 1]
            assert count == sum(number != 0 and number >= cut for number in numbers)


@given(SOME, st.integers(0, 20))
def test_radix_selection_finds_the_same_cuts(numbers: list[float], zeros: int) -> None:
    elements = len(numbers) + zeros
    bits = np.array([number for number in numbers if number], np.float32).view(np.uint32)
    selection = Selection(elements, grid_ranks(elements))
    np.add.at(selection.high, bits >> 16, 1)
    selection.open_bins()
    rows = selection.row_of[bits >> 16]
    np.add.at(selection.low, (rows[rows >= 0], (bits & 0xFFFF)[rows >= 0]), 1)
    want = as_magnitudes(numbers, elements).cut(grid_ranks(elements))
    for found, expected in zip(selection.cut(), want, strict=True):
        np.testing.assert_array_equal(found, expected)


@given(st.integers(0, 10**9))
def test_the_ranks_of_the_grid_are_those_of_the_rules(elements: int) -> None:
    ranks = grid_ranks(elements).reshape(3, -1)
    for row, rule in zip(ranks, ("floor1", "plus1", "floor"), strict=True):
        assert row.tolist() == [cut_rank(rule, density, elements) for density in DENSITIES.tolist()]


@pytest.mark.parametrize(
    ("density", "index"), [(0.01, 0), (0.29, 28), (1.0, 99), (0.295, None), (1e-9, None)]
)
def test_only_hundredths_are_on_the_grid(density: float, index: int | None) -> None:
    assert on_grid(density) == index


def few_values(seed: int) -> tuple[Model, Model, Model]:
    return one_model(seed, "BF16")


def many_values(seed: int) -> tuple[Model, Model, Model]:
    """fp32, with more distinct magnitudes than a tensor's import counts."""
    random = np.random.default_rng(seed)
    models: list[dict[str, Any]] = [{}, {}, {}]
    for name, size in {"big": 60_000, "small": 500}.items():
        for content in models:
            numbers = random.normal(size=size).astype(np.float32)
            content[name] = ("F32", (size,), numbers.view(np.uint32))
    return models[0], models[1], models[2]


@pytest.mark.parametrize("make", [few_values, many_values])
@pytest.mark.parametrize("preset", ["ties", "peft", "paper"])
def test_a_checkout_on_the_grid_equals_one_that_selects(tmp_path: Path, make: Any, preset: str) -> None:
    base, first, second = make(3)
    chunk = 1 << 16
    sandbox = Sandbox(tmp_path, base, chunk=chunk)
    terms = [Term("a", sandbox.vector(first).id), Term("b", sandbox.vector(second).id, density="0.07")]
    rules = Rules.of(preset, density="0.3")
    selected = run(sandbox.plan(terms, rules), base)[1].weights
    fractions = [kept_fraction(sandbox.plan(terms, rules), terms[0].vector, 0.3, threads=2)]
    for term in terms:
        alone = sandbox.plan([Term("v", term.vector)], Rules.of())
        prepare(alone, term.vector, sandbox.imported[term.vector].magnitudes, threads=2)
        assert (
            CutoffTable.read(sandbox.store, term.vector, len(reached(alone, alone.source_of(term.vector))))
            is not None
        )
    assert run(sandbox.plan(terms, rules), base)[1].weights == selected
    fractions.append(kept_fraction(sandbox.plan(terms, rules), terms[0].vector, 0.3, threads=2))
    assert fractions[0] == fractions[1] > 0


def test_a_grid_is_the_same_however_much_of_it_was_counted(tmp_path: Path) -> None:
    base, tuned, _ = many_values(4)
    sandbox = Sandbox(tmp_path, base, chunk=1 << 16)
    id = sandbox.vector(tuned).id
    alone = sandbox.plan([Term("v", id)], Rules.of())
    counted = {}
    for spec in reached(alone, alone.source_of(id)):
        before, after = (model[spec.name][2].view(np.float32) for model in (base, tuned))
        changes = np.abs(after - before).view(np.uint32)
        counted[spec.name] = Magnitudes.join(
            spec.elements, [np.unique(changes[changes > 0], return_counts=True)]
        )
    assert list(sandbox.imported[id].magnitudes) == ["small"]
    grids = []
    for magnitudes in (counted, sandbox.imported[id].magnitudes, {}):
        prepare(alone, id, magnitudes, threads=2)
        grids.append(CutoffTable.read(sandbox.store, id, 2))
    for grid in grids:
        np.testing.assert_array_equal(grid.theta, grids[0].theta)
        np.testing.assert_array_equal(grid.kept, grids[0].kept)


def test_a_density_on_the_grid_needs_no_selection_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, first, second = one_model()
    sandbox = Sandbox(tmp_path, base)
    passes: list[int] = []
    counted = cpu.count_high
    monkeypatch.setattr(cpu, "count_high", lambda *arrays: (passes.append(1), counted(*arrays)))
    terms = [Term("a", sandbox.vector(first).id), Term("b", sandbox.vector(second).id)]
    for term in terms:
        alone = sandbox.plan([Term("v", term.vector)], Rules.of())
        prepare(alone, term.vector, sandbox.imported[term.vector].magnitudes, threads=1)
    for density in ("0.2", "0.31"):
        run(sandbox.plan(terms, Rules.of("ties", density=density)), base)
    assert not passes
    run(sandbox.plan(terms, Rules.of("ties", density="0.205")), base)
    once = len(passes)
    assert once
    run(sandbox.plan(terms, Rules.of("ties", density="0.205")), base)
    assert len(passes) == once


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:40] + b"\x00" + data[41:], lambda data: b""]
)
def test_a_damaged_grid_is_found_again_by_selection(tmp_path: Path, damage: Any) -> None:
    base, first, second = one_model()
    sandbox = Sandbox(tmp_path, base)
    terms = [Term("a", sandbox.vector(first).id), Term("b", sandbox.vector(second).id)]
    rules = Rules.of("ties", density="0.2")
    want = run(sandbox.plan(terms, rules), base)[1].weights
    for term in terms:
        prepare(sandbox.plan(terms, rules), term.vector, sandbox.imported[term.vector].magnitudes, threads=1)
    for path in (tmp_path / ".persona" / "cache" / CACHE).iterdir():
        path.write_bytes(damage(path.read_bytes()))
    assert run(sandbox.plan(terms, rules), base)[1].weights == want


def test_no_trim_is_not_a_number_and_keeps_every_change() -> None:
    assert np.isnan(NO_TRIM)
    theta, kept = as_magnitudes([1.0, 2.0], 3).cut(np.array([4]))
    assert np.isnan(theta[0])
    assert kept.tolist() == [2]
