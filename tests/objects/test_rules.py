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
"""
TABLE = [tuple(None if cell == "-" else cell for cell in row.split()) for row in ROWS.strip().splitlines()]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: str(row[0]))
def test_a_preset_is_this_row_of_axes_and_lambda_1(row: tuple[Any, ...]) -> None:
    preset, trim, rank, weigh, elect, on_tie, merge, divide, density = row
    assert Rules.of(preset) == Rules(
        preset, trim, rank, weigh, elect, on_tie, merge, divide, density, lambda_="1"
    )
    assert Rules.of(preset).changed_axes() == {}


def test_there_are_six_presets_and_ties_is_the_default() -> None:
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
def test_a_preset_that_uses_every_axis_takes_every_word_on_each(preset: str) -> None:
    for axis, words in CHOICES.items():
        for word in words:
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
    ],
)
def test_an_axis_that_needs_one_which_is_missing_is_refused(preset: str, axis: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=f"{axis}: {value} needs"):
        Rules.of(preset, **{axis: value})


def test_no_rules_lack_what_their_own_axes_need() -> None:
    for preset in PRESETS:
        axes = [[(axis, word) for word in CHOICES[axis]] for axis in usable(preset) if axis != "density"]
        for chosen in product(*axes):
            try:
                found = Rules.of(preset, **dict(chosen))
            except InvalidInput:
                continue
            assert found.trim == "none" or found.density is not None
            assert found.trim in ("none", "joint") or found.rank is not None
            assert found.elect == "none" or found.on_tie is not None
            assert found.merge != "mean" or found.divide is not None


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("value", ["", "Mass", "x", None, [], {}, True, "nan"])
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
    form = Rules.of("paper").to_json()
    del form[axis]
    with pytest.raises(IntegrityError):
        Rules.from_json(form)
