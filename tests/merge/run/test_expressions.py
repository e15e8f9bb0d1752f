"""Recipes with expressions give the reference's bits: one vote, one cut, whatever the memory and threads."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import Refused
from persona.merge import reference
from persona.merge.rules import MergeRules, MergeTerm
from persona.objects.recipe import Term, to_binary32
from persona.objects.rules import PRESETS, Rules
from persona.store.files import replaced_calls
from tests.disks import Quick
from tests.merge import chunks
from tests.merge.models import Model, Sandbox, run
from tests.merge.strategies import SETTINGS, draw_model, draw_rules, draw_terms, one_model

Sums = Mapping[str, Mapping[str, str]]
"""Expression id → vector id → coefficient."""


def tensors(model: Model) -> dict[str, torch.Tensor]:
    return {
        name: chunks.tensor(bits, dtype).reshape(shape)
        for name, (dtype, shape, bits) in model.items()
        if dtype in chunks.TORCH
    }


def changes(base: Model, fine_tunes: Mapping[str, Model], sums: Sums, id: str) -> dict[str, Any]:
    """What the reference takes for a vector: its fine-tune, or the numbers of its sum."""
    if id in fine_tunes:
        return tensors(fine_tunes[id])
    coefficients = dict(sorted(sums[id].items()))
    if list(coefficients.values()) == ["1"]:
        return tensors(fine_tunes[next(iter(coefficients))])
    before, found = tensors(base), {}
    for name in before:
        parts = [
            part for part in coefficients if not np.array_equal(base[name][2], fine_tunes[part][name][2])
        ]
        if parts:
            taus = [reference.tau(before[name], tensors(fine_tunes[part])[name]) for part in parts]
            numbers = [to_binary32(coefficients[part]) for part in parts]
            found[name] = reference.Numbers(reference.expression(taus, numbers))
    return found


def term_of(term: Term, sums: Sums) -> MergeTerm:
    """The reference's term; an expression that is one vector itself has that vector's draws."""
    parts = list(sums.get(term.vector, {}).items())
    itself = parts[0][0] if len(parts) == 1 and parts[0][1] == "1" else None
    return replace(MergeTerm.of(term), identity=itself)


def by_reference(
    base: Model, fine_tunes: Mapping[str, Model], sums: Sums, terms: list[Term], rules: Rules
) -> dict[str, torch.Tensor]:
    return reference.merge(
        tensors(base),
        [changes(base, fine_tunes, sums, term.vector) for term in terms],
        [term_of(term, sums) for term in terms],
        MergeRules.of(rules),
    )


@SETTINGS
@given(st.data())
def test_the_stream_equals_the_reference(data: st.DataObject) -> None:
    base, afters = draw_model(data.draw, data.draw(st.integers(1, 5)))
    rules = data.draw(draw_rules())
    with tempfile.TemporaryDirectory() as folder, replaced_calls(Quick()):
        sandbox = Sandbox(Path(folder), base)
        fine_tunes: dict[str, Model] = {}
        for after in afters:
            try:
                fine_tunes[sandbox.vector(after).id] = after
            except Refused:
                continue
        if not fine_tunes:
            return
        coefficients = st.sampled_from(["1", "-1", "0.5", "-0.3", "2", "0.1", "-12.5"])
        parts = st.dictionaries(st.sampled_from(sorted(fine_tunes)), coefficients, min_size=1)
        sums = {sandbox.expression(**one): one for one in data.draw(st.lists(parts, min_size=1, max_size=3))}
        ids = data.draw(st.permutations([*fine_tunes, *sums]))[: data.draw(st.integers(1, 6))]
        terms = draw_terms(data.draw, list(ids), rules)
        made = sandbox.plan(terms, rules)
        found, result = run(made, base, threads=data.draw(st.integers(1, 8)), allow_nonfinite=True)
        again, _ = run(sandbox.plan(terms[::-1], rules), base, threads=1, allow_nonfinite=True)
    want = by_reference(base, fine_tunes, sums, terms, rules)
    for name, merged in want.items():
        ours = np.frombuffer(found[name], base[name][2].dtype)
        np.testing.assert_array_equal(ours, chunks.bits(merged), err_msg=name)
    assert result.not_finite == reference.not_finite(tensors(base), want)
    assert again == found


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Sandbox, Model, list[Model]]:
    base, *afters = one_model()
    made = Sandbox(tmp_path, base)
    for after in afters:
        made.vector(after)
    return made, base, afters


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_vector_minus_itself_plus_another_is_the_other(
    pair: tuple[Sandbox, Model, list[Model]], preset: str
) -> None:
    sandbox, base, _ = pair
    one, _ = sandbox.imported
    itself = sandbox.expression(**{one: "1"})
    rules = Rules.of(preset)
    assert run(sandbox.plan([Term("v", itself)], rules), base) == run(
        sandbox.plan([Term("v", one)], rules), base
    )


def test_a_contrast_is_one_vote_and_two_terms_are_two(pair: tuple[Sandbox, Model, list[Model]]) -> None:
    sandbox, base, _ = pair
    one, other = sandbox.imported
    rules = Rules.of("ties", density="0.2")
    contrast = [Term("v", sandbox.expression(**{one: "1", other: "-1"}))]
    two = [Term("a", one), Term("b", other, alpha="-1")]
    assert run(sandbox.plan(contrast, rules), base)[0] != run(sandbox.plan(two, rules), base)[0]


def test_a_half_of_a_vector_at_twice_the_strength_is_the_sum_of_its_halves(
    pair: tuple[Sandbox, Model, list[Model]],
) -> None:
    sandbox, base, _ = pair
    one, other = sandbox.imported
    rules = Rules.of("linear")
    half = sandbox.expression(**{one: "0.5", other: "0.25"})
    whole = sandbox.expression(**{one: "1", other: "0.5"})
    assert run(sandbox.plan([Term("v", half)], rules), base) == run(
        sandbox.plan([Term("v", whole, alpha="0.5")], rules), base
    )
