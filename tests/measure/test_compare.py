"""Tallies and elections against plain numpy over whole tensors."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import InvalidInput, Refused
from persona.measure import compare as statistics
from persona.measure import elections
from persona.measure.compare import Comparison, compare
from persona.merge.arithmetic.casts import widen, widen32
from persona.merge.memory import budget_of
from persona.merge.plan import Plan
from persona.merge.reference_trims import filtered
from persona.merge.rules import MergeRules, MergeTerm
from persona.merge.trim.cutoffs import cutoffs
from persona.objects.recipe import Term
from persona.objects.rules import Rules
from tests.merge.models import Model, Sandbox, run
from tests.merge.strategies import SETTINGS, draw_model, draw_rules, draw_terms, one_model


def weights(plan: Plan, model: Model) -> dict[str, Any]:
    """The bits of every float tensor that a plan materialises."""
    found, _ = run(plan, model, threads=1, allow_nonfinite=True)
    return {
        name: np.frombuffer(found[name], bits.dtype)
        for name, (dtype, _, bits) in model.items()
        if dtype != "I64"
    }


def check_tally(one: Comparison, old: Any, new: Any) -> None:
    dtype = one.spec.dtype
    with np.errstate(invalid="ignore"):
        before, after = widen(old, dtype), widen(new, dtype)
        change = after - before
    assert one.tally.elements == old.size
    assert one.tally.changed == np.count_nonzero(old != new)
    assert one.tally.change == pytest.approx(np.square(change[np.isfinite(change)]).sum(), rel=1e-12)
    assert one.tally.before == pytest.approx(np.square(before[np.isfinite(before)]).sum(), rel=1e-12)
    assert one.tally.not_finite == np.count_nonzero((old != new) & ~np.isfinite(after))


def check_election(one: Comparison, plan: Plan, base: Model, afters: dict[str, Model]) -> None:
    """Every number of an election, from the formulas of docs/numerics.md over the whole tensor."""
    name, dtype = one.spec.name, one.spec.dtype
    tensor, rules = plan.by_name[name], MergeRules.of(plan.recipe.rules)
    cuts = cutoffs(plan, plan.tensors, budget_of(plan, plan.tensors, 1))
    old = widen32(base[name][2].reshape(-1), dtype)
    size, count = old.size, len(plan.recipe.terms)
    t, u, w, v = (np.zeros((count, size), np.float32) for _ in range(4))
    e = np.zeros(size, np.float32)
    voting = []
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for k in tensor.terms:
            term = plan.recipe.terms[k]
            tuned, bits = afters[term.vector][name][2].reshape(-1), base[name][2].reshape(-1)
            t[k] = np.where(tuned == bits, 0, widen32(tuned, dtype) - old)
            t[k] = filtered(torch.from_numpy(t[k]), MergeTerm.of(term), rules, name).numpy()
            t[k][~np.isfinite(t[k])] = 0
            (theta,) = cuts.theta(tensor, [k])
            keep = np.ones(size, bool) if np.isnan(theta) else (abs(t[k]) >= theta) & (theta >= 0)
            u[k] = np.where(keep, t[k], 0)
            w[k] = np.float32(term.alpha_at(None)) * u[k]
            if term.join == "vote":
                voting.append(k)
                v[k] = u[k] if rules.weigh == "after" else w[k]
                e = e + (v[k] if rules.elect == "mass" else np.sign(v[k]))
        s = np.where(e == 0, np.float32(rules.tie(cuts.majority)), np.sign(e))
        lost = np.zeros(count)
        for k in voting:
            member = (v[k] * s > 0) | (rules.elect == "none")
            lost[k] = abs(w[k][~member].astype(np.float64)).sum()
    found, wide = one.election, t.astype(np.float64)
    assert found.kept.tolist() == np.count_nonzero(u, axis=1).tolist()
    np.testing.assert_allclose(found.squares, (wide**2).sum(1), rtol=1e-12)
    np.testing.assert_allclose(found.mass, abs(w.astype(np.float64)).sum(1), rtol=1e-12)
    np.testing.assert_allclose(found.lost, lost, rtol=1e-12)
    for j in range(count):
        for k in range(j + 1, count):
            both = (w[j] != 0) & (w[k] != 0)
            assert found.shared[j, k] == np.count_nonzero(both)
            assert found.opposed[j, k] == np.count_nonzero(both & (np.sign(w[j]) != np.sign(w[k])))
            products = wide[j] * wide[k]
            room = 1e-12 * abs(products).sum()
            assert found.products[j, k] == pytest.approx(products.sum(), rel=1e-12, abs=room)


@SETTINGS
@given(st.data())
def test_statistics_are_those_of_the_whole_tensors(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 4))
    base, drawn = draw_model(data.draw, count)
    rules = [data.draw(draw_rules()) for _ in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        sandbox = Sandbox(Path(folder), base)
        afters: dict[str, Model] = {}
        for after in drawn:
            try:
                afters[sandbox.vector(after).id] = after
            except Refused:
                continue
        plans = [sandbox.plan(draw_terms(data.draw, list(afters), axes), axes) for axes in rules]
        found = list(compare(*plans, threads=data.draw(st.integers(1, 4))))
        old, new = (weights(plan, base) for plan in plans)
        for one in found:
            check_tally(one, old[one.spec.name], new[one.spec.name])
            check_election(one, plans[1], base, afters)
    assert [one.spec.name for one in found] == sorted(old)


@pytest.mark.parametrize("block", [7, 64])
def test_statistics_do_not_depend_on_threads(tmp_path: Path, monkeypatch: Any, block: int) -> None:
    for module in (elections, statistics):
        monkeypatch.setattr(module, "BLOCK", block)
    base, first, second = one_model()
    sandbox = Sandbox(tmp_path, base)
    rules = Rules.of("ties", density="0.2")
    terms = [Term(name, sandbox.vector(after).id) for name, after in (("a", first), ("b", second))]
    plans = sandbox.plan([], rules), sandbox.plan(terms, rules)

    def numbers(threads: int) -> list[object]:
        return [
            (one.tally, *(array.tolist() for name, array in vars(one.election).items() if name != "terms"))
            for one in compare(*plans, threads=threads)
        ]

    assert numbers(1) == numbers(5) == numbers(8)


def test_a_vector_alone_is_measured_whole(tmp_path: Path) -> None:
    base, after, _ = one_model(dtype="F32")
    sandbox = Sandbox(tmp_path, base)
    rules = Rules.of("ties")
    plans = sandbox.plan([], rules), sandbox.plan([Term("a", sandbox.vector(after).id)], rules)
    for one in compare(*plans, elections=False):
        check_tally(one, base[one.spec.name][2].reshape(-1), after[one.spec.name][2].reshape(-1))
        assert one.election.terms == 0


def test_two_recipes_that_are_the_same_differ_in_nothing(tmp_path: Path) -> None:
    base, after, _ = one_model()
    sandbox = Sandbox(tmp_path, base)
    one = sandbox.plan([Term("a", sandbox.vector(after).id, alpha="0.5")], Rules.of("ties"))
    for found in compare(one, one):
        assert (found.tally.changed, found.tally.change) == (0, 0.0)
        assert found.tally.before > 0 or not found.spec.elements


def test_many_terms_are_counted_without_their_pairs(tmp_path: Path) -> None:
    base, after, _ = one_model()
    sandbox = Sandbox(tmp_path, base)
    id = sandbox.vector(after).id
    terms = [Term(f"v{k}", id, alpha=f"0.{k + 10}") for k in range(elections.MAX_PAIRED + 1)]
    found = list(compare(sandbox.plan([], Rules.of("ties")), sandbox.plan(terms, Rules.of("ties"))))
    assert all(one.election.shared.size == 0 for one in found)
    assert sum(one.election.kept.sum() for one in found) > 0


def test_bases_of_other_chunks_are_refused(tmp_path: Path) -> None:
    base, _, _ = one_model()
    plans = []
    for chunk in (64, 128):
        folder = tmp_path / str(chunk)
        folder.mkdir()
        plans.append(Sandbox(folder, base, chunk=chunk).plan([], Rules.of("ties")))
    with pytest.raises(InvalidInput, match="chunks of different lengths"):
        next(compare(*plans))
