from __future__ import annotations

from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from hypothesis import given

from persona.errors import IntegrityError, InvalidInput
from persona.objects.rules import AXES, CHOICES, MAX_BINARY32, PRESETS, Rules, check_density, check_strength
from tests.objects.strategies import rules

ROWS = """
    ties      tensor floor1 before mass  drop     mean strength 1
    paper     global plus1  before mass  majority mean count    0.2
    mergekit  tensor floor1 before mass  positive mean weight   1
    peft      tensor floor  after  mass  positive mean count    1
    joint     joint  -      before count drop     mean count    0.2
    linear    none   -      before none  -        sum  -        -
    task_arithmetic  none        -     before none -        sum  -      -
    breadcrumbs      breadcrumbs floor before none -        sum  -      1 0.01 -    -    -
    breadcrumbs_ties breadcrumbs floor before mass positive sum  weight 1 0.01 -    -    -
    dare_linear      dare        -     before none -        sum  -      1 -    -    true 0
    dare_ties        dare        -     before mass positive sum  weight 1 -    -    true 0
    della_linear     della       -     before none -        sum  -      1 -    0.15 true 0
    della            della       -     before mass positive mean weight 1 -    0.15 true 0
"""
TABLE = [tuple(None if cell == "-" else cell for cell in row.split()) for row in ROWS.strip().splitlines()]
DRAWING = ("breadcrumbs", "breadcrumbs_ties", "dare_linear", "dare_ties", "della_linear", "della")


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row[0]))
def test_a_preset_is_this_row_of_axes_and_lambda_1(row: tuple[Any, ...]) -> None:
    preset, trim, rank, weigh, elect, on_tie, merge, divide, density, *more = row
    assert Rules.of(preset) == Rules(
        preset, trim, rank, weigh, elect, on_tie, merge, divide, density, "1", *more
    )
    assert Rules.of(preset).changed_axes() == {}


def test_these_are_the_presets_and_ties_is_the_default() -> None:
    assert set(PRESETS) == {row[0] for row in TABLE}
    assert Rules.of() == Rules.of("ties")


def usable(preset: str) -> list[str]:
    return [axis for axis, value in PRESETS[preset].items() if value is not None]


@pytest.mark.parametrize("preset", PRESETS)
def test_an_axis_that_the_preset_has_no_use_for_is_refused(preset: str) -> None:
    for axis in set(PRESETS[preset]) - set(usable(preset)):
        for value in CHOICES.get(axis, ("0.5",)):
            with pytest.raises(InvalidInput, match=f"{axis}: the preset {preset} does not use it"):
                Rules.of(preset, **{axis: value})


@pytest.mark.parametrize("preset", ["ties", "paper", "mergekit", "peft"])
def test_a_preset_that_has_every_axis_of_ties_takes_every_word_on_each(preset: str) -> None:
    for axis in usable(preset):
        for word in CHOICES.get(axis, ()):
            if word in ("breadcrumbs", "dare", "della"):
                continue
            found = Rules.of(preset, **{axis: word})
            assert found.axes()[axis] == word
            assert found.changed_axes() == ({} if PRESETS[preset][axis] == word else {axis: word})


@pytest.mark.parametrize(
    ("preset", "axis", "value"),
    [
        ("joint", "trim", "tensor"),
        ("joint", "trim", "global"),
        ("linear", "trim", "tensor"),
        ("linear", "trim", "global"),
        ("linear", "trim", "joint"),
        ("linear", "elect", "mass"),
        ("linear", "elect", "count"),
        ("linear", "merge", "mean"),
        ("ties", "trim", "breadcrumbs"),
        ("ties", "trim", "dare"),
        ("ties", "trim", "della"),
        ("breadcrumbs", "trim", "della"),
        ("dare_ties", "trim", "tensor"),
        ("dare_linear", "trim", "della"),
    ],
)
def test_an_axis_that_needs_one_which_is_missing_is_refused(preset: str, axis: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=f"{axis}: {value} needs"):
        Rules.of(preset, **{axis: value})


def test_no_rules_lack_what_their_own_axes_need() -> None:
    for preset in PRESETS:
        axes = [[(axis, word) for word in CHOICES[axis]] for axis in usable(preset) if axis in CHOICES]
        for chosen in product(*axes):
            try:
                found = Rules.of(preset, **dict(chosen))
            except InvalidInput:
                continue
            assert found.trim == "none" or found.density is not None
            assert found.trim not in ("tensor", "global", "breadcrumbs") or found.rank is not None
            assert found.trim not in ("dare", "della") or None not in (found.rescale, found.seed)
            assert found.trim != "breadcrumbs" or found.gamma is not None
            assert found.trim != "della" or found.epsilon is not None
            assert found.elect == "none" or found.on_tie is not None
            assert found.merge != "mean" or found.divide is not None


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("value", ["", "Mass", "x", None, [], {}, b"", "nan"])
def test_a_value_that_no_axis_has_is_refused(preset: str, axis: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=axis):
        Rules.of(preset, **{axis: value})


