"""The text of an expression: which sum of vectors it means, and the faults that are shown where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import InvalidInput, PersonaError, UnknownName
from persona.history.vectors.expressions import MAX_CHARS, Sum, evaluate, in_quotes, written

WORDS = ("calm", "rushed", "polite")


def value(text: str, *names: str) -> Sum:
    """What a text means where these vectors exist; each stands for itself."""
    known = names or WORDS
    return evaluate(text, known, lambda name: {name: Fraction(1)} if name in known else None)


def sum_of(**coefficients: float | Fraction) -> dict[str, Fraction]:
    return {name: Fraction(number) for name, number in coefficients.items()}


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("calm", sum_of(calm=1)),
        ("calm - rushed", sum_of(calm=1, rushed=-1)),
        ("  calm-rushed+polite ", sum_of(calm=1, rushed=-1, polite=1)),
        ("-calm", sum_of(calm=-1)),
        ("- -calm", sum_of(calm=1)),
        ("+calm", sum_of(calm=1)),
        ("calm − rushed", sum_of(calm=1, rushed=-1)),
        ("calm\n- rushed", sum_of(calm=1, rushed=-1)),
        ("2 * calm / 3", sum_of(calm=Fraction(2, 3))),
        ("calm * 0.1 * 10", sum_of(calm=1)),
        ("calm / 2 / 2", sum_of(calm=0.25)),
        ("calm - rushed - polite", sum_of(calm=1, rushed=-1, polite=-1)),
        ("calm - (rushed - polite)", sum_of(calm=1, rushed=-1, polite=1)),
        ("-(calm - 2 * (rushed + polite / 4)) * (1 - 3)", sum_of(calm=2, rushed=-4, polite=-1)),
        ("2 * -3 * calm", sum_of(calm=-6)),
        ("1e-3*calm + .5*rushed + 2.*polite", sum_of(calm=Fraction(1, 1000), rushed=0.5, polite=2)),
        ("calm - calm + rushed", sum_of(rushed=1)),
        ("((((calm))))", sum_of(calm=1)),
    ],
)
def test_a_text_means_a_sum(text: str, meaning: Sum) -> None:
    assert value(text) == meaning


@pytest.mark.parametrize(
    ("text", "mark", "why"),
    [
        ("calm * rushed", 5, "a vector cannot be multiplied by a vector"),
        ("2 / calm", 2, "nothing can be divided by a vector"),
        ("calm / 0", 5, "divides by 0"),
        ("calm / (0.5 - 1/2)", 5, "divides by 0"),
        ("calm + 2", 7, "a number cannot be added to a vector"),
        ("2 - calm", 0, "a number cannot be added to a vector"),
        ("calm - 2 * 3", 7, "a number cannot be added to a vector"),
        ("2 * (3 + 4)", 0, "this is a number"),
        ("calm - calm", 0, "nothing is left"),
        ("0 * calm", 0, "nothing is left"),
        ("calm rushed", 5, "an operator, + - * or /, is missing"),
        ("2 calm", 2, "an operator, + - * or /, is missing"),
        ("calm (rushed)", 5, "an operator, + - * or /, is missing"),
        ("calm -", 6, "a vector or a number is missing"),
        ("calm * / rushed", 7, "a vector or a number is missing"),
        ("()", 1, "a vector or a number is missing"),
        ("(calm - rushed", 0, "no ) belongs to this ("),
        ("calm) - rushed", 4, "no ( belongs to this )"),
        ("calm - 'rushed", 7, "this quote is not closed"),
        ("calm - ''", 7, "a name is missing between these quotes"),
        ("calm * 1e99", 7, "a number out of range"),
        ("calm ^ 2", 5, "an operator"),
    ],
)
def test_a_fault_is_shown_at_its_place(text: str, mark: int, why: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        value(text)
    sentence, shown, below = caught.value.message.split("\n")
    assert why in sentence
    assert shown == f"  {text}"
    assert below.index("^") == 2 + mark


def test_an_unknown_name_is_shown_with_the_nearest_known_one() -> None:
    for text in ("calm - rushd", "calm-rushd", "calm - 'rushd'"):
        with pytest.raises(UnknownName) as caught:
            value(text)
        assert "no vector has the name 'rushd'" in caught.value.message
        assert caught.value.message.endswith("\n" + " " * (2 + text.rindex("r") - text.count("'") // 2) + "^")
        assert caught.value.hint == "did you mean rushed?"


def test_a_long_text_is_shown_around_the_fault() -> None:
    text = "calm + " * 40 + "3" + " + calm" * 40
    with pytest.raises(InvalidInput) as caught:
        value(text)
    _, shown, below = caught.value.message.split("\n")
    assert len(shown) < 80
    assert shown[below.index("^")] == "3"
    assert shown.startswith("  …")
    assert shown.endswith("…")


def test_a_text_may_be_long_and_nested_up_to_a_limit() -> None:
    deep = "(" * 2000 + "calm" + ")" * 2000
    assert value(deep) == sum_of(calm=1)
    assert value("+".join(["calm"] * 1000)) == sum_of(calm=1000)
    with pytest.raises(InvalidInput, match="at most"):
        value("calm" + " " * MAX_CHARS)
    with pytest.raises(InvalidInput, match="empty"):
        value("  ")


# -- names that hold operators, spaces and digits


def test_a_dash_is_a_minus_or_a_part_of_a_name_by_the_names_that_exist() -> None:
    assert value("calm-rushed", "calm", "rushed") == sum_of(calm=1, rushed=-1)
    assert value("calm-rushed", "calm-rushed", "calm") == {"calm-rushed": 1}
    assert value("calm-rushed-calm", "calm-rushed", "calm") == {"calm-rushed": 1, "calm": -1}
    assert value("my own - calm", "my own", "my", "calm") == {"my own": 1, "calm": -1}
    assert value("a*b + a", "a", "a*b") == {"a*b": 1, "a": 1}


def test_a_text_with_two_meanings_is_refused_with_both() -> None:
    names = ("calm", "rushed", "calm-rushed")
    with pytest.raises(InvalidInput) as caught:
        value("calm-rushed", *names)
    assert "'calm-rushed' can be read as 'calm-rushed' and as 'calm' - 'rushed'" in caught.value.message
    assert "quotes" in caught.value.message
    assert value("'calm-rushed'", *names) == {"calm-rushed": 1}
    assert value("'calm' - 'rushed'", *names) == sum_of(calm=1, rushed=-1)
    assert value("calm - rushed", *names) == sum_of(calm=1, rushed=-1)


def test_very_many_readings_are_refused_soon() -> None:
    with pytest.raises(InvalidInput, match="quotes"):
        value(" + ".join(["a-a"] * 60), "a", "a-a")
    with pytest.raises(InvalidInput):
        value(" * ".join(["a-a"] * 60), "a", "a-a")


def test_a_number_that_is_a_name_is_read_as_what_makes_sense() -> None:
    assert value("500 * calm", "500", "calm") == sum_of(calm=500)
    assert value("500 + calm", "500", "calm") == {"500": 1, "calm": 1}


names = st.text(st.sampled_from("ab -+*().'\"5"), min_size=1, max_size=6).filter(
    lambda name: name == name.strip() and not name.startswith(("-", "."))
)


@given(st.dictionaries(names, st.sampled_from(["1", "-1", "0.5", "-12.25"]), min_size=1, max_size=4))
def test_a_sum_that_was_written_is_read_as_itself(sum_: Mapping[str, str]) -> None:
    parts = [{"name": name, "coefficient": coefficient} for name, coefficient in sum_.items()]
    assert value(written(parts), *sum_) == {name: Fraction(number) for name, number in sum_.items()}


@given(st.lists(names, min_size=1, max_size=5), st.text(st.sampled_from("ab -+*/().'\"5e"), max_size=12))
def test_any_text_is_read_or_refused_in_one_way(known: Sequence[str], text: str) -> None:
    def tried() -> object:
        try:
            return value(text, *known)
        except PersonaError as error:
            return type(error), error.message

    assert tried() == tried()


@given(names)
def test_a_name_in_quotes_is_that_name(name: str) -> None:
    assert value(in_quotes(name), name) == {name: 1}
