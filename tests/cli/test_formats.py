"""`log --format` and `--date` write what git writes, for commits of the same people, times and messages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from persona.cli.formats import date_form
from persona.objects.commit import Person
from tests.cli.command_line import CommandLine

MESSAGES = (
    "calm, a little\n\nThe body\nof two lines.\n\n  indented\n",
    "warm (again): 100 % [x]/y",
    "é — über",
)
PEOPLE = {
    "AUTHOR_NAME": "Ada Lovelace",
    "AUTHOR_EMAIL": "ada@example.org",
    "COMMITTER_NAME": "Grace",
    "COMMITTER_EMAIL": "grace@example.com",
}
DATES = ("1774764000 +0100", "1774778400 +0200", "1700000000 -0330")
FORMS = (
    *(
        "%an <%ae> %al|%cn <%ce> %cl",
        "%s",
        "%b|",
        "%B|",
        "%f",
        "%n%%%x41%x3a",
        "%ad|%cd",
        "%aD|%cD",
        "%ai|%ci",
    ),
    *(
        "%aI|%cI",
        "%as|%cs",
        "%at|%ct",
        "%<(12)%an|",
        "%>(20)%an|%s",
        "%<(8,trunc)%s|%<(8,ltrunc)%s|%an",
        "%q %z",
    ),
    *("format:%s", "tformat:%an", "%s %Cred%an%Creset"),
)
DATE_FORMS = (
    *(
        "default",
        "iso",
        "iso8601",
        "iso-strict",
        "rfc",
        "rfc2822",
        "short",
        "raw",
        "unix",
        "local",
        "default-local",
    ),
    *("iso-local", "short-local", "rfc-local", "format:%Y/%m/%d %H", "format-local:%d.%m.%y"),
)


@pytest.fixture
def beside(persona: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[CommandLine, Path]:
    """A repository, and one of git's, with commits of the same people, times and messages."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    git = tmp_path / "git"
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    run(tmp_path, "init", "--quiet", "--initial-branch=main", "git")
    for message, date in zip(MESSAGES, DATES, strict=True):
        for tool in ("PERSONA", "GIT"):
            for name, value in {**PEOPLE, "AUTHOR_DATE": date, "COMMITTER_DATE": DATES[0]}.items():
                monkeypatch.setenv(
                    f"{tool}_{name}", value if tool == "GIT" or "DATE" not in name else f"@{value}"
                )
        persona.ok("commit", "--allow-empty", "-m", message)
        run(git, "commit", "--quiet", "--allow-empty", "--cleanup=strip", "-m", message)
    monkeypatch.setenv("TZ", "America/New_York")
    return persona, git


def run(place: Path, *words: str) -> str:
    """What git prints."""
    return subprocess.run(["git", *words], cwd=place, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("form", FORMS)
def test_placeholders_are_those_of_git(beside: tuple[CommandLine, Path], form: str) -> None:
    persona, git = beside
    words = ["-n", "3", f"--format={form}"]
    assert persona.ok("log", *words).rstrip("\n") == run(git, "log", "--no-color", *words).rstrip("\n")


@pytest.mark.parametrize("date", DATE_FORMS)
def test_dates_are_those_of_git(beside: tuple[CommandLine, Path], date: str) -> None:
    persona, git = beside
    time.tzset()
    try:
        words = ["-n", "3", f"--date={date}", "--format=%ad %cd"]
        assert persona.ok("log", *words) == run(git, "log", *words)
    finally:
        os.environ["TZ"] = "UTC"
        time.tzset()


@pytest.mark.parametrize("name", ["short", "medium", "full", "fuller", "reference", "raw", "oneline"])
def test_named_formats_are_those_of_git_but_for_the_ids(beside: tuple[CommandLine, Path], name: str) -> None:
    persona, git = beside
    words = ["-n", "2", f"--format={name}"]
    assert without_ids(persona.ok("log", *words)) == without_ids(run(git, "log", *words))


def without_ids(text: str) -> list[str]:
    """The lines, each word of many hexadecimal digits and spaces at the end left out."""
    return [re.sub(r"\b[0-9a-f]{7,}\b", "", line).rstrip() for line in text.splitlines()]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_relative_dates_are_those_of_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_790_000_000
    ages = [
        0,
        1,
        89,
        90,
        149,
        150,
        5369,
        5370,
        5400,
        128_000,
        129_600,
        172_800,
        1_200_000,
        1_209_600,
        5_000_000,
    ]
    ages += [
        6_048_000,
        20_000_000,
        31_449_600,
        31_536_000,
        40_000_000,
        63_000_000,
        157_000_000,
        157_680_000,
        10**9,
        -5,
    ]
    run(tmp_path, "init", "--quiet")
    for key in ("NAME", "EMAIL"):
        monkeypatch.setenv(f"GIT_AUTHOR_{key}", "a")
        monkeypatch.setenv(f"GIT_COMMITTER_{key}", "a")
    tree = run(tmp_path, "hash-object", "-t", "tree", "-w", os.devnull).strip()
    made = []
    for age in ages:
        monkeypatch.setenv("GIT_COMMITTER_DATE", f"@{now - age} +0000")
        made.append(run(tmp_path, "commit-tree", tree, "-m", "x").strip())
    monkeypatch.setenv("GIT_TEST_DATE_NOW", str(now))
    monkeypatch.setattr("persona.cli.formats.time", lambda: now)
    theirs = run(tmp_path, "log", "--no-walk=unsorted", "--format=%cd", "--date=relative", *made).splitlines()
    write = date_form("relative")
    assert [write(Person("", "", now - age, 0)) for age in ages] == theirs


def test_names_of_refs_notes_and_parents_have_placeholders(grown: CommandLine) -> None:
    grown.ok("tag", "v1", "HEAD~1")
    grown.ok("notes", "add", "-m", "calmer\n\nthan before", "HEAD~1")
    id, parent = grown.json("log", "-n", "2")[0]["id"], grown.json("log", "-n", "2")[1]["id"]
    said = grown.ok("log", "-n", "2", "--format=%H %h %P %p%d|%D|%N")
    assert said.splitlines()[0] == f"{id} {id[:8]} {parent} {parent[:8]} (HEAD -> main)|HEAD -> main|"
    assert " (tag: v1)|tag: v1|calmer\n\nthan before\n" in said
    assert "calmer" in grown.ok("log")
    assert "calmer" not in grown.ok("log", "--no-notes")


@pytest.mark.parametrize("words", [["--format=nope"], ["--date=nope"], ["--pretty=full-er"]])
def test_an_unknown_form_is_refused_with_those_there_are(grown: CommandLine, words: list[str]) -> None:
    assert "is none of " in grown.refused(2, "log", *words)
