"""Dates as users type them: in local time, across the changes of daylight saving, and all that log prints."""

from __future__ import annotations

import calendar
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from persona.cli.render import date_text
from persona.history.names.dates import parse_date
from persona.history.results import iso_date
from persona.objects.commit import MAX_OFFSET, MAX_SECONDS, MIN_SECONDS, Person
from tests.campaign import rounds

BERLIN = ZoneInfo("Europe/Berlin")
NOW = int(datetime(2026, 11, 26, 10, 30, tzinfo=BERLIN).timestamp())  # a Thursday

NONE = (
    *("", "soon", "ago", "last", "5", "12345", "25:00", "0am", "2026-13-01", "2026-02-30", "3 days 2", "Nov"),
    *("10:00 11:00", "2026-11-15 3 days ago", "-5 days", "+0100", "9" * 5000 + " days ago", "1e9 days"),
    *("99999999 years ago", "@99999999999999", "last nov", "2026-11-15 2026-11-16", "2026-11-15 +9900"),
)
AS_IN_GIT = (
    *("3 days", "1.hour", "10:00", "last week", "yesterday", "noon", "midnight", "tea", "2 weeks 3 days ago"),
    *("5pm", "last friday", "1 year ago", "10:00 yesterday", "15 Nov 2025 09:30", "20261115T093000"),
    "@1763200000",
)


@pytest.fixture(autouse=True)
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def shown(text: str, now: int = NOW, *, at_end: bool = False) -> str | None:
    """What a text means, as a date with its offset."""
    found = parse_date(text, now, at_end=at_end)
    if found is None:
        return None
    zone = timezone(timedelta(minutes=found[1]))
    return datetime.fromtimestamp(found[0], zone).isoformat(" ")


def at(*when: int) -> int:
    """Seconds of a local time."""
    return int(datetime(*when, tzinfo=BERLIN).timestamp())  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("now", "text", "meant"),
    [
        (at(2026, 3, 29, 12, 0), "today", "2026-03-29 00:00:00+01:00"),  # clocks go forward at 2
        (at(2026, 3, 29, 12, 0), "midnight", "2026-03-29 00:00:00+01:00"),
        (at(2026, 3, 29, 1, 0), "noon", "2026-03-28 12:00:00+01:00"),
        (at(2026, 3, 29, 13, 0), "noon", "2026-03-29 12:00:00+02:00"),
        (at(2026, 3, 29, 12, 0), "yesterday", "2026-03-28 12:00:00+01:00"),
        (at(2026, 3, 29, 12, 0), "12 hours ago", "2026-03-28 23:00:00+01:00"),
        (at(2026, 3, 29, 12, 0), "2 weeks ago", "2026-03-15 12:00:00+01:00"),
        (at(2026, 10, 25, 12, 0), "today", "2026-10-25 00:00:00+02:00"),  # clocks go back at 3
        (at(2026, 10, 25, 12, 0), "midnight", "2026-10-25 00:00:00+02:00"),
        (at(2026, 10, 25, 12, 0), "yesterday", "2026-10-24 12:00:00+02:00"),
        (at(2026, 10, 26, 9, 0), "noon", "2026-10-25 12:00:00+01:00"),
        (at(2026, 10, 25, 12, 0), "12 hours ago", "2026-10-25 01:00:00+02:00"),
        (NOW, "6 months ago", "2026-05-26 10:30:00+02:00"),
        (NOW, "1 year 2 months ago", "2025-09-26 10:30:00+02:00"),
        (at(2026, 5, 31, 10, 0), "3 months ago", "2026-02-28 10:00:00+01:00"),
        (at(2026, 4, 2, 10, 0), "last sunday", "2026-03-29 10:00:00+02:00"),
        (at(2026, 3, 30, 2, 30), "yesterday", "2026-03-29 03:30:00+02:00"),  # 2:30 is left out that day
    ],
)
def test_days_and_months_go_by_the_local_calendar(now: int, text: str, meant: str) -> None:
    assert shown(text, now) == meant


