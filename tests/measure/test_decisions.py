"""The decisions of a tensor are the votes of the reference, whatever the recipe and the threads."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import Refused, UsageError
from persona.measure import decisions
from persona.measure.decisions import Bands, Decisions, decide
from persona.merge import reference
from persona.merge.plan import Plan
from persona.merge.rules import MergeRules, MergeTerm
from persona.objects.recipe import Term
from persona.objects.rules import Rules
from tests.merge.kinds import dense
from tests.merge.models import Model, Sandbox
from tests.merge.strategies import SETTINGS, draw_model, draw_rules, draw_terms, one_model

COUNTS = ("changes", "kept", "joined", "decided", "outvoted")


def by_reference(plan: Plan, base: Model, afters: dict[str, Model], name: str) -> Decisions:
    """The decisions of a tensor from the reference's differences, cut-offs and votes."""
    tensors, rules = dense(base), MergeRules.of(plan.recipe.rules)
    terms = [MergeTerm.of(term) for term in plan.recipe.terms]
    changes = [reference._filtered(tensors, dense(afters[term.vector]), term, rules) for term in terms]
    taus = [{n: reference.tau(b, each.get(n, b)) for n, b in tensors.items()} for each in changes]
    cuts = {n: reference.thresholds(taus, terms, rules, n) for n in tensors}
    tie = 0
    if rules.needs_majority:
        each = ([tau[n] for tau in taus] for n in tensors)
        tie = sum(
            reference._majority(t, cuts[n], terms, rules, n) for t, n in zip(each, tensors, strict=True)
        )
    admitted = [k for k, term in enumerate(terms) if term.admits(name)]
    raw = [taus[k][name].flatten() for k in admitted]
    t = [torch.where(one.isfinite(), one, torch.zeros(())) for one in raw]
    own = [terms[k] for k in admitted]
    theta = [cuts[name][k] for k in admitted]
    w, v, e = reference._votes(t, theta, own, rules)
    s = torch.where(e > 0, 1, torch.where(e < 0, -1, torch.where(e == 0, rules.tie(tie), 0)))
    parts = np.zeros((len(admitted), tensors[name].numel()))
    inside = {k: (w[k] != 0 if rules.elect == "none" else v[k] * s > 0).numpy() for k in w}
    shares = {k: {"count": 1.0, "weight": own[k].alpha}.get(rules.divide or "", abs(own[k].alpha)) for k in w}
    divisor = sum((np.where(inside[k], shares[k], 0.0) for k in w), np.zeros(parts.shape[1]))
    if rules.divide == "strength":
        strongest = np.ones(parts.shape[1])
        for k in w:
            strongest = np.maximum(strongest, np.where(inside[k], abs(own[k].alpha), 0.0))
        divisor = np.maximum(divisor, 1.0) / strongest
    divisor = np.where((divisor == 0) | (rules.merge != "mean"), 1.0, divisor)
    for k in w:
        parts[k] = np.where(inside[k], w[k].double().numpy() / divisor * rules.lambda_, 0.0)
    if rules.merge == "max" and w:
        best = np.argmax([np.abs(parts[k]) for k in w], axis=0)
        for number, k in enumerate(w):
            parts[k][best != number] = 0
    for k in range(len(admitted)):
        if k not in w:
            parts[k] = t[k].double().numpy() * own[k].alpha
    found = Decisions(len(terms))
    bands = Bands.of(tuple(tensors[name].shape), tensors[name].numel())
    for k, index in enumerate(admitted):
        found.changes[index] = int((t[k] != 0).sum())
        kept = reference._kept(t[k], theta[k]) if k in w else t[k] != 0
        found.kept[index] = int(kept.sum())
        found.joined[index] = np.count_nonzero(parts[k])
        found.size[index] = np.abs(parts[k]).sum()
        moved = np.abs(parts).max(axis=0) > 0
        largest = np.argmax(np.abs(parts), axis=0)
        found.decided[index] = np.count_nonzero(moved & (largest == k))
        if k in w:
            lost = (w[k] != 0).numpy() & ~inside[k]
            found.outvoted[index] = np.count_nonzero(lost)
            for place in np.flatnonzero(lost):
                found.bands[index, bands.of_elements(place)] += 1
                winner = max(w, key=lambda j: (abs(parts[j][place]), -j))
                if parts[winner][place] != 0:
                    found.by[index, admitted[winner]] += 1
    return found


