"""Recipes with adapters give the reference's bits: beside deltas, trimmed, voting, on any threads."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import Refused
from persona.merge import reference
from persona.merge.arithmetic import casts
from persona.merge.rules import MergeRules, MergeTerm
from persona.objects.recipe import Term, from_binary32
from persona.objects.rules import Rules
from persona.objects.tensors import TensorSpec
from persona.objects.vector import LowRankFactor
from persona.store.files import replaced_calls
from tests.disks import Quick
from tests.merge import chunks
from tests.merge.models import Model, Sandbox, run
from tests.merge.strategies import SETTINGS, SHAPES, draw_model, draw_rules, draw_terms, one_model

DTYPES = ("BF16", "F16", "F32")
Factors = dict[str, tuple[LowRankFactor, Any, Any]]


def tensors(model: Model) -> dict[str, torch.Tensor]:
    return {
        name: chunks.tensor(bits, dtype).reshape(shape)
        for name, (dtype, shape, bits) in model.items()
        if dtype in chunks.TORCH
    }


def factor_of(
    spec: TensorSpec, rank: int, dtype: str, scale: float, seed: int
) -> tuple[LowRankFactor, Any, Any]:
    """A random factor of a tensor."""
    random = np.random.default_rng(seed)
    factor = LowRankFactor(rank, from_binary32(float(np.float32(scale))), dtype)
    parts = [
        casts.narrow32(random.normal(0, 0.1, part.shape).astype(np.float32), dtype).reshape(part.shape)
        for part in (factor.a(spec), factor.b(spec))
    ]
    return factor, parts[0], parts[1]


def numbers(model: Model, factors: Factors) -> dict[str, Any]:
    """t of each factor by the reference."""
    found: dict[str, Any] = {}
    for name, (factor, *parts) in factors.items():
        a, b = (
            torch.tensor(casts.widen32(bits.reshape(-1), factor.dtype).reshape(bits.shape[1:]))
            for bits in parts
        )
        t = reference.low_rank(a, b, float(factor.scale)).reshape(model[name][1])
        found[name] = reference.Numbers(t)
    return found


def equal(found: Mapping[str, bytes], want: Mapping[str, torch.Tensor], model: Model) -> None:
    for name, merged in want.items():
        ours = np.frombuffer(found[name], model[name][2].dtype)
        np.testing.assert_array_equal(ours, chunks.bits(merged), err_msg=name)


@SETTINGS
@given(st.data())
def test_adapters_beside_deltas_equal_the_reference(data: st.DataObject) -> None:
    draw = data.draw
    base, afters = draw_model(draw, draw(st.integers(1, 3)))
    rules = draw(draw_rules())
    with tempfile.TemporaryDirectory() as folder, replaced_calls(Quick()):
        sandbox = Sandbox(Path(folder), base)
        changes: dict[str, Any] = {}
        for after in afters:
            try:
                changes[sandbox.vector(after).id] = tensors(after)
            except Refused:
                continue
        deltas = list(changes)
        for _ in range(draw(st.integers(1, 3))):
            reached = draw(
                st.sets(st.sampled_from([name for name in SHAPES if 0 not in SHAPES[name] != ()]), min_size=1)
            )
            factors = {
                name: factor_of(
                    sandbox.base.spec[name],
                    draw(st.integers(1, 40)),
                    draw(st.sampled_from(DTYPES)),
                    draw(st.floats(-2, 2)),
                    draw(st.integers(0, 99)),
                )
                for name in sorted(reached)
            }
            dense = draw(st.sampled_from(deltas)) if deltas and draw(st.booleans()) else None
            held = dict(changes[dense]) if dense else {}
            changes[sandbox.adapter(factors, dense)] = {**held, **numbers(base, factors)}
        ids = draw(st.permutations(list(changes)))[: draw(st.integers(1, 6))]
        terms = draw_terms(draw, list(ids), rules)
        made = sandbox.plan(terms, rules)
        found, result = run(made, base, threads=draw(st.integers(1, 8)), allow_nonfinite=True)
        again, _ = run(sandbox.plan(terms[::-1], rules), base, threads=1, allow_nonfinite=True)
    want = reference.merge(
        tensors(base),
        [changes[term.vector] for term in terms],
        [MergeTerm.of(term) for term in terms],
        MergeRules.of(rules),
    )
    equal(found, want, base)
    assert result.not_finite == reference.not_finite(tensors(base), want)
    assert again == found


def test_three_adapters_of_different_ranks_and_a_delta_under_ties(tmp_path: Path) -> None:
    base, after, _ = one_model()
    sandbox = Sandbox(tmp_path, base)
    changes: dict[str, Any] = {sandbox.vector(after).id: tensors(after)}
    matrices = [
        name for name, (dtype, shape, _) in base.items() if dtype in DTYPES and len(shape) == 2 and all(shape)
    ]
    for seed, rank in enumerate((4, 16, 33)):
        factors = {name: factor_of(sandbox.base.spec[name], rank, "BF16", 0.5, seed) for name in matrices}
        changes[sandbox.adapter(factors)] = numbers(base, factors)
    rules = Rules.of("ties", density="0.2")
    terms = [Term(f"v{number}", id) for number, id in enumerate(changes)]
    found, _ = run(sandbox.plan(terms, rules), base)
    want = reference.merge(
        tensors(base),
        [changes[term.vector] for term in terms],
        [MergeTerm.of(term) for term in terms],
        MergeRules.of(rules),
    )
    equal(found, want, base)
    assert any(found[name] != base[name][2].tobytes() for name in matrices)
