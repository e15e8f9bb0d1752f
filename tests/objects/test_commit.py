from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given

from persona.errors import IntegrityError
from persona.objects import canonical
from persona.objects.commit import MAX_OFFSET, MAX_PARENTS, MAX_SECONDS, MIN_SECONDS, Commit, Person, Tag
from tests.objects.strategies import people

ID, OTHER = "ab" * 32, "cd" * 32
ADA = Person("Ada", "ada@example.org", 1_700_000_000, 60)
COMMIT = Commit(ID, (ID, OTHER), ADA, Person("Bob", "", -5, -330), "Listen\n\nbefore answering\n")
TAG = Tag(ID, "commit", "v1.0", ADA, "the first")


def test_a_commit_and_a_tag_come_back_as_they_were() -> None:
    assert Commit.decode(COMMIT.encode()) == COMMIT
    assert Tag.decode(TAG.encode()) == TAG


def test_the_bytes_of_a_commit_and_a_tag_never_change() -> None:
    ada = '{"email":"ada@example.org","name":"Ada","offset":60,"time":1700000000}'
    assert COMMIT.encode().decode() == (
        f'{{"author":{ada},"committer":{{"email":"","name":"Bob","offset":-330,"time":-5}},'
        f'"message":"Listen\\n\\nbefore answering\\n","parents":["{ID}","{OTHER}"],"tree":"{ID}"}}'
    )
    assert TAG.encode().decode() == (
        f'{{"kind":"commit","message":"the first","name":"v1.0","object":"{ID}","tagger":{ada}}}'
    )


def test_the_order_of_parents_counts() -> None:
    assert Commit(ID, (OTHER, ID), ADA, ADA, "").encode() != Commit(ID, (ID, OTHER), ADA, ADA, "").encode()


@given(people)
def test_every_time_that_is_accepted_is_a_date_at_its_own_offset(person: Person) -> None:
    assert Person.from_json(person.to_json(), "author") == person
    for seconds in (person.time, MIN_SECONDS, MAX_SECONDS):
        for offset in (person.offset, -MAX_OFFSET, MAX_OFFSET):
            zone = timezone(timedelta(minutes=offset))
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
            assert moment.astimezone(zone).timestamp() == seconds


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "a\nb"),
        ("name", "a <b"),
        ("email", "a>b"),
        ("email", "\x7f"),
        ("name", None),
        ("time", "5"),
        ("time", True),
        ("time", MAX_SECONDS + 1),
        ("time", MIN_SECONDS - 1),
        ("offset", MAX_OFFSET + 1),
        ("offset", -MAX_OFFSET - 1),
        ("offset", None),
        ("surplus", 1),
    ],
)
def test_a_person_with_a_wrong_field_is_refused(key: str, value: Any) -> None:
    with pytest.raises(IntegrityError, match="commit author"):
        Person.from_json(ADA.to_json() | {key: value}, "commit author")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tree", "0" * 64),
        ("parents", ID),
        ("parents", [None]),
        ("parents", ["0" * 64]),
        ("parents", [ID] * (MAX_PARENTS + 1)),
        ("author", None),
        ("committer", []),
        ("message", None),
        ("message", 5),
    ],
)
def test_a_commit_with_a_wrong_field_is_refused(key: str, value: Any) -> None:
    with pytest.raises(IntegrityError, match=r"^commit"):
        Commit.decode(canonical.encode(canonical.decode(COMMIT.encode()) | {key: value}))


@pytest.mark.parametrize(
    ("key", "value"), [("object", "x"), ("kind", "file"), ("kind", ["commit"]), ("name", 1), ("tagger", {})]
)
def test_a_tag_with_a_wrong_field_is_refused(key: str, value: Any) -> None:
    with pytest.raises(IntegrityError, match=r"^tag"):
        Tag.decode(canonical.encode(canonical.decode(TAG.encode()) | {key: value}))
