"""Lists over layers, as docs/numerics.md has them."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from persona.errors import IntegrityError, InvalidInput
from persona.limits import MAX_LAYER_VALUES
from persona.objects import canonical
from persona.objects.layers import at_place, places
from persona.objects.recipe import Recipe, Term, check_alpha, check_own_density, to_binary32
from persona.objects.rules import Rules
from tests.objects.strategies import decimals, densities

BASE, ID = "ba" * 32, "ab" * 32
TIES = Rules.of("ties", density="0.5")


# --- where a tensor is ---


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.0.self_attn.q_proj.weight", (0, 3)),
        ("model.layers.2.self_attn.q_proj.weight", (2, 3)),
        ("model.layers.1.mlp.experts.7.w1.weight", (1, 3)),
        ("transformer.h.1.attn.c_attn.weight", (1, 2)),
        ("vision.blocks.0.norm1.weight", (0, 5)),
        ("vision.blocks.4.norm1.weight", (4, 5)),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", (0, 1)),
        ("mixer.1.weight", (1, 2)),
        ("0.auto_model.encoder.layer.6.output.dense.weight", (6, 7)),
        ("model.embed_tokens.weight", None),
        ("model.norm.weight", None),
        ("lm_head.weight", None),
        ("vision.merger.mlp.0.weight", None),
        ("vision.merger.mlp.2.weight", None),
        ("classifier.0.weight", None),
        ("2.dense.weight", None),
        ("conv1.weight", None),
        ("model.layers.٣.mlp.weight", None),
        ("model.layers.1000000000.mlp.weight", None),
        ("a", None),
    ],
)
def test_the_first_number_of_a_name_is_its_layer(name: str, place: tuple[int, int] | None) -> None:
    names = [
        *(f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(3)),
        "model.layers.1.mlp.experts.7.w1.weight",
        *(f"transformer.h.{layer}.attn.c_attn.weight" for layer in range(2)),
        *("vision.blocks.0.norm1.weight", "vision.blocks.4.norm1.weight"),  # layers between have no tensors
        "encoder.block.0.layer.0.SelfAttention.q.weight",
        *("mixer.0.weight", "mixer.1.weight"),
        "0.auto_model.encoder.layer.6.output.dense.weight",
        *("vision.merger.mlp.0.weight", "vision.merger.mlp.2.weight", "vision.merger.mlp.2.bias"),
        *("classifier.0.weight", "classifier.0.bias"),
        *(
            "model.embed_tokens.weight",
            "model.norm.weight",
            "lm_head.weight",
            "2.dense.weight",
            "conv1.weight",
        ),
        *("model.layers.٣.mlp.weight", "model.layers.1000000000.mlp.weight", "a"),
    ]
    assert places(names).get(name) == place


# --- its value ---


def mergekits(values: list[float], place: tuple[int, int] | None) -> float:
    """The value of mergekit 0.1.5: t is 0 outside the layers, 1 for a layer that is alone."""
    layer, layers = place or (0, 2)
    t = layer / (layers - 1) if layers > 1 else 1.0
    scaled = t * (len(values) - 1)
    low = int(scaled)
    high = min(len(values) - 1, low + 1)
    return (1 - (scaled - low)) * values[low] + (scaled - low) * values[high]


@pytest.mark.parametrize(
    ("values", "layers", "found"),
    [
        ("0 1", 5, "0 1/4 1/2 3/4 1"),
        ("0 0.5 1", 3, "0 1/2 1"),
        ("1 0 1", 4, "1 1/3 1/3 1"),
        ("0 0.5 1", 2, "0 1"),
        ("0 0.5 1", 1, "1"),
        ("0.7", 3, "7/10 7/10 7/10"),
        ("-1 0.1", 3, "-1 -9/20 1/10"),
        ("0 0 1", 5, "0 0 0 1/2 1"),
        ("0.1 0.1 0.1", 7, "1/10 1/10 1/10 1/10 1/10 1/10 1/10"),
    ],
)
def test_the_values_between_are_interpolated_exactly(values: str, layers: int, found: str) -> None:
    exact = [at_place(values.split(), (layer, layers)) for layer in range(layers)]
    assert exact == [Fraction(one) for one in found.split()]
    assert at_place(values.split(), None) == Fraction(values.split()[0])


lists = st.lists(decimals, min_size=1, max_size=8)
spots = st.integers(1, 200).flatmap(lambda layers: st.tuples(st.integers(0, layers - 1), st.just(layers)))


@given(lists, spots | st.none())
@example(["0", "1"], (99, 100))
@example(["0", "1", "0"], (49, 99))
def test_the_values_are_mergekits(values: list[str], place: tuple[int, int] | None) -> None:
    exact = at_place(values, place)
    near = mergekits([float(value) for value in values], place)
    assert abs(float(exact) - near) <= 1e-12 * max(abs(float(value)) for value in values)


@given(lists, spots)
def test_no_value_lies_outside_its_neighbours(values: list[str], place: tuple[int, int]) -> None:
    numbers = sorted(map(Fraction, values))
    assert numbers[0] <= at_place(values, place) <= numbers[-1]


@given(decimals, st.integers(1, 8), spots | st.none())
def test_a_list_of_one_number_is_that_number(value: str, count: int, place: tuple[int, int] | None) -> None:
    assert Term("a", ID, (value,) * count).alpha_at(place) == to_binary32(value)


@given(lists, spots | st.none())
def test_alpha_is_rounded_to_binary32_once(values: list[str], place: tuple[int, int] | None) -> None:
    found = Term("a", ID, tuple(values)).alpha_at(place)
    exact = at_place(values, place)
    near = np.float32(found)
    assert float(near) == found
    around = [
        abs(Fraction(float(one)) - exact) for one in (np.nextafter(near, np.float32(s)) for s in (-9e9, 9e9))
    ]
    assert abs(Fraction(found) - exact) <= min(around)


def test_what_binary64_would_round_twice_is_rounded_once() -> None:
    # The middle of these two is just above the middle of two binary32, and binary64 cannot tell.
    values = ("1.0000001192092895507812500000000000000000000000000002", "1")
    assert Term("a", ID, values).alpha_at((1, 3)) == 1 + 2.0**-23
    assert np.float32(mergekits([float(value) for value in values], (1, 3))) == 1
    assert np.signbit(Term("a", ID, ("0", "-0")).alpha_at((0, 3))) == np.False_


@given(st.lists(densities, min_size=1, max_size=5), spots | st.none())
def test_a_density_is_rounded_to_binary64_once(values: list[str], place: tuple[int, int] | None) -> None:
    found = Term("a", ID, density=tuple(values)).density_at(TIES, place)
    assert found == float(at_place(values, place))
    assert Term("a", ID).density_at(TIES, place) == 0.5
    assert Term("a", ID).density_at(Rules.of("linear"), place) == 1.0


# --- in a recipe ---


def test_a_list_is_kept_as_it_is_written() -> None:
    term = Term("a", ID, ("0.50", "1", "-0.0"), density=("0.2", "0.20"))
    recipe = Recipe.of(BASE, [term], TIES)
    assert (recipe.terms[0].alpha, recipe.terms[0].density) == (("0.5", "1", "0"), ("0.2", "0.2"))
    assert b'"alpha":["0.5","1","0"],"density":["0.2","0.2"]' in recipe.encode()
    assert Recipe.decode(recipe.encode()) == recipe
    assert Recipe.of(BASE, [Term("a", ID, ("0.5", "0.5"))], TIES) != Recipe.of(
        BASE, [Term("a", ID, "0.5")], TIES
    )


def test_lists_have_a_place_in_the_canonical_order() -> None:
    in_order: list[Term] = [
        Term("i", ID, ("-1", "5")),
        Term("h", ID, "0"),
        Term("g", ID, ("0", "-1")),
        Term("f", ID, ("0", "1", "0")),
        Term("e", ID, ("0", "1", "1"), density=("0.1", "0.9")),
        Term("d", ID, ("0", "1", "1"), density="0.5"),
        Term("c", ID, ("0", "1", "1"), density=("0.5", "0.1")),
        Term("b", ID, "0.1"),
    ]
    for terms in (in_order, in_order[::-1]):
        assert "".join(term.name for term in Recipe.of(BASE, terms, TIES).terms) == "ihgfedcb"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "the list has no number"),
        ([[0, 1]], "not a number"),
        (["a"], "not a number: 'a'"),
        ([float("nan")], "not a finite number"),
        ([0.5, float("inf")], "not a finite number"),
        ([True], "not a number"),
        ([None], "not a number"),
        ([1] * (MAX_LAYER_VALUES + 1), f"{MAX_LAYER_VALUES + 1} numbers; at most"),
        (["1e39"], "beyond the range"),
    ],
)
def test_what_is_no_list_of_numbers_is_refused(value: object, said: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^alpha: .*{said}"):
        check_alpha(value)
    with pytest.raises(InvalidInput, match=r"^density: "):
        check_own_density(value)


def test_each_density_of_a_list_is_in_range() -> None:
    assert check_own_density([1, 0.5]) == ("1", "0.5")
    for wrong in ([0.5, 0], [1.5, 1], [-0.1]):
        with pytest.raises(InvalidInput, match=r"not in \(0, 1\]"):
            check_own_density(wrong)
    with pytest.raises(InvalidInput, match="under trim = joint"):
        Recipe.of(BASE, [Term("a", ID, density=("0.1", "1"))], Rules.of("joint"))


@pytest.mark.parametrize(
    ("preset", "densities", "fits"),
    [
        ("breadcrumbs", ("0.5", "0.99"), True),
        ("breadcrumbs", ("1", "1"), True),
        ("breadcrumbs", ("0.5", "1"), False),
        ("della", ("0.2", "0.85"), True),
        ("della", ("0.2", "1"), False),
        ("dare_ties", ("0.2", "1"), True),
    ],
)
def test_densities_between_fit_gamma_and_epsilon_too(
    preset: str, densities: tuple[str, ...], fits: bool
) -> None:
    term, rules = Term("a", ID, density=densities), Rules.of(preset)
    if fits:
        Recipe.of(BASE, [term], rules)
    else:
        with pytest.raises(
            InvalidInput, match=r"density: the list has 1 and smaller numbers, .* at most 0\."
        ):
            Recipe.of(BASE, [term], rules)


def test_a_term_is_trimmed_if_one_of_its_densities_is_below_1() -> None:
    for density, trimmed in ((("1", "1"), False), (("1", "0.9"), True)):
        assert (
            Recipe.of(BASE, [Term("a", ID, density=density)], TIES).trims(Term("a", ID, density=density))
            is trimmed
        )


@pytest.mark.parametrize("key", ["alpha", "density"])
@pytest.mark.parametrize(
    "value", [[], [["0.5"]], ["0.50"], [0], ["nan"], [None], ["1"] * 10_000, {"0": "1"}, ["1", "2", "x"]]
)
def test_stored_lists_that_nobody_can_have_written_are_refused(key: str, value: object) -> None:
    stored = canonical.decode(Recipe.of(BASE, [Term("a", ID)], TIES).encode())
    stored["terms"][0][key] = value
    with pytest.raises(IntegrityError):
        Recipe.decode(canonical.encode(stored))


def test_neighbouring_layers_differ_by_the_slope() -> None:
    found = [at_place(("0", "1"), (layer, 31)) for layer in range(31)]
    assert {after - before for before, after in pairwise(found)} == {Fraction(1, 30)}
