"""A list over layers means the same bits as a term for each layer."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import Refused
from persona.merge import reference
from persona.merge.rules import MergeRules, MergeTerm
from persona.objects.canonical import decimal
from persona.objects.layers import places
from persona.objects.recipe import Recipe, Term, from_binary32, values
from persona.objects.rules import Rules
from persona.store.files import replaced_calls
from tests.disks import Quick
from tests.merge import chunks
from tests.merge.models import Model, Sandbox, run
from tests.merge.strategies import SETTINGS, draw_rules, elements

ALPHAS = ["1", "1", "0", "0.5", "-0.75", "2", "0.3333", "-1"]
DENSITIES = {
    "tensor": ["1", "0.5", "0.2", "0.05", "0.9"],
    "global": ["1", "0.5", "0.2", "0.05", "0.9"],
    "dare": ["1", "0.5", "0.2", "0.05", "0.9"],
    "breadcrumbs": ["0.5", "0.2", "0.7"],  # gamma fits these
    "della": ["0.5", "0.2", "0.7"],  # epsilon fits these
}
FILTERS: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    ((), ()),
    ((), ()),
    (("*.layers.*",), ()),
    ((), ("*.1.*", "model.norm*")),
]


def draw_layers(draw: Any, count: int) -> tuple[Model, list[dict[str, Any]]]:
    """A model of up to six layers and a second stack, and fine-tunes of it."""
    names = ["model.embed.weight", "model.norm.weight", "head.0.weight"]
    names += [f"model.layers.{layer}.mlp.up.weight" for layer in range(draw(st.integers(1, 6)))]
    names += [f"vision.h.{layer}.attn.c_attn.weight" for layer in range(draw(st.integers(0, 3)))]
    base: dict[str, Any] = {}
    afters: list[dict[str, Any]] = [{} for _ in range(count)]
    for name in names:
        size = draw(st.sampled_from([30, 70, 130]))
        style = draw(st.sampled_from(["weights", "integers", "steps"]))
        bits, tuned = elements(draw(st.integers(0, 1 << 32)), "BF16", count, style, size)
        base[name] = ("BF16", (size,), bits)
        untouched = draw(st.integers(0, 1 << count))
        for k in range(count):
            afters[k][name] = ("BF16", (size,), bits if untouched >> k & 1 else tuned[k])
    return base, afters


def draw_lists(draw: Any, ids: list[str], rules: Rules) -> list[Term]:
    """Terms of these vectors, one of them perhaps several times."""
    densities = DENSITIES.get(rules.trim)

    def over_layers(words: list[str]) -> Any:
        number = st.sampled_from(words)
        return draw(number | st.lists(number, min_size=1, max_size=4).map(tuple))

    return [
        Term(
            f"v{k}",
            id,
            over_layers(ALPHAS),
            over_layers(densities) if densities and draw(st.booleans()) else None,
            *draw(st.sampled_from(FILTERS)),
            join=draw(st.sampled_from(["vote", "vote", "vote", "add"])),
        )
        for k, id in enumerate([*ids, *draw(st.lists(st.sampled_from(ids), max_size=2))])
    ]


def spelled_out(terms: list[Term], names: list[str], rules: Rules) -> list[Term]:
    """For each term with a list, a term for each layer that it reaches, and one for the tensors outside."""
    where = places(names)
    found = []
    for term in terms:
        if not term.in_layers:
            found.append(term)
            continue
        for place in sorted({where.get(name) for name in names}, key=str):
            here = tuple(name for name in names if where.get(name) == place and term.admits(name))
            if here:
                alpha = from_binary32(term.alpha_at(place))
                density = None if term.density is None else decimal(term.density_at(rules, place))
                name = f"{term.name}-{len(found)}"
                found.append(Term(name, term.vector, alpha, density, here, join=term.join))
    return found


@SETTINGS
@given(st.data())
def test_a_list_gives_the_bits_of_a_term_for_each_layer(data: st.DataObject) -> None:
    base, afters = draw_layers(data.draw, data.draw(st.integers(1, 3)))
    rules = data.draw(draw_rules())
    with tempfile.TemporaryDirectory() as folder, replaced_calls(Quick()):
        sandbox = Sandbox(Path(folder), base)
        tuned = {}
        for after in afters:
            try:
                tuned[sandbox.vector(after).id] = after
            except Refused:
                continue
        if not tuned:
            return
        terms = draw_lists(data.draw, list(tuned), rules)
        layered = spelled_out(terms, sorted(base), rules)
        made, other = sandbox.plan(terms, rules), sandbox.plan(layered, rules)
        found, result = run(made, base, threads=data.draw(st.integers(1, 4)), allow_nonfinite=True)
        same, second = run(other, base, threads=1, allow_nonfinite=True)
        if rules.on_tie != "majority":
            assert [tensor.key for tensor in made.tensors] == [tensor.key for tensor in other.tensors]
    assert found == same
    assert result.weights == second.weights

    def tensors(model: Model) -> dict[str, Any]:
        return {name: chunks.tensor(bits, "BF16") for name, (_, _, bits) in model.items()}

    def by_reference(terms: list[Term]) -> dict[str, Any]:
        changes = [tensors(tuned[term.vector]) for term in terms]
        return reference.merge(
            tensors(base), changes, [MergeTerm.of(term) for term in terms], MergeRules.of(rules)
        )

    for name, merged in (*by_reference(terms).items(), *by_reference(layered).items()):
        np.testing.assert_array_equal(
            np.frombuffer(found[name], np.uint16), chunks.bits(merged), err_msg=name
        )


@pytest.fixture
def deep(tmp_path: Path) -> tuple[Sandbox, Model, list[dict[str, Any]], list[str]]:
    """Five layers with an embedding, and two vectors."""
    names = ["model.embed.weight", *(f"model.layers.{layer}.mlp.up.weight" for layer in range(5))]
    base: dict[str, Any] = {}
    afters: list[dict[str, Any]] = [{}, {}]
    for seed, name in enumerate(names):
        bits, tuned = elements(seed, "BF16", 2, "weights", 100)
        for model, values_ in zip((base, *afters), (bits, *tuned), strict=True):
            model[name] = ("BF16", (100,), values_)
    sandbox = Sandbox(tmp_path, base)
    return sandbox, base, afters, [sandbox.vector(after).id for after in afters]


Deep = tuple[Sandbox, Model, list[dict[str, Any]], list[str]]


def test_each_layer_has_its_alpha_and_its_density(deep: Deep) -> None:
    sandbox, _, _, (one, two) = deep
    rules = Rules.of("ties", density="0.5")
    terms = [Term("a", one, ("0", "1"), density=("1", "0.2", "1")), Term("b", two, "2")]
    found = {tensor.spec.name: tensor for tensor in sandbox.plan(terms, rules).tensors}
    order = [term.name for term in Recipe.of("0" * 64, terms, rules).terms]
    a = order.index("a")
    alphas = [tensor.alpha_of[a] for tensor in found.values()]
    assert alphas == [0, 0, 0.25, 0.5, 0.75, 1]
    assert [tensor.alpha_of[1 - a] for tensor in found.values()] == [2] * 6
    densities = [tensor.density_of[a] for tensor in found.values()]
    assert densities == [1, 1, 0.6, 0.2, 0.6, 1]
    assert [tensor.density_of[1 - a] for tensor in found.values()] == [0.5] * 6


def test_layers_at_full_strength_are_the_fine_tunes_own(deep: Deep) -> None:
    sandbox, base, (after, _), (one, _) = deep
    made = sandbox.plan([Term("a", one, ("1", "1", "0"))], Rules.of("ties"))
    assert [tensor.way for tensor in made.tensors] == ["lone"] * 4 + ["merge"] * 2
    found, _ = run(made, base)
    for name in list(base)[:4]:
        assert found[name] == after[name][2].tobytes()
    last = list(base)[-1]
    assert found[last] == base[last][2].tobytes()


def test_a_constant_list_is_that_number(deep: Deep) -> None:
    sandbox, base, _, ids = deep
    for rules in (Rules.of("ties", density="0.4"), Rules.of("paper"), Rules.of("linear")):
        own = None if rules.trim == "none" else "0.3"
        plain = [Term("a", ids[0], "0.7", own), Term("b", ids[1], "-0.5"), Term("c", ids[1], "0.25")]
        lists = [
            Term("a", ids[0], ("0.7",) * 3, own and (own,) * 2),
            Term("b", ids[1], ("-0.5",)),
            Term("c", ids[1], ("0.25",) * 7),
        ]
        one, other = sandbox.plan(plain, rules), sandbox.plan(lists, rules)
        assert run(one, base)[0] == run(other, base)[0]
        if rules.on_tie != "majority":
            assert [tensor.key for tensor in one.tensors] == [tensor.key for tensor in other.tensors]


def test_only_the_layers_whose_numbers_change_are_computed_again(deep: Deep) -> None:
    sandbox, _, _, (one, two) = deep
    rules = Rules.of("ties", density="0.5")

    def keys(alpha: tuple[str, ...]) -> list[str]:
        return [tensor.key for tensor in sandbox.plan([Term("a", one, alpha), Term("b", two)], rules).tensors]

    before, after = keys(("0", "0.5", "1")), keys(("0", "0.5", "0.8"))
    assert [old == new for old, new in zip(before, after, strict=True)] == [True] * 4 + [False] * 2
    assert len(set(before)) == 6


def test_the_numbers_of_a_list_are_those_that_were_written(deep: Deep) -> None:
    sandbox, _, _, (one, _) = deep
    made = sandbox.plan([Term("a", one, ("0.50", "1"))], Rules.of("ties"))
    assert [values(term.alpha) for term in made.recipe.terms] == [("0.5", "1")]