@SETTINGS
@given(st.data())
def test_decisions_are_the_votes_of_the_reference(data: st.DataObject) -> None:
    base, drawn = draw_model(data.draw, data.draw(st.integers(1, 4)))
    axes = data.draw(draw_rules())
    with tempfile.TemporaryDirectory() as folder:
        sandbox = Sandbox(Path(folder), base)
        afters: dict[str, Model] = {}
        for after in drawn:
            try:
                afters[sandbox.vector(after).id] = after
            except Refused:
                continue
        plan = sandbox.plan(draw_terms(data.draw, list(afters), axes), axes)
        for tensor in plan.tensors:
            if not tensor.spec.merged or not tensor.spec.elements:
                continue
            found = decide(plan, tensor, threads=data.draw(st.integers(1, 3)))
            with np.errstate(over="ignore", invalid="ignore", under="ignore"):
                wanted = by_reference(plan, base, afters, tensor.spec.name)
            for name in (*COUNTS, "by", "bands"):
                assert getattr(found, name).tolist() == getattr(wanted, name).tolist(), name
            np.testing.assert_allclose(found.size, wanted.size, rtol=1e-9)


@pytest.mark.parametrize("divide", ["count", "strength", "weight"])
def test_without_an_election_a_term_shares_only_what_it_changes(tmp_path: Path, divide: str) -> None:
    def model(*values: float) -> Model:
        return {"w": ("F32", (4,), np.array(values, np.float32).view(np.uint32))}

    sandbox = Sandbox(tmp_path, model(0, 0, 0, 0))
    terms = [
        Term(name, sandbox.vector(model(*after)).id)
        for name, after in (("a", (4, 4, 0, 0)), ("b", (0, 2, 8, 0)))
    ]
    plan = sandbox.plan(terms, Rules.of("ties", trim="none", elect="none", divide=divide))
    found = decide(plan, plan.tensors[0])
    assert sorted(found.size.tolist()) == [4 + 4 / 2, 2 / 2 + 8]


@pytest.mark.parametrize("block", [7, 64])
def test_decisions_do_not_depend_on_threads_or_memory(tmp_path: Path, monkeypatch: Any, block: int) -> None:
    monkeypatch.setattr(decisions, "BLOCK", block)
    base, first, second = one_model()
    sandbox = Sandbox(tmp_path, base)
    terms = [Term(name, sandbox.vector(after).id) for name, after in (("a", first), ("b", second))]
    plan = sandbox.plan(terms, Rules.of("ties", density="0.2"))

    def numbers(threads: int, memory: int | None = None) -> list[object]:
        made = [decide(plan, one, threads=threads, memory=memory) for one in plan.tensors if one.spec.merged]
        return [[getattr(one, name).tolist() for name in (*COUNTS, "by", "bands")] for one in made]

    assert numbers(1) == numbers(5) == numbers(3, 64 << 20)
    with pytest.raises(UsageError, match="need at least"):
        numbers(1, 10)


def test_vector_alone_decides_all_that_it_changes(tmp_path: Path) -> None:
    base, after, _ = one_model(dtype="F32")
    sandbox = Sandbox(tmp_path, base)
    plan = sandbox.plan([Term("a", sandbox.vector(after).id)], Rules.of("ties"))
    for tensor in plan.tensors:
        if tensor.terms:
            name = tensor.spec.name
            found = decide(plan, tensor)
            old, new = (dense(model)[name].double() for model in (base, after))
            count = int((old != new).sum())
            assert [getattr(found, each).tolist() for each in COUNTS] == [[count]] * 4 + [[0]]
            assert found.size[0] == pytest.approx(float((new - old).abs().sum()), rel=1e-6)


def test_outvoted_weights_are_counted_by_rows() -> None:
    assert Bands.of((64, 10), 640) == Bands(64, 2, 10)
    assert Bands.of((5,), 5).of_elements(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
    assert Bands.of((), 1) == Bands(1, 1, 1)
