from __future__ import annotations

import struct
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from persona.errors import IntegrityError, InvalidInput
from persona.limits import MAX_TERMS
from persona.objects import canonical
from persona.objects.recipe import Recipe, Term, from_binary32, to_binary32
from persona.objects.rules import Rules
from tests.objects.strategies import patterns, recipes, tensor_names, vector_names

BASE, ID, OTHER = "ba" * 32, "ab" * 32, "cd" * 32
TIES = Rules.of("ties")


def meanings(recipe: Recipe) -> list[tuple[Any, ...]]:
    """The terms in order, without their names."""
    return [
        (term.vector, term.alpha, term.density, term.only, term.except_, term.join) for term in recipe.terms
    ]


@given(recipes(), st.randoms())
def test_the_order_of_adding_changes_no_byte(recipe: Recipe, random: Any) -> None:
    terms = list(recipe.terms)
    random.shuffle(terms)
    assert Recipe.of(recipe.base, terms, recipe.rules).encode() == recipe.encode()


@given(recipes(), st.data())
def test_names_change_no_order(recipe: Recipe, data: st.DataObject) -> None:
    count = len(recipe.terms)
    names = data.draw(st.lists(vector_names, min_size=count, max_size=count, unique=True))
    renamed = [replace(term, name=name) for term, name in zip(recipe.terms, names, strict=True)]
    assert meanings(Recipe.of(recipe.base, renamed, recipe.rules)) == meanings(recipe)


def test_the_canonical_order_goes_by_vector_alpha_density_filter_and_join() -> None:
    in_order = [
        Term("z", ID, "-1"),
        Term("y", ID, "0"),
        Term("x", ID, "0.5", density="0.1"),
        Term("w", ID, "0.5", density="0.9"),
        Term("v", ID, "0.5", except_=("a",)),
        Term("s", ID, "0.5", only=("b",)),
        Term("u", ID, "0.5", join="add"),
        Term("t", ID, "0.5"),
        Term("r", ID, "10"),
        Term("q", OTHER, "-5"),
    ]
    for terms in (in_order, in_order[::-1], sorted(in_order, key=lambda term: term.name)):
        assert "".join(term.name for term in Recipe.of(BASE, terms, TIES).terms) == "zyxwvsutrq"


def test_an_effective_density_counts_whether_written_or_taken_from_the_recipe() -> None:
    rules = Rules.of("ties", density="0.5")
    terms = [Term("a", ID, density="0.6"), Term("b", ID), Term("c", ID, density="0.4")]
    assert [term.name for term in Recipe.of(BASE, terms, rules).terms] == ["c", "b", "a"]


def test_a_filter_is_a_set_of_globs() -> None:
    term = Term("a", ID, only=("b", "a", "b"), except_=("d", "c", "c"))
    found = Recipe.of(BASE, [term], TIES).by_name["a"]
    assert (found.only, found.except_) == (("a", "b"), ("c", "d"))


def test_the_bytes_of_a_recipe_never_change() -> None:
    terms = [
        Term("listening", ID, "0.70"),
        Term("other", ID, "-0.5", density="0.1", only=("model.layers.1?.mlp.*",)),
    ]
    assert Recipe.of(BASE, terms, TIES).encode().decode() == (
        f'{{"base":"{BASE}","rules":{{"density":"1","divide":"strength","elect":"mass","lambda":"1",'
        '"merge":"mean","on_tie":"drop","preset":"ties","rank":"floor1","trim":"tensor","weigh":"before"},'
        '"terms":[{"alpha":"-0.5","density":"0.1","except":[],"join":"vote","name":"other",'
        f'"only":["model.layers.1?.mlp.*"],"vector":"{ID}"}},{{"alpha":"0.7","density":null,"except":[],'
        f'"join":"vote","name":"listening","only":[],"vector":"{ID}"}}]}}'
    )