@pytest.mark.parametrize("preset", ["", "TIES", "dare", None, ["ties"], {}])
def test_an_unknown_preset_or_axis_is_refused(preset: Any) -> None:
    with pytest.raises(InvalidInput, match="preset"):
        Rules.of(preset)
    with pytest.raises(InvalidInput, match="unknown axis 'normalize'"):
        Rules.of("mergekit", normalize="false")


@pytest.mark.parametrize(
    "value", [0, "0", -0.1, "1.0000001", 2, "1e9", float("nan"), "inf", True, None, "half", [1]]
)
def test_a_density_is_above_0_and_at_most_1(value: object) -> None:
    with pytest.raises(InvalidInput, match="density"):
        check_density(value)
    assert check_density("0.20") == "0.2"
    assert check_density(1.0) == "1"
    assert check_density("0." + "0" * 61 + "1").endswith("01")


@pytest.mark.parametrize(
    ("preset", "axis", "value"),
    [
        ("breadcrumbs", "gamma", "1"),
        ("breadcrumbs", "gamma", "-0.01"),
        ("della", "epsilon", "0.51"),
        ("della", "epsilon", -1),
        ("dare_ties", "seed", "-1"),
        ("dare_ties", "seed", "1.5"),
        ("dare_ties", "seed", str(1 << 63)),
        ("dare_ties", "rescale", "yes"),
        ("dare_ties", "rescale", 1),
    ],
)
def test_a_number_outside_its_axis_is_refused(preset: str, axis: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=f"^{axis}: "):
        Rules.of(preset, **{axis: value})


def test_axes_of_the_random_trims_have_one_canonical_form() -> None:
    found = Rules.of("della", epsilon=0.10, rescale=False, seed="1e3", density="0.50")
    assert (found.epsilon, found.rescale, found.seed, found.density) == ("0.1", "false", "1000", "0.5")
    assert Rules.of("dare_ties", seed=(1 << 63) - 1).seed == str((1 << 63) - 1)


@pytest.mark.parametrize(
    ("preset", "axes", "most"),
    [
        ("breadcrumbs", {"gamma": "0.1", "density": "0.95"}, "gamma is at most 0.05"),
        ("breadcrumbs_ties", {"density": "0.999"}, "gamma is at most 0.001"),
        ("della", {"density": "0.1"}, "epsilon is at most 0.1"),
        ("della_linear", {"density": "0.9"}, "epsilon is at most 0.1"),
    ],
)
def test_gamma_and_epsilon_must_fit_the_density(preset: str, axes: dict[str, str], most: str) -> None:
    with pytest.raises(InvalidInput, match=f"{most}$"):
        Rules.of(preset, **axes)


def test_gamma_and_epsilon_fit_a_density_exactly_and_density_1_always() -> None:
    assert Rules.of("breadcrumbs", gamma="0.01", density="0.99").density == "0.99"
    assert Rules.of("della", epsilon="0.1", density="0.1").density == "0.1"
    assert Rules.of("della", epsilon="0.1", density="0.9").density == "0.9"
    for preset in DRAWING:
        assert Rules.of(preset).density == "1"


def test_alpha_and_lambda_reach_exactly_to_the_largest_binary32() -> None:
    largest = (1 << 128) - (1 << 104)
    assert Decimal(largest) == MAX_BINARY32
    assert check_strength(str(largest)) == str(largest)
    assert check_strength(str(-largest)) == str(-largest)
    for beyond in (largest + 1, -largest - 1, 1 << 128):
        with pytest.raises(InvalidInput, match="beyond the range of binary32"):
            check_strength(str(beyond))


@given(rules())
def test_rules_survive_their_canonical_form(found: Rules) -> None:
    assert Rules.from_json(found.to_json()) == found
    assert Rules.of(found.preset, **found.changed_axes()) == found
    assert None not in found.to_json().values()


@pytest.mark.parametrize(
    "change",
    [
        {"preset": "dare"},
        {"trim": "none!"},
        {"density": "1.0"},
        {"density": "0"},
        {"density": 1},
        {"lambda": "01"},
        {"lambda_": "1"},
        {"cls": "x"},
        {"preset": "joint"},
        {"preset": "linear"},
        {"rank": None},
    ],
)
def test_rules_in_any_other_form_are_refused(change: dict[str, Any]) -> None:
    form: dict[str, Any] = {**Rules.of("ties").to_json(), **change}
    with pytest.raises(IntegrityError):
        Rules.from_json(form)


@pytest.mark.parametrize("axis", ["preset", *AXES])
def test_rules_that_lack_an_axis_are_refused(axis: str) -> None:
    for preset in PRESETS:
        form = Rules.of(preset).to_json()
        if form.pop(axis, None) is not None:
            with pytest.raises(IntegrityError):
                Rules.from_json(form)
