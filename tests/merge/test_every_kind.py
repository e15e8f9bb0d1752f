"""Recipes of vectors of every kind equal the reference, bit for bit."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from persona.errors import Refused
from persona.limits import CHUNK_MEMORY
from persona.merge import memory, reference
from persona.merge.arithmetic import layout
from persona.merge.reference import Changes
from persona.merge.rules import MergeRules, MergeTerm
from persona.objects.recipe import from_binary32
from persona.objects.vector import LowRankFactor
from persona.store.files import replaced_calls
from tests.disks import Quick
from tests.merge import chunks
from tests.merge.kinds import Factor, combined, dense, expression_vector, low_rank_vector, taus_of
from tests.merge.models import Sandbox, run
from tests.merge.strategies import SETTINGS, draw_model, draw_rules, draw_terms, elements

SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed.weight": (13, 11),
    "model.layers.0.mlp.up.weight": (8, 16),
    "model.layers.1.experts.weight": (3, 5, 7),
    "model.layers.1.mlp.up.weight": (1, 97),
    "model.layers.1.norm.weight": (70,),
    "model.scale": (),
}
"""Rows that begin within chunks, exactly two chunks, stacked experts, one row, one column, a scalar."""
FACTORED = [name for name, shape in SHAPES.items() if shape]
EXAMPLES = int(os.environ.get("PERSONA_EXAMPLES", "0"))
"""More examples than usual, for one long run."""
MANY = settings(SETTINGS, max_examples=EXAMPLES) if EXAMPLES else SETTINGS
COEFFICIENTS = [1.0, -1.0, 0.5, 2.0, -0.25, float(np.float32(0.1)), float(np.float32(3e38))]


def draw_factors(draw: Any, sandbox: Sandbox) -> dict[str, Factor]:
    found: dict[str, Factor] = {}
    for name in draw(st.lists(st.sampled_from(FACTORED), min_size=1, unique=True)):
        spec = sandbox.base.spec[name]
        blocks = spec.shape[0] if len(spec.shape) == 3 and draw(st.booleans()) else 1
        scale = draw(st.sampled_from([1.0, 2.0, float(np.float32(0.1)), -1.0, 1e30, 1e-40]))
        rank = draw(st.sampled_from([1, 2, 3, 8, 17]))
        dtype = draw(st.sampled_from(["BF16", "F16", "F32"]))
        factor = LowRankFactor(rank, from_binary32(float(np.float32(scale))), dtype, blocks)
        styles = draw(st.sampled_from([("weights", "weights"), ("integers", "weights"), ("huge", "huge")]))
        seed = draw(st.integers(0, 1 << 32))
        a, b = (
            elements(seed + place, dtype, 0, style, part.elements)[0]
            for place, (part, style) in enumerate(zip((factor.a(spec), factor.b(spec)), styles, strict=True))
        )
        if draw(st.integers(0, 9)) == 0:
            b = np.zeros_like(b)
        found[name] = factor, a, b
    return found


@MANY
@given(st.data())
def test_a_recipe_of_every_kind_equals_the_reference(data: st.DataObject) -> None:
    draw = data.draw
    deltas, low_ranks = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    base, afters = draw_model(draw, deltas + 1, SHAPES)
    *afters, partly = afters
    rules = draw(draw_rules())
    with tempfile.TemporaryDirectory() as folder, replaced_calls(Quick()):
        sandbox = Sandbox(Path(folder), base)
        known: dict[str, Changes] = {}
        for after in afters:
            try:
                known[sandbox.vector(after).id] = dense(after)
            except Refused:
                continue
        for place in range(low_ranks):
            factors = draw_factors(draw, sandbox)
            changes: Changes = {}
            delta = None
            if place == 0 and draw(st.booleans()):
                rest = {name: each if name not in factors else base[name] for name, each in partly.items()}
                try:
                    delta, changes = sandbox.vector(rest), dense(rest)
                except Refused:
                    delta = None
            id = low_rank_vector(sandbox, factors, delta)
            known[id] = {**changes, **taus_of(factors, sandbox.base.spec)}
        plain = list(known)
        for _ in range(draw(st.integers(0, 2))):
            chosen = draw(st.lists(st.sampled_from(plain), min_size=1, max_size=3, unique=True))
            coefficients = {id: draw(st.sampled_from(COEFFICIENTS)) for id in chosen}
            id = expression_vector(sandbox, coefficients)
            known[id] = combined(dense(base), [(each, coefficients[each], known[each]) for each in chosen])
        ids = draw(st.lists(st.sampled_from(list(known)), min_size=1, max_size=12))
        terms = [
            replace(
                term, alpha=draw(st.sampled_from([term.alpha, term.alpha, ("0.5", "1"), ("1", "0", "2")]))
            )
            for term in draw_terms(draw, ids, rules)
        ]
        made = sandbox.plan(terms, rules)
        threads, budget = draw(st.integers(1, 8)), draw(st.sampled_from([CHUNK_MEMORY, 0]))
        with (
            mock.patch.object(memory, "CHUNK_MEMORY", budget),
            mock.patch.object(layout, "SHORTEST_SLICE", 16),
        ):
            found, result = run(made, base, threads=threads, allow_nonfinite=True)
    sources = {term.vector: source for term, source in zip(made.recipe.terms, made.sources, strict=True)}
    want = reference.merge(
        dense(base),
        [known[term.vector] for term in terms],
        [replace(MergeTerm.of(term), identity=sources[term.vector].identity) for term in terms],
        MergeRules.of(rules),
    )
    for name, merged in want.items():
        bits = np.frombuffer(found[name], base[name][2].dtype)
        np.testing.assert_array_equal(bits, chunks.bits(merged), err_msg=name)
    assert result.not_finite == reference.not_finite(dense(base), want)
