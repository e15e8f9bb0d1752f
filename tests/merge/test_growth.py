"""Recipes whose vectors grow the base mean what the reference says of the extended base, bit for bit."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from persona.errors import InvalidInput, Refused
from persona.limits import CHUNK_MEMORY
from persona.merge import memory, reference
from persona.merge.arithmetic import layout
from persona.merge.devices.choose import CPU
from persona.merge.reference import Changes, Numbers
from persona.merge.rules import MergeRules, MergeTerm
from persona.objects.recipe import Term
from persona.objects.rules import Rules
from persona.objects.vector import LowRankFactor
from persona.store.files import replaced_calls
from tests.disks import Quick
from tests.merge import chunks
from tests.merge.devices.late import LateDevice, There
from tests.merge.kinds import Factor, combined, dense, expression_vector, low_rank_vector, taus_of
from tests.merge.models import Model, Sandbox, run
from tests.merge.strategies import SETTINGS, draw_model, draw_rules, draw_terms, elements

EMBEDDING, HEAD = "model.embed.weight", "lm_head.weight"
SHAPES: dict[str, tuple[int, ...]] = {
    "final_logits_bias": (1, 13),
    "lm_head.bias": (13,),
    EMBEDDING: (13, 11),
    "model.layers.0.mlp.up.weight": (8, 16),
    "model.layers.1.norm.weight": (70,),
}
"""Of 13 tokens; the embedding ends within its third chunk."""
EXAMPLES = int(os.environ.get("PERSONA_EXAMPLES", "0"))
"""Another number of examples than usual."""
MANY = settings(SETTINGS, max_examples=EXAMPLES) if EXAMPLES else SETTINGS
VOCABULARY = ("final_logits_bias", "lm_head.bias", EMBEDDING)


def larger(shape: tuple[int, ...], added: int) -> tuple[int, ...]:
    """The shape of a tensor of the vocabulary with more tokens."""
    return (1, shape[1] + added) if shape[0] == 1 else (shape[0] + added, *shape[1:])


def with_tokens(after: Model, added: int, seed: int) -> dict[str, Any]:
    """A fine-tune with tokens of its own, some of them zeros."""
    found = dict(after)
    for name in set(found) & {*VOCABULARY, HEAD}:
        dtype, shape, bits = found[name]
        grown = larger(shape, added)
        rows = elements(seed, dtype, 0, "weights", int(np.prod(grown)) - bits.size)[0]
        rows[::3] = 0
        found[name] = (dtype, grown, np.concatenate([bits.reshape(-1), rows]))
    return found


def padded(change: torch.Tensor | Numbers, like: torch.Tensor) -> torch.Tensor | Numbers:
    """A change of the first elements of a tensor, and none of the others."""
    t = change.t if isinstance(change, Numbers) else change
    whole = torch.zeros(like.numel(), dtype=t.dtype)
    whole[: t.numel()] = t.reshape(-1)
    whole = whole.reshape(like.shape)
    return Numbers(whole) if isinstance(change, Numbers) else whole


def fitted(change: Changes, base: Mapping[str, torch.Tensor]) -> Changes:
    """The changes of a vector at the tensors of the extended base: a tied head is the embedding."""
    found: dict[str, torch.Tensor | Numbers] = {}
    for name, like in base.items():
        own = change.get(name, change.get(EMBEDDING) if name == HEAD else None)
        if own is not None:
            found[name] = padded(own, like)
    return found


class Grown:
    """A store with a tied base, and vectors with what the reference takes for them."""

    def __init__(self, folder: Path, base: Model) -> None:
        self.model = base
        self.sandbox = Sandbox(folder, base)
        self.sandbox.base = replace(self.sandbox.base, tied={HEAD: EMBEDDING})
        self.changes: dict[str, Changes] = {}
        self.added: dict[str, int] = {}
        self.untied: dict[str, bool] = {}

    def vector(self, after: Model, added: int = 0) -> str:
        """Imports a fine-tune."""
        made = self.sandbox.vector(after, extend_vocab=True, untie=True)
        changes, untied = dense(after), HEAD in dict(made.vector.grown)
        if not untied:  # a head that equals the embedding is left out
            changes.pop(HEAD, None)
        return self.know(made.id, changes, added, untied)

    def know(self, id: str, changes: Changes, added: int, untied: bool) -> str:
        self.changes[id], self.added[id], self.untied[id] = changes, added, untied
        return id

    def extended(self, ids: list[str]) -> dict[str, Any]:
        """The base as some vectors grow it."""
        added = max((self.added[id] for id in ids), default=0)
        found = dict(self.model)
        for name in VOCABULARY:
            dtype, shape, bits = found[name]
            grown = larger(shape, added)
            zeros = np.zeros(int(np.prod(grown)) - bits.size, bits.dtype)
            found[name] = (dtype, grown, np.concatenate([bits.reshape(-1), zeros]))
        if any(self.untied[id] for id in ids):
            found[HEAD] = found[EMBEDDING]
        return found

    def check(self, terms: list[Term], rules: Rules, **options: Any) -> dict[str, bytes]:
        """The bytes of a recipe, which must be those of the reference."""
        made = self.sandbox.plan(terms, rules)
        model = self.extended([term.vector for term in terms])
        found, result = run(made, model, allow_nonfinite=True, **options)
        base = dense(model)
        sources = {term.vector: source for term, source in zip(made.recipe.terms, made.sources, strict=True)}
        want = reference.merge(
            base,
            [fitted(self.changes[term.vector], base) for term in terms],
            [replace(MergeTerm.of(term), identity=sources[term.vector].identity) for term in terms],
            MergeRules.of(rules),
        )
        for name, merged in want.items():
            bits = np.frombuffer(found[name], model[name][2].dtype)
            np.testing.assert_array_equal(bits, chunks.bits(merged), err_msg=name)
        assert result.not_finite == reference.not_finite(base, want)
        assert {spec.name: spec.shape for spec in made.base.tensors} == {
            name: shape for name, (_, shape, _) in model.items()
        }
        return found


@MANY
@given(st.data())
def test_a_recipe_with_growth_equals_the_reference_on_the_extended_base(data: st.DataObject) -> None:
    draw = data.draw
    count, added = draw(st.integers(1, 4)), draw(st.sampled_from([0, 1, 64]))
    base, afters = draw_model(draw, 2 * count, SHAPES)
    rules = draw(draw_rules())
    with tempfile.TemporaryDirectory() as folder, replaced_calls(Quick()):
        store = Grown(Path(folder), base)
        for after, other in zip(afters[:count], afters[count:], strict=True):
            own = 0
            if draw(st.booleans()):
                after[HEAD] = other[EMBEDDING]
            if added and draw(st.booleans()):
                own, after = added, with_tokens(after, added, draw(st.integers(0, 1 << 32)))
            try:
                store.vector(after, own)
            except Refused:
                continue
        if draw(st.booleans()):
            factors = draw_factors(draw, store.sandbox)
            id = low_rank_vector(store.sandbox, factors)
            store.know(id, taus_of(factors, store.sandbox.base.spec), 0, untied=False)
        if not store.changes:
            return
        if draw(st.booleans()):
            add_expression(draw, store)
        ids = draw(st.lists(st.sampled_from(list(store.changes)), min_size=1, max_size=6))
        budget = draw(st.sampled_from([CHUNK_MEMORY, 0]))
        with (
            mock.patch.object(memory, "CHUNK_MEMORY", budget),
            mock.patch.object(layout, "SHORTEST_SLICE", 16),
        ):
            place = There("cuda", None, (LateDevice(seed=1),)) if draw(st.booleans()) else CPU
            store.check(draw_terms(draw, ids, rules), rules, threads=draw(st.integers(1, 4)), device=place)


def draw_factors(draw: Any, sandbox: Sandbox) -> dict[str, Factor]:
    factor = LowRankFactor(3, "0.5", "F32")
    found: dict[str, Factor] = {}
    for name in draw(st.lists(st.sampled_from([EMBEDDING, "lm_head.bias"]), min_size=1, unique=True)):
        spec, seed = sandbox.base.spec[name], draw(st.integers(0, 1 << 32))
        parts = factor.a(spec), factor.b(spec)
        a, b = (elements(seed + k, "F32", 0, "weights", part.elements)[0] for k, part in enumerate(parts))
        found[name] = factor, a, b
    return found


def add_expression(draw: Any, store: Grown) -> None:
    chosen = draw(st.lists(st.sampled_from(list(store.changes)), min_size=1, max_size=3, unique=True))
    coefficients = {id: draw(st.sampled_from([1.0, -1.0, 0.5])) for id in chosen}
    base = dense(store.extended(chosen))
    parts = [(id, coefficients[id], fitted(store.changes[id], base)) for id in chosen]
    unchanged = {HEAD: base[HEAD]} if HEAD in base else {}
    store.know(
        expression_vector(store.sandbox, coefficients),
        {**unchanged, **combined(base, parts)},
        max(store.added[id] for id in chosen),
        any(store.untied[id] for id in chosen),
    )


# -- examples


@pytest.fixture
def store(tmp_path: Path) -> Grown:
    """A store with a tied base in bf16."""
    return Grown(tmp_path, bf16_model(0))


def bf16_model(seed: int, added: int = 0, *, head: bool = False) -> dict[str, Any]:
    """A model of random weights in bf16."""
    random = np.random.default_rng(seed)
    shapes = dict(SHAPES, **({HEAD: SHAPES[EMBEDDING]} if head else {}))
    found: dict[str, Any] = {}
    for name, shape in shapes.items():
        grown = larger(shape, added) if name in (*VOCABULARY, HEAD) else shape
        values = random.normal(size=int(np.prod(grown))).astype(np.float32)
        found[name] = ("BF16", grown, chunks.rounded(values, "BF16"))
    return found


def terms_of(*vectors: tuple[str, str]) -> list[Term]:
    """Terms of (vector, α)."""
    return [Term(f"v{place}", id, alpha) for place, (id, alpha) in enumerate(vectors)]


@pytest.mark.parametrize("added", [1, 64])
def test_one_vector_with_new_tokens_is_the_fine_tune_and_leaves_no_trace_without_it(
    store: Grown, added: int
) -> None:
    after = bf16_model(1, added)
    id = store.vector(after, added)
    found = store.check(terms_of((id, "1")), Rules.of("ties"))
    assert found == {name: bits.tobytes() for name, (_, _, bits) in after.items()}
    bare = store.check([], Rules.of("ties"))
    assert bare == {name: bits.tobytes() for name, (_, _, bits) in store.model.items()}


@pytest.mark.parametrize(
    "rules", [Rules.of("ties", density="0.5"), Rules.of("linear"), Rules.of("dare_ties")]
)
@pytest.mark.parametrize("alpha", ["1", "-0.5"])
def test_vectors_with_and_without_new_tokens_mix(store: Grown, alpha: str, rules: Rules) -> None:
    grown, same, plain = (
        store.vector(bf16_model(1, 64), 64),
        store.vector(bf16_model(2, 64), 64),
        store.vector(bf16_model(3)),
    )
    store.check(terms_of((grown, alpha), (plain, "1")), rules)
    store.check(terms_of((grown, alpha), (same, "0.7"), (plain, "-1")), rules)


def test_a_tied_vector_changes_a_head_as_it_changes_the_embedding(store: Grown) -> None:
    untied, plain = store.vector(bf16_model(1, head=True)), store.vector(bf16_model(2))
    found = store.check(terms_of((untied, "0"), (plain, "1")), Rules.of("linear"))
    assert found[HEAD] == found[EMBEDDING] == bf16_model(2)[EMBEDDING][2].tobytes()
    store.check(terms_of((untied, "1"), (plain, "0.5")), Rules.of("ties"))


def test_a_head_and_new_tokens_of_another_vector_meet(store: Grown) -> None:
    untied, grown = store.vector(bf16_model(1, head=True)), store.vector(bf16_model(2, 64), 64)
    both = store.vector(bf16_model(3, 64, head=True), 64)
    store.check(terms_of((untied, "1"), (grown, "1")), Rules.of("ties"))
    store.check(terms_of((untied, "1"), (grown, "0.5"), (both, "-1")), Rules.of("ties", density="0.3"))


def test_two_vocabularies_in_one_recipe_are_refused_with_both_sizes(store: Grown) -> None:
    one, other = store.vector(bf16_model(1, 1), 1), store.vector(bf16_model(2, 64), 64)
    with pytest.raises(InvalidInput, match=r"the vectors v0 and v1 .* \[.*14.*\] and \[.*77.*\]"):
        store.sandbox.plan(terms_of((one, "1"), (other, "1")), Rules.of("ties"))
