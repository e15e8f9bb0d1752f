"""`main@{DATE}`: the commit of a branch at a time, in every zone and across changes of daylight saving."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from persona.repository import Repository
from persona.store import reflog
from persona.store.reflog import Entry
from tests.campaign import rounds
from tests.history.bots import Bot

ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia"),
    "America/Sao_Paulo",
)
CHANGES = {  # the first noon after clocks changed in these zones
    "Europe/Berlin": ((2026, 3, 29), (2026, 10, 25)),
    "America/New_York": ((2026, 3, 8), (2026, 11, 1)),
    "Australia/Lord_Howe": ((2026, 4, 5), (2026, 10, 4)),  # by half an hour
}


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ZoneInfo]]:
    """Puts this process into a time zone."""

    def enter(name: str) -> ZoneInfo:
        monkeypatch.setenv("TZ", name)
        time.tzset()
        return ZoneInfo(name)

    yield enter
    monkeypatch.undo()
    time.tzset()


def moved(repo: Repository, times: Sequence[int], offsets: Sequence[int]) -> list[str]:
    """Gives `main` a reflog of moves at these times, each in a zone of its own; returns its commits."""
    refs = repo._history.store.refs
    tip = refs.read("refs/heads/main")
    ids = [f"{number:064x}" for number in range(1, len(times))] + [str(tip)]
    lines = [
        Entry(old, new, "Ada <ada@example.org>", when, offset, "moved")
        for old, new, when, offset in zip([None, *ids], ids, times, offsets, strict=False)
    ]
    reflog.path_of(refs.root, "refs/heads/main").write_bytes(reflog._chained("refs/heads/main", lines))
    return ids


@pytest.mark.parametrize("name", CHANGES)
def test_a_week_ago_is_the_same_time_of_day_whatever_the_clocks_did(
    name: str, grown: Bot, zone: Callable[[str], ZoneInfo], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = zone(name)
    for year, month, day in CHANGES[name]:
        for days in (0, 1, 3, 6):  # the change lies in the week before
            noon = datetime(year, month, day, 12, tzinfo=here) + timedelta(days=days)
            before = noon - timedelta(days=7)
            assert noon.utcoffset() != before.utcoffset()
            edge = int(before.timestamp())
            ids = moved(grown.repo, [edge - 3600, edge, edge + 1, edge + 1800], [0, 330, -300, 840])
            monkeypatch.setattr(time, "time", lambda now=noon: now.timestamp())
            for text in ("last week", "1.week.ago", "7 days ago", "1 week", f"{before:%Y-%m-%d} 12:00"):
                assert grown.repo.resolve(f"main@{{{text}}}") == ids[1], (name, noon, text)
            monkeypatch.setattr(time, "time", lambda now=noon: now.timestamp() - 1)
            assert grown.repo.resolve("main@{last week}") == ids[0]


@pytest.mark.parametrize("name", CHANGES)
def test_a_day_without_a_time_ends_with_its_last_second_also_if_it_has_23_or_25_hours(
    name: str, grown: Bot, zone: Callable[[str], ZoneInfo]
) -> None:
    here = zone(name)
    for year, month, day in CHANGES[name]:
        midnight = datetime(year, month, day, tzinfo=here) + timedelta(days=1)
        edge = int(midnight.timestamp())
        ids = moved(grown.repo, [edge - 86400, edge - 1, edge, edge + 1], [60, -480, 0, 570])
        assert grown.repo.resolve(f"main@{{{year}-{month:02}-{day:02}}}") == ids[1]
        assert grown.repo.resolve(f"main@{{{midnight:%Y-%m-%d %H:%M:%S}}}") == ids[2]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("name", ZONES)
def test_git_takes_the_same_move(
    name: str,
    grown: Bot,
    zone: Callable[[str], ZoneInfo],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    here, rng = zone(name), random.Random(f"git {name}")
    git = tmp_path / "git"
    run(git.parent, "init", "--quiet", "--initial-branch=main", str(git))
    tree = run(git, "hash-object", "-t", "tree", "-w", "/dev/null")
    made = [run(git, "commit-tree", tree, "-m", str(number)) for number in range(12)]
    run(git, "update-ref", "refs/heads/main", made[-1])
    for _ in range(rounds(2)):
        now = int(datetime(2026, rng.randint(1, 12), rng.randint(1, 28), 12, tzinfo=here).timestamp())
        # Two hours from each answer: git counts days as 24 hours, which a change of clocks moves by one.
        times = sorted(now - rng.randrange(30) * 86400 - 7200 * rng.choice((1, 2, 3, 5)) for _ in made)
        offsets = [rng.choice((-480, 0, 60, 330, 765)) for _ in made]
        ids = moved(grown.repo, times, offsets)
        lines = [
            f"{old} {new} Ada <ada@example.org> {when} {as_git(offset)}\tmoved\n"
            for old, new, when, offset in zip(["0" * 40, *made], made, times, offsets, strict=False)
        ]
        (git / ".git/logs/refs/heads/main").write_text("".join(lines))
        monkeypatch.setattr(time, "time", lambda now=now: now)
        for text in (
            "last week",
            "yesterday",
            "3 days",
            "3.days.ago",
            "2 weeks ago",
            "10 hours ago",
            "5 days 1 hour ago",
        ):
            answer = run(git, "rev-parse", f"main@{{{text}}}", now=now)
            assert ids[made.index(answer)] == grown.repo.resolve(f"main@{{{text}}}"), (name, now, text)


def run(place: Path, *words: str, now: int = 0) -> str:
    """What a command of git's prints."""
    who = {f"GIT_{one}_{what}": "a@b" for one in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **who, "GIT_TEST_DATE_NOW": str(now)}
    done = subprocess.run(
        ["git", *words], capture_output=True, text=True, check=True, env=environment, cwd=place
    )
    return done.stdout.strip()


def as_git(offset: int) -> str:
    """Minutes from UTC as +hhmm."""
    return f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02}{abs(offset) % 60:02}"
