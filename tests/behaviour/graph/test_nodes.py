"""Nodes of other programs become files of patterns, and come back as they were."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from persona.behaviour.graph.nodes import file_text, in_order, node_of, read_nodes
from persona.behaviour.graph.pattern import Link, Pattern
from persona.behaviour.graph.reading import file_name
from persona.errors import InvalidInput
from tests.behaviour.graph.texts import pattern, read_pattern

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = TEXT.filter(lambda text: bool(text.strip()))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
LINKS = st.lists(
    TEXT
    | st.fixed_dictionaries(
        {"to": TEXT},
        optional={"relation": TEXT, "strength": st.floats(0, 1) | st.integers(-1, 2), "since": JSON},
    )
)
NODES = st.builds(
    lambda key, fields, more: {"key": key, **fields, **{name: more[name] for name in more if name != "key"}},
    KEYS,
    st.fixed_dictionaries(
        {},
        optional={
            "content": TEXT | JSON,
            "weight": JSON,
            "category": st.sampled_from(["pattern", "trait", "core"]) | JSON,
            "links": LINKS | JSON,
        },
    ),
    st.dictionaries(TEXT, JSON, max_size=3),
)


def written(value: dict[str, Any], position: int = 1) -> Pattern:
    text = file_text(value, position)
    return read_pattern(f"graph/{file_name(value['key'])}", text.encode())


def same(one: object, other: object) -> bool:
    """Whether two values are the same JSON, the order of fields included: 1 is not 1.0."""
    return json.dumps(one) == json.dumps(other)


@given(NODES)
@example({"key": "a", "content": "+++\nno fence", "weight": None, "links": None, "category": None})
@example({"key": "a", "content": "ends\r", "big": 1 << 80, "tiny": 5e-324, "minus": -0.0})
@example({"key": "A/b c", "content": "\r\n\n", "import": {"fields": []}, "position": 3, "sign": 0})
@example({"key": "a", "facets": 3, "data": {"train": None}, "links": [{"to": "b", "strength": 1}]})
@example({"key": "a", "deep": [[[[[[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]]]]]]})
def test_every_node_comes_back_as_it_was(value: dict[str, Any]) -> None:
    assert same(node_of(written(value)), value)


@given(NODES)
def test_a_node_survives_a_second_import_of_its_export(value: dict[str, Any]) -> None:
    once = node_of(written(value))
    assert file_text(once, 1) == file_text(value, 1)


def test_the_file_of_a_node_reads_well() -> None:
    node = {
        "key": "pattern-listening",
        "content": "Listen first.\n\nThen answer.",
        "weight": 0.8,
        "category": "core",
        "links": [{"to": "rushing", "relation": "opposes", "strength": 0.9}],
        "seen": None,
    }
    assert file_text(node, 3) == (
        "+++\n"
        'key = "pattern-listening"\n'
        'kind = "core"\n'
        "links = [\n"
        '    { to = "rushing", relation = "opposes", strength = 0.9 },\n'
        "]\n"
        "[import]\n"
        "position = 3\n"
        'fields = ["key", "content", "weight", "category", "links", "seen"]\n'
        "[import.values]\n"
        "weight = 0.8\n"
        "[import.json]\n"
        'seen = "null"\n'
        "+++\n"
        "Listen first.\n\nThen answer.\n"
    )


@pytest.mark.parametrize(
    ("links", "understood"),
    [
        (["a"], [Link("a", "related", 1.0, 0)]),
        ([{"target": "a", "type": "opposes", "weight": 0.5}], [Link("a", "opposes", 0.5, 0)]),
        ([{"to": "a", "relation": "opposes", "since": 3}], [Link("a", "opposes", 1.0, 0)]),
        ([{"to": "a", "strength": 7}, {"relation": "b"}, 3, "c"], [Link("c", "related", 1.0, 0)]),
        ({"a": 1}, []),
    ],
)
def test_links_are_understood_in_the_forms_that_programs_use(links: Any, understood: list[Link]) -> None:
    found = written({"key": "x", "links": links})
    assert [Link(one.to, one.relation, one.strength, 0) for one in found.links] == understood


def edited(value: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    text = file_text(value, 1)
    assert old in text
    return node_of(read_pattern(f"graph/{file_name(value['key'])}", text.replace(old, new).encode()))


def test_edits_of_the_file_are_exported() -> None:
    node: dict[str, Any] = {"key": "a", "content": "Old.", "weight": 1, "links": ["b"], "category": "mood"}
    assert edited(node, "Old.", "New.") == {**node, "content": "New."}
    assert edited(node, "weight = 1", "weight = 2") == {**node, "weight": 2}
    assert edited(node, 'kind = "pattern"', 'kind = "core"') == {**node, "category": "core"}
    changed = {"to": "b", "relation": "opposes", "strength": 1.0}
    assert edited(node, '"related"', '"opposes"') == {**node, "links": [changed]}
    assert edited(node, "[import]", "since = 3\n[import]") == {**node, "since": 3}


def test_a_field_that_came_empty_is_filled_by_an_edit() -> None:
    assert edited({"key": "a", "content": None}, "+++\n\n", "+++\nProse.\n") == {
        "key": "a",
        "content": "Prose.",
    }
    assert edited({"key": "a"}, "+++\n\n", "+++\nProse.\n") == {"key": "a", "content": "Prose."}


def test_a_pattern_written_by_hand_exports_what_it_says() -> None:
    front = (
        'kind = "trait"\nsign = -1\nweight = 0.5\nsince = 2024-05-01\nlinks = [{ to = "b" }]\n'
        '[data]\ntrain = "data/a.jsonl"\n[facets.x]\nmood = 1\n'
    )
    assert node_of(read_pattern("graph/a.md", pattern("a", front, "Prose.").encode())) == {
        "key": "a",
        "content": "Prose.",
        "category": "trait",
        "links": [{"to": "b", "relation": "related", "strength": 1.0}],
        "weight": 0.5,
        "since": "2024-05-01",
    }
    assert node_of(read_pattern("graph/a.md", b'+++\nkey = "a"\n+++\n')) == {
        "key": "a",
        "category": "pattern",
    }


def test_patterns_come_in_the_order_of_their_nodes_and_then_by_key() -> None:
    imported = [written({"key": key}, position) for position, key in ((2, "a"), (1, "z"))]
    by_hand = [read_pattern(f"graph/{key}.md", pattern(key).encode()) for key in ("y", "b")]
    assert [one.key for one in in_order([*by_hand, *imported])] == ["z", "a", "b", "y"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"key": "a"}\n{"key": "a"}\n', r"^n:2: the key 'a' stands in n:1 already"),
        ('{"key": "a"}\n\n{"content": "b"}\n', r"^n:3: key must be text that is not empty"),
        ('{"key": 3}\n', r"^n:1: key must be text"),
        ("[]\n", r"^n:1: a line must be a JSON object"),
        ('{"key": "a"\n', r"^n:1: this is not JSON"),
    ],
)
def test_a_line_that_is_no_node_is_named(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        read_nodes("n", text.encode())
