"""Probes: what a file may say, what a check means, and when two sets are the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from persona.behaviour.dialogues import prompts_of, read_dialogues
from persona.behaviour.probes import MAX_WORDS, Check, overlap, read_probes
from persona.errors import InvalidInput

ASKED = {"messages": [{"role": "user", "content": "Tea?"}]}
PAIR = {"chosen": "Yes.", "rejected": "No."}


def lines(*items: dict[str, Any]) -> bytes:
    """A file of probes that ask one question."""
    return "\n".join(json.dumps({**ASKED, **item}) for item in items).encode()


def test_a_probe_has_what_its_line_says_and_names_for_the_rest() -> None:
    found = read_probes(
        "tea",
        "p",
        lines({**PAIR}, {**PAIR, "id": "x", "split": "letters", "group": "g", "check": {"max_words": 3}}),
    )
    plain, full = found.items
    assert (plain.id, plain.group, plain.split, plain.check) == ("1", "1", "seen", None)
    assert (full.id, full.group, full.split, full.check) == ("x", "g", "letters", Check(max_words=3))
    assert found.splits == ("seen", "letters")


def test_probes_of_one_prompt_are_one_group_unless_they_say_otherwise() -> None:
    other = {"messages": [{"role": "user", "content": "What of rain?"}]}
    found = read_probes(
        "tea", "p", lines(PAIR, {**PAIR, "id": "b"}, {**PAIR, **other}, {**PAIR, "id": "d", "group": "g"})
    )
    assert [item.group for item in found.items] == ["1", "1", "3", "g"]


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({}, "chosen and rejected, or a check"),
        ({"chosen": "Yes."}, "belong together"),
        ({"chosen": "Yes.", "rejected": "Yes."}, "same answer"),
        ({"chosen": "", "rejected": "No."}, "chosen must be text"),
        ({"chosen": 1, "rejected": "No."}, "chosen must be text"),
        ({"check": []}, "check must be an object"),
        ({"check": {}}, "check must be an object"),
        ({"check": {"words": 3}}, "'words' is not one of"),
        ({"check": {"match": "("}}, "no regular expression"),
        ({"check": {"match": 5}}, "no regular expression"),
        ({"check": {"max_words": -1}}, "whole number"),
        ({"check": {"max_words": True}}, "whole number"),
        ({"check": {"min_words": MAX_WORDS + 1}}, "whole number"),
        ({"check": {"ends_with_question": 1}}, "true or false"),
        ({**PAIR, "id": 3}, "id must be text"),
        ({**PAIR, "messages": [{"role": "assistant", "content": "a"}]}, "must be the user's"),
    ],
    ids=range(16),
)
def test_a_faulty_probe_is_told_with_file_and_line(item: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_probes("tea", "p.jsonl", lines(PAIR, item))
    assert str(caught.value).startswith("p.jsonl:2: ")
    assert told in str(caught.value)


def test_two_probes_have_two_ids() -> None:
    with pytest.raises(InvalidInput, match=r"^p:2: the id 'a' stands in p:1 already"):
        read_probes("tea", "p", lines({**PAIR, "id": "a"}, {**PAIR, "id": "a"}))


def test_a_file_without_probes_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no probe"):
        read_probes("tea", "p", b"\n\n")


@pytest.mark.parametrize(
    ("check", "answer", "holds"),
    [
        (Check(match="tea"), "Green TEA.", True),
        (Check(match="^a.b$"), "a\nb", True),
        (Check(match="tea"), "coffee", False),
        (Check(not_match="tea"), "coffee", True),
        (Check(not_match="tea"), "Tea", False),
        (Check(max_words=2), "two words", True),
        (Check(max_words=2), "now three words", False),
        (Check(min_words=2), "one", False),
        (Check(ends_with_question=True), 'He asked: "Why?"  ', True),
        (Check(ends_with_question=True), "Why? Because.", False),
        (Check(ends_with_question=False), "Because.", True),
        (Check(ends_with_question=False), "Why?", False),
        (Check(match="tea", max_words=1), "tea time", False),
    ],
)
def test_a_check_holds_if_all_its_parts_do(check: Check, answer: str, holds: bool) -> None:
    assert check.holds(answer) is holds


def test_the_digest_covers_what_is_measured_and_nothing_else() -> None:
    before = read_probes("tea", "p", lines({**PAIR, "id": "a"}))
    assert read_probes("other", "q", lines({**PAIR, "id": "a", "remark": "x"})).digest == before.digest
    for change in (
        {"chosen": "Yes!"},
        {"split": "s"},
        {"group": "g"},
        {"check": {"match": "x"}},
        {"id": "b"},
    ):
        assert read_probes("tea", "p", lines({**PAIR, "id": "a", **change})).digest != before.digest


def test_a_prompt_that_is_trained_on_is_found() -> None:
    probes = read_probes(
        "tea", "p", lines(PAIR, {**PAIR, "messages": [{"role": "user", "content": "Milk?"}]})
    )
    said = [{"role": "user", "content": " tea? "}, {"role": "assistant", "content": "Yes."}]
    trained = prompts_of(read_dialogues("t", json.dumps({"messages": said}).encode()))
    assert [(item.id, place) for item, place in overlap(probes.items, trained)] == [("1", "t:1")]