def test_now_is_now_in_the_hour_that_comes_twice() -> None:
    for seconds in range(at(2026, 10, 25, 1, 30), at(2026, 10, 25, 4, 30), 900):
        assert shown("now", seconds) == shown(f"@{seconds}")
        assert parse_date("now", seconds) == parse_date("0 days ago", seconds)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("3 days", "2026-11-23 10:30:00+01:00"),
        ("1.hour", "2026-11-26 09:30:00+01:00"),
        ("1.week.ago", "2026-11-19 10:30:00+01:00"),
        ("two_weeks_ago", "2026-11-12 10:30:00+01:00"),
        ("2 weeks 3 days ago", "2026-11-09 10:30:00+01:00"),
        ("last week", "2026-11-19 10:30:00+01:00"),
        ("last friday", "2026-11-20 10:30:00+01:00"),
        ("tomorrow", "2026-11-27 10:30:00+01:00"),
        ("10:00", "2026-11-26 10:00:00+01:00"),
        ("5pm", "2026-11-26 17:00:00+01:00"),
        ("12 am", "2026-11-26 00:00:00+01:00"),
        ("10:00 yesterday", "2026-11-25 10:00:00+01:00"),
        ("noon yesterday", "2026-11-25 12:00:00+01:00"),
        ("3.days.10:00", "2026-11-23 10:00:00+01:00"),
        ("20261115", "2026-11-15 00:00:00+01:00"),
        ("20261115T093000", "2026-11-15 09:30:00+01:00"),
        ("2026/11/15", "2026-11-15 00:00:00+01:00"),
        ("15.11.2026", "2026-11-15 00:00:00+01:00"),
        ("Nov 15", "2026-11-15 00:00:00+01:00"),
        ("December 15th", "2025-12-15 00:00:00+01:00"),
        ("15 Nov 2025 9:30", "2025-11-15 09:30:00+01:00"),
        ("2026-07-15 09:30:10.5 Z", "2026-07-15 09:30:10+00:00"),
        ("2026-07-15 -0330", "2026-07-15 00:00:00-03:30"),
        ("@0 +0000", "1970-01-01 00:00:00+00:00"),
        ("1763200000", "2025-11-15 10:46:40+01:00"),
    ],
)
def test_the_forms_that_git_takes(text: str, meant: str) -> None:
    assert shown(text) == meant
    assert shown(f"  {text.upper()} ") == meant


def moments() -> Iterator[datetime]:
    """Any days of any years at noon, when no clock goes forward or back; and the ends of February."""
    rng = random.Random("moments")
    days = [date(year, 2, 28) + timedelta(days=more) for year in (2024, 2025, 2000) for more in (0, 1)]
    days += [date(1990, 1, 1) + timedelta(days=rng.randrange(20_000)) for _ in range(rounds(100))]
    yield from (datetime(day.year, day.month, day.day, 12, tzinfo=BERLIN) for day in days)


def test_days_and_weeks_are_counted_on_the_calendar() -> None:
    for now in moments():
        for text, days in (("yesterday", 1), ("tomorrow", -1), ("last week", 7), ("30 days", 30)):
            meant = (now - timedelta(days=days)).isoformat(" ")
            assert shown(text, int(now.timestamp())) == meant, (text, now)


def test_the_last_of_a_weekday_is_the_nearest_before_today() -> None:
    for now in moments():
        for number, name in enumerate(calendar.day_name):
            back = (now.weekday() - number) % 7 or 7
            meant = (now - timedelta(days=back)).isoformat(" ")
            assert shown(f"last {name}", int(now.timestamp())) == meant, (name, now)


def test_a_month_ago_is_the_same_day_or_the_last_of_a_shorter_month() -> None:
    for now in moments():
        for text, months in (("1 month ago", 1), ("a year ago", 12), ("5 years 3 months ago", 63)):
            year, month = divmod(now.year * 12 + now.month - 1 - months, 12)
            day = min(now.day, calendar.monthrange(year, month + 1)[1])
            meant = now.replace(year=year, month=month + 1, day=day).isoformat(" ")
            assert shown(text, int(now.timestamp())) == meant, (text, now)


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_date_is_none(text: str) -> None:
    assert shown(text) is None


def test_a_day_can_be_asked_for_at_its_end() -> None:
    for text in ("2026-11-15", "20261115", "15 Nov 2026", "Nov 15"):
        assert shown(text, at_end=True) == "2026-11-15 23:59:59+01:00"
    assert shown("2026-10-25", at_end=True) == "2026-10-25 23:59:59+01:00"
    assert shown("10:00", at_end=True) == shown("10:00")


def test_every_date_that_log_prints_is_understood() -> None:
    rng = random.Random("dates")
    times = [
        0,
        MIN_SECONDS,
        MAX_SECONDS,
        253,
        -1,
        *(rng.randint(MIN_SECONDS, MAX_SECONDS) for _ in range(rounds(300))),
    ]
    for seconds in times:
        person = Person("", "", seconds, rng.randint(-MAX_OFFSET, MAX_OFFSET))
        iso = iso_date(person)
        assert parse_date(iso, NOW) == (seconds, person.offset), iso
        assert parse_date(date_text(iso), NOW) == (seconds, person.offset), date_text(iso)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("text", AS_IN_GIT)
def test_git_means_the_same(text: str, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    environment = {**os.environ, "GIT_TEST_DATE_NOW": str(NOW)}
    command = ["git", "rev-parse", f"--since={text}"]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
    ).stdout
    assert parse_date(text, NOW) is not None
    assert answer == f"--max-age={(parse_date(text, NOW) or (0,))[0]}\n"
