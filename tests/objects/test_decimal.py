from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import IntegrityError, InvalidInput
from persona.objects import fields
from persona.objects.canonical import decimal

small = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=12)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0.70", "0.7"),
        (0.7, "0.7"),
        ("-.5", "-0.5"),
        ("+1", "1"),
        (1, "1"),
        (1.0, "1"),
        ("1e3", "1000"),
        (1e-7, "0.0000001"),
        ("0e5", "0"),
        (-0.0, "0"),
        ("-0", "0"),
        ("00012.500", "12.5"),
        (Decimal("1E+2"), "100"),
        (10**20, "1" + "0" * 20),
    ],
)
def test_a_number_has_one_spelling(value: str | float | Decimal, text: str) -> None:
    assert decimal(value) == text


@given(small)
def test_the_spelling_is_the_number_itself(value: Decimal) -> None:
    text = decimal(value)
    assert Fraction(text) == Fraction(value)
    assert decimal(text) == text
    assert "e" not in text.lower()
    assert text == "0" or not text.startswith(("-0", "0")) or text.lstrip("-").startswith("0.")


@given(small, small)
def test_equal_numbers_and_only_they_have_equal_spellings(one: Decimal, other: Decimal) -> None:
    assert (decimal(one) == decimal(other)) == (one == other)
    assert decimal(f"{one:.20f}") == decimal(one)


@given(st.floats(-1e9, 1e9).filter(lambda value: value == 0 or abs(value) > 1e-40))
def test_a_float_means_its_shortest_decimal(value: float) -> None:
    assert float(decimal(value)) == value
    assert decimal(value) == decimal(repr(value))


# fmt: off
NO_NUMBERS = [
    "", "x", "١", "1,5", "nan", "sNaN", "-inf", "Infinity", "0x10", "1e65", "1e-65", "1e999999999999999999",
    "1e9999999999999999999999", "0." + "1" * 63, "1" * 70, "1" * 10**5, 10**5000, -(10**5000),
    float("nan"), float("inf"), True, False, None, [], (1, 2),
]
# fmt: on


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_no_number_of_reasonable_length_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        decimal(value)  # type: ignore[arg-type]
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    "value", ["1.0", "01", "-0", "+1", ".5", "1.", "1e3", " 1", "1_0", "١", "nan", 1, None, ["1"]]
)
def test_a_stored_decimal_is_canonical_or_refused(value: object) -> None:
    with pytest.raises(IntegrityError):
        fields.decimal(value, "alpha")
