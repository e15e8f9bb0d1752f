"""Who commits: the environment, then persona's config, then git's, then the account."""

from __future__ import annotations

import pytest

from persona.cli import identity
from persona.errors import InvalidInput
from persona.objects.commit import Person
from tests.cli.command_line import CommandLine


def who(environment: dict[str, str], config: dict[str, str] | None = None) -> tuple[Person, list[str]]:
    said: list[str] = []
    return identity.author(environment, (config or {}).get, said.append, "."), said


def test_the_environment_comes_first() -> None:
    environment = {"PERSONA_AUTHOR_NAME": "Ada", "PERSONA_AUTHOR_EMAIL": "ada@example.org"}
    person, said = who(environment, {"user.name": "Bob", "user.email": "bob@example.org"})
    assert (person.name, person.email, said) == ("Ada", "ada@example.org", [])


def test_each_half_falls_back_by_itself() -> None:
    person, said = who({"PERSONA_AUTHOR_NAME": "Ada"}, {"user.name": "Bob", "user.email": "bob@example.org"})
    assert (person.name, person.email, said) == ("Ada", "bob@example.org", [])


def test_git_is_asked_next(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"user.name": "Grace", "user.email": "grace@example.org"}
    monkeypatch.setattr(identity, "git_settings", lambda directory: known)
    person, said = who({})
    assert (person.name, person.email, said) == ("Grace", "grace@example.org", [])


def test_the_account_is_the_last_resort_and_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "git_settings", lambda directory: {})
    person, said = who({})
    assert "@" in person.email
    assert len(said) == 1
    assert f"{person.name} <{person.email}>" in said[0]


@pytest.mark.parametrize(
    ("text", "seconds", "offset"),
    [
        ("2026-11-15T09:30:00+01:00", 1794731400, 60),
        ("2026-11-15T08:30:00Z", 1794731400, 0),
        ("@1794731400 +0100", 1794731400, 60),
        ("1794731400 -0330", 1794731400, -210),
        ("Sun, 15 Nov 2026 09:30:00 +0100", 1794731400, 60),
        ("Sun Nov 15 09:30:00 2026 +0100", 1794731400, 60),
        ("20261115T083000Z", 1794731400, 0),
        ("@0 +0000", 0, 0),
    ],
)
def test_a_date_is_taken_in_the_usual_forms(text: str, seconds: int, offset: int) -> None:
    person, _ = who({"PERSONA_AUTHOR_NAME": "a", "PERSONA_AUTHOR_EMAIL": "b", "PERSONA_AUTHOR_DATE": text})
    assert (person.time, person.offset) == (seconds, offset)


@pytest.mark.parametrize("text", ["soon", "2026-13-01", "@99999999999999 +0000", "@1794731400 +9900"])
def test_a_date_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="PERSONA_AUTHOR_DATE"):
        who({"PERSONA_AUTHOR_NAME": "a", "PERSONA_AUTHOR_EMAIL": "b", "PERSONA_AUTHOR_DATE": text})


def test_what_a_commit_cannot_hold_is_left_out() -> None:
    person, _ = who({"PERSONA_AUTHOR_NAME": " A <da>\n", "PERSONA_AUTHOR_EMAIL": "a@b"})
    assert person.name == "A da"


def test_the_committer_is_who_runs_the_command_now() -> None:
    environment = {"PERSONA_AUTHOR_NAME": "Ada", "PERSONA_AUTHOR_DATE": "@0 +0000"}
    config = {"user.name": "Bob", "user.email": "bob@example.org"}
    person = identity.committer(environment, config.get, [].append, ".")
    assert (person.name, person.email) == ("Bob", "bob@example.org")
    assert person.time > 1_700_000_000


def test_the_environment_names_the_committer_where_one_must() -> None:
    environment = {
        "PERSONA_COMMITTER_NAME": "Carl",
        "PERSONA_COMMITTER_EMAIL": "c@d",
        "PERSONA_COMMITTER_DATE": "@7 +0100",
    }
    assert identity.committer(environment, {}.get, [].append, ".") == Person("Carl", "c@d", 7, 60)


def test_git_is_asked_once_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    known = {"user.name": "Grace", "user.email": "grace@example.org"}
    monkeypatch.setattr(identity, "git_settings", lambda directory: asked.append(directory) or known)
    author = identity.author({}, {}.get, [].append, ".")
    committer = identity.committer({}, {}.get, [].append, ".", author)
    assert (committer.name, committer.email, len(asked)) == ("Grace", "grace@example.org", 1)


def test_the_author_of_a_commit_may_be_another_person_at_another_time(grown: CommandLine) -> None:
    def of_head() -> tuple[str, str, str]:
        entry = grown.json("log", "-n", "1")[0]
        return entry["author"]["name"], entry["author"]["email"], entry["date"]

    committer = grown.json("log", "-n", "1")[0]["committer"]
    words = ("commit", "--allow-empty", "-m", "hers")
    grown.ok(*words, "--author", "Ada Lovelace <ada@example.org>", "--date", "2026-11-15T09:30:00+01:00")
    hers = ("Ada Lovelace", "ada@example.org", "2026-11-15T09:30:00+01:00")
    assert of_head() == hers
    assert grown.json("log", "-n", "1")[0]["committer"] == committer
    grown.ok("commit", "--amend", "--allow-empty", "-m", "still hers")
    assert of_head() == hers
    grown.ok("commit", "--amend", "--allow-empty", "--no-edit", "--date", "@1700000000 +0000")
    assert of_head() == (*hers[:2], "2023-11-14T22:13:20+00:00")
    grown.ok("commit", "--amend", "--allow-empty", "--no-edit", "--author", "A. Tester")
    assert of_head() == ("A. Tester", "tester@example.org", "2023-11-14T22:13:20+00:00")
    grown.ok(*words, "--author=Ada <a@b>")
    assert of_head()[:2] == ("Ada", "a@b")
    grown.ok("commit", "--amend", "--allow-empty", "--no-edit", "--reset-author")
    assert of_head()[0] == "A. Tester"
    assert "no author in this history matches 'Nobody'" in grown.refused(4, *words, "--author", "Nobody")
    assert "--date: 'soonish' is not a date" in grown.refused(4, *words, "--date", "soonish")
    assert "give --amend too" in grown.refused(2, *words, "--reset-author")