@pytest.mark.parametrize(
    ("rules", "term", "words"),
    [
        ("ties", Term("../x", ID), "cannot name a vector"),
        ("ties", Term("a", ID, alpha="nan"), "vector a: alpha"),
        ("ties", Term("a", ID, alpha="1e39"), "vector a: alpha"),
        ("ties", Term("a", ID, density="0"), "vector a: density"),
        ("ties", Term("a", ID, density="1.1"), "vector a: density"),
        ("ties", Term("a", ID, join="elect"), "vector a: join"),
        ("ties", Term("a", ID, only=("",)), "vector a: a tensor filter"),
        ("ties", Term("a", ID, except_=(5,)), "vector a: a tensor filter"),  # type: ignore[arg-type]
        ("joint", Term("a", ID, density="0.5"), "vector a: density: under trim = joint"),
        ("linear", Term("a", ID, density="0.5"), "vector a: density: the recipe trims nothing"),
    ],
)
def test_a_term_out_of_range_is_refused_by_name(rules: str, term: Term, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Recipe.of(BASE, [term], Rules.of(rules))


def test_two_terms_of_one_name_or_too_many_are_refused() -> None:
    with pytest.raises(InvalidInput, match="two vectors are named 'a'"):
        Recipe.of(BASE, [Term("a", ID), Term("a", OTHER)], TIES)
    with pytest.raises(InvalidInput, match="at most"):
        Recipe.of(BASE, [Term(f"v{n}", ID) for n in range(MAX_TERMS + 1)], TIES)


@given(recipes().filter(lambda recipe: len(recipe.terms) > 1), st.randoms())
def test_stored_terms_out_of_order_are_refused(recipe: Recipe, random: Any) -> None:
    value = canonical.decode(recipe.encode())
    value["terms"] = value["terms"][1:] + value["terms"][:1]
    with pytest.raises(IntegrityError, match="canonical order"):
        Recipe.decode(canonical.encode(value))


@pytest.mark.parametrize(
    ("only", "except_", "reached"),
    [
        ((), (), True),
        (("*",), (), True),
        (("model.layers.1?.mlp.*",), (), True),
        (("model.layers.2?.*", "*.weight"), (), True),
        (("model.layers.[0-9][0-9].mlp.up_proj.weight",), (), True),
        (("MODEL.*",), (), False),
        (("model.layers",), (), False),
        (("model.layers.[!1]*",), (), False),
        ((), ("*.up_proj.*",), False),
        (("*",), ("*",), False),
        (("*.weight",), ("*.bias",), True),
    ],
)
def test_a_filter_admits_what_only_names_and_except_does_not(only: Any, except_: Any, reached: bool) -> None:
    term = Term("a", ID, only=only, except_=except_)
    assert term.admits("model.layers.12.mlp.up_proj.weight") is reached


@settings(max_examples=200)
@given(st.text("[]!^-&~|\\*?az.[", min_size=1, max_size=12) | patterns, tensor_names)
@example("[z-a]", "b")
@example("[[a]", "a")
@example("[a--b&&~~||]", "a")
@example("*" * 30 + "b", "a" * 60)
def test_any_text_is_a_glob(pattern: str, name: str) -> None:
    assert Term("a", ID, only=(pattern,)).admits(name) is not Term("a", ID, except_=(pattern,)).admits(name)


# --- α, λ and D are rounded to binary32 once ---


def rounded(text: str) -> float:
    """The nearest binary32, ties to the even one, by exact fractions."""
    exact = Fraction(text)
    near = np.float32(float(exact)).view(np.uint32)
    best = None
    for bits in range(int(near) - 3, int(near) + 4):
        if bits & 0x7FFFFFFF >= 0x7F800000 or not 0 <= bits < 1 << 32:
            continue
        value = float(np.uint32(bits).view(np.float32))
        key = (abs(Fraction(value) - exact), bits & 1)
        if best is None or key < best[0]:
            best = (key, value)
    assert best is not None
    return best[1] + 0.0


def bits(value: float) -> bytes:
    return struct.pack("<f", value)


numbers = st.one_of(
    st.decimals(-10, 10, places=9),
    st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=2.0**-60, max_value=2.0**60).map(
        Decimal
    ),
    st.integers(-(2**70), 2**70).map(Decimal),
)


def fits(text: object) -> bool:
    try:
        canonical.decimal(text)  # type: ignore[arg-type]
    except InvalidInput:
        return False
    return True


@settings(max_examples=300)
@given(numbers.filter(fits))
def test_a_decimal_is_rounded_to_the_nearest_binary32(value: Decimal) -> None:
    text = canonical.decimal(value)
    assert bits(to_binary32(text)) == bits(rounded(text))


@settings(max_examples=300)
@given(
    st.integers(0, 1 << 23),
    st.integers(-20, 20),
    st.sampled_from([-1, 0, 1]),
    st.integers(0, 60),
    st.booleans(),
)
def test_halfway_between_two_binary32_the_last_digit_decides(
    mantissa: int, exponent: int, side: int, far: int, negative: bool
) -> None:
    below = Decimal((1 << 23) + mantissa).scaleb(0) * 2 + 1  # halfway, in units of half an ulp
    with_exponent = Fraction(int(below)) * Fraction(2) ** (exponent - 24)
    text = exact_decimal(with_exponent)
    digits = len(text) - text.index(".") - 1 if "." in text else 0
    nudge = Fraction(side, 10 ** (digits + far))
    text = exact_decimal((with_exponent + nudge) * (-1 if negative else 1))
    if fits(text):
        assert bits(to_binary32(canonical.decimal(text))) == bits(rounded(text))


