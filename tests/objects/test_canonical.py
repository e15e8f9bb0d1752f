from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import IntegrityError, InvalidInput
from persona.limits import MAX_JSON_DEPTH
from persona.objects import canonical
from persona.objects.canonical import MAX_INTEGER, decode, encode
from tests.objects.strategies import texts, values


@given(values)
def test_what_is_encoded_decodes_to_itself(value: Any) -> None:
    assert decode(encode(value)) == value
    assert encode(decode(encode(value))) == encode(value)


@given(st.dictionaries(texts, st.integers(-9, 9)), st.randoms())
def test_the_order_of_keys_changes_no_byte(value: dict[str, int], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert encode(dict(items)) == encode(value)


def test_keys_are_sorted_by_code_point() -> None:
    assert (
        encode({"\U0001f600": 1, "￿": 2, "é": 3, "a": 4, "B": 5})
        == '{"B":5,"a":4,"é":3,"￿":2,"\U0001f600":1}'.encode()
    )


def test_the_bytes_of_an_example_never_change() -> None:
    value = {"b": [1, -2, True, None], "a": 'é\n"\\/\x7f\u2028', "": {}}
    assert encode(value) == b'{"":{},"a":"\xc3\xa9\\n\\"\\\\/\x7f\xe2\x80\xa8","b":[1,-2,true,null]}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{}x",
        b"\xef\xbb\xbf{}",
        b" {}",
        b"{} ",
        b"{}\n",
        b'{"a": 1}',
        b'{"a":1, "b":2}',
        b"[1,\t2]",
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":1}',
        b'{"a":{"b":1,"b":2}}',
        b"1.0",
        b"1e3",
        b"-0",
        b"01",
        b"-0.5",
        b"NaN",
        b"Infinity",
        b"[-Infinity]",
        b"9007199254740992",
        b"-9007199254740992",
        b"1" * 5000,
        b'"\\u0061"',
        b'"\\/"',
        b'"\\u000A"',
        b'"\xc3"',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\ud83d\\ude00"',
        b'"a\nb"',
        b"'a'",
        b"[1,]",
        b"nul",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
    ids=lambda data: data[:24],
)
def test_bytes_that_encode_would_not_write_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"^tree: "):
        decode(data, "tree")


@given(values, st.integers(0, 10**6), st.sampled_from([b" ", b"\n", b"\t", b"\r"]))
def test_space_anywhere_but_in_text_is_refused(value: Any, at: int, space: bytes) -> None:
    data = encode(value)
    at %= len(data) + 1
    spaced = data[:at] + space + data[at:]
    try:
        found = decode(spaced)
    except IntegrityError:
        return
    assert encode(found) == spaced
    assert found != value


@given(st.floats())
def test_no_float_is_encoded_however_whole(value: float) -> None:
    with pytest.raises(InvalidInput):
        encode([value])
    with pytest.raises(IntegrityError):
        decode(json.dumps(value).encode())


@given(st.integers(min_value=MAX_INTEGER + 1) | st.just(10**5000))
def test_integers_of_2_to_the_53_and_more_are_refused(value: int) -> None:
    for wide in (value, -value):
        with pytest.raises(InvalidInput):
            encode([wide])
    assert decode(encode([MAX_INTEGER, -MAX_INTEGER])) == [MAX_INTEGER, -MAX_INTEGER]


@pytest.mark.parametrize("value", [b"a", {1: 2}, {None: 1}, {"a"}, 1j, object(), [float("nan")]])
def test_values_outside_json_are_refused(value: Any) -> None:
    with pytest.raises(InvalidInput):
        encode(value)


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, ["a\udc80"]])
def test_lone_surrogates_are_refused(value: Any) -> None:
    with pytest.raises(InvalidInput):
        encode(value)


def nested(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * levels + "1" * (opening != "[") + closing * levels).encode()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_exactly_as_many_levels_are_encoded_as_are_decoded(opening: str, closing: str) -> None:
    deepest = nested(MAX_JSON_DEPTH, opening, closing)
    assert encode(decode(deepest)) == deepest
    with pytest.raises(IntegrityError):
        decode(nested(MAX_JSON_DEPTH + 1, opening, closing))
    with pytest.raises(InvalidInput):
        encode(json.loads(nested(MAX_JSON_DEPTH + 1, opening, closing)))


@given(st.text('[]{}"\\\nx', max_size=60), st.sampled_from([1, 3000]))
def test_brackets_within_text_are_no_nesting(text: str, times: int) -> None:
    value = {"a": text * times, text: ["[" * 40, text]}
    assert decode(encode(value)) == value


def test_hostile_depth_never_reaches_the_parser() -> None:
    with pytest.raises(IntegrityError, match="nested deeper"):
        decode(b'{"a":"\\n","b":' + b"[" * 10**5 + b"]" * 10**5 + b"}")


def test_more_lists_than_a_manifest_can_have_are_refused_before_they_are_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(canonical, "MAX_JSON_CONTAINERS", 3)
    assert canonical.decode(b"[[],[]]") == [[], []]
    with pytest.raises(IntegrityError, match="more than 3 lists"):
        canonical.decode(b"[[],[],[]]")