def exact_decimal(value: Fraction) -> str:
    """The decimal of a fraction whose denominator has no prime but 2 and 5."""
    places = 0
    while (value * 10**places).denominator > 1:
        places += 1
    whole = abs(int(value * 10**places))
    digits = str(whole).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return sign + (f"{digits[:-places]}.{digits[-places:]}" if places else digits)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0x00000000),
        ("-0.0000000000000000000000000000000000000000000000000000000001", 0x00000000),
        ("1", 0x3F800000),
        ("0.1", 0x3DCCCCCD),
        ("16777217", 0x4B800000),
        ("16777219", 0x4B800002),
        # halfway between 1 and its neighbour, and a last digit that binary64 cannot see
        ("1.000000059604644775390625", 0x3F800000),
        ("1.00000005960464477539062500000000000000000000000000000000000001", 0x3F800001),
        ("-1.00000005960464477539062500000000000000000000000000000000000001", 0xBF800001),
        ("1.00000017881393432617187499999999999999999999999999999999999999", 0x3F800001),
        ("1.000000178813934326171875", 0x3F800002),
        # subnormal: 2^-149 is 1.4e-45
        ("0.0000000000000000000000000000000000000000000007", 0x00000000),
        ("0.00000000000000000000000000000000000000000000071", 0x00000001),
        ("0.0000000000000000000000000000000000000000000014", 0x00000001),
        ("-0.0000000000000000000000000000000000000000000021", 0x80000001),
        ("0.0000000000000000000000000000000000000000000022", 0x00000002),
        ("0.000000000000000000000000000000000000011754942", 0x007FFFFF),
        ("340282346638528859811704183484516925440", 0x7F7FFFFF),
        ("-340282346638528859811704183484516925440", 0xFF7FFFFF),
    ],
)
def test_these_decimals_are_these_binary32(text: str, value: int) -> None:
    assert struct.unpack("<I", bits(to_binary32(text)))[0] == value


@given(st.integers(1, (1 << 23) + 10), st.integers(0, 9))
def test_subnormals_are_rounded_to_the_nearest_too(mantissa: int, digit: int) -> None:
    text = canonical.decimal(f"{mantissa * Decimal(2) ** -149:.17f}{digit}"[:60])
    fine = canonical.decimal(format(Decimal(mantissa) * Decimal(2) ** -149, ".52f") + str(digit))
    for one in (text, fine):
        assert bits(to_binary32(one)) == bits(rounded(one))


def shortest(value: np.float32) -> str:
    return canonical.decimal(str(value))


@given(st.integers(0, 0x7F7FFFFF), st.booleans())
def test_a_binary32_has_the_shortest_decimal_that_is_rounded_to_it(pattern: int, negative: bool) -> None:
    value = -np.uint32(pattern).view(np.float32) if negative else np.uint32(pattern).view(np.float32)
    assert from_binary32(float(value)) == shortest(value)
    assert to_binary32(from_binary32(float(value))) == value


def test_so_have_powers_of_two_whose_neighbours_are_not_equally_far() -> None:
    for exponent in range(255):
        value = np.uint32(exponent << 23).view(np.float32)
        assert from_binary32(float(value)) == shortest(value)


def test_a_number_that_is_not_of_binary32_has_no_such_decimal() -> None:
    with pytest.raises(InvalidInput, match="binary32"):
        from_binary32(0.1)


def test_alphas_of_one_binary32_mean_the_same() -> None:
    assert Term("a", ID, "0.1").alpha_at(None) == Term("a", ID, "0.100000001490116119384765625").alpha_at(
        None
    )
    assert bits(
        Term("a", ID, "-0.0000000000000000000000000000000000000000000000000001").alpha_at(None)
    ) == bits(0.0)


def test_the_density_in_effect_is_the_terms_own_before_the_recipes_and_1_without_either() -> None:
    own, plain = Term("own", ID, density="0.5"), Term("plain", OTHER)
    recipe = Recipe.of(BASE, [own, plain], Rules.of("ties", density=0.2))
    assert [recipe.density_of(term) for term in (own, plain)] == ["0.5", "0.2"]
    assert Recipe.of(BASE, [plain], Rules.of("linear")).density_of(plain) == "1"


@pytest.mark.parametrize(
    ("rules", "term", "trimmed"),
    [
        (Rules.of("ties", density=0.2), Term("v", ID), True),
        (Rules.of("ties", density=0.2), Term("v", ID, density="1"), False),
        (Rules.of("ties", density=0.2), Term("v", ID, join="add"), False),
        (Rules.of("ties"), Term("v", ID), False),
        (Rules.of("ties"), Term("v", ID, density="0.3"), True),
        (Rules.of("joint", density=0.2), Term("v", ID), True),
        (Rules.of("joint", density=1), Term("v", ID), False),
        (Rules.of("linear"), Term("v", ID), False),
    ],
)
def test_a_term_is_trimmed_if_it_votes_under_rules_that_trim_at_a_density_below_1(
    rules: Rules, term: Term, trimmed: bool
) -> None:
    assert Recipe.of(BASE, [term], rules).trims(term) is trimmed


@example(digits="9" * 15)
@example(digits="9" * 16)
@example(digits="9" * 17)
@example(digits="999999999999999944488848768742172978818416595458984375")
@example(digits="9999999999999999444888487687421729788184165954589843749")
@given(st.text("0123456789", min_size=1, max_size=60).filter(lambda digits: digits.strip("0")))
def test_a_density_trims_unless_it_is_1_as_binary64(digits: str) -> None:
    term = Term("v", ID, density=canonical.decimal(f"0.{digits}"))
    assert Recipe.of(BASE, [term], TIES).trims(term) is (float(f"0.{digits}") != 1.0)
