"""Dates as a user types them: `yesterday`, `last week`, `1.week.ago`, `2 hours ago`, `2026-11-15`,
`2026-11-15 12:30`, `@1763200000`.

A date without a time means its first second or, where a moment *at* that date is asked for, its last.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Final

_UNITS: Final = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86400,
    "week": 7 * 86400,
    "fortnight": 14 * 86400,
}
_WORDS: Final = {
    "a": 1,
    "an": 1,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
}
_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_ISO: Final = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)(?:[t ]+(\d\d?):(\d\d)(?::(\d\d)(?:\.\d+)?)?)?\s*(z|utc|[+-]\d\d:?\d\d)?"
)
_AGO: Final = re.compile(r"(\d{1,9}|[a-z]+) (second|minute|hour|day|week|fortnight|month|year)s?(?: ago)?")


def parse_date(text: str, now: int, *, at_end: bool = False) -> tuple[int, int] | None:
    """Seconds since 1970 UTC and the offset in minutes that a text means at `now`; None when it is no date.

    `at_end`: a day without a time is its last second. What names no zone is local time.
    """
    words = " ".join(re.sub(r"[._]", " ", text.strip().lower()).split())
    if match := re.fullmatch(r"@?(\d{5,12})(?:\s*([+-]\d{4}))?", words):
        return int(match[1]), _zone_minutes(match[2]) if match[2] else 0
    if match := _ISO.fullmatch(" ".join(text.strip().lower().split())):
        return _calendar(match, at_end)
    moment = datetime.fromtimestamp(now).astimezone()
    found = _relative(words, moment, at_end)
    if found is None:
        return None
    seconds = int(found.timestamp())
    offset = datetime.fromtimestamp(seconds).astimezone().utcoffset() or timedelta()
    return seconds, int(offset.total_seconds() // 60)


def _calendar(match: re.Match[str], at_end: bool) -> tuple[int, int] | None:
    year, month, day, hour, minute, second, zone = match.groups()
    try:
        if hour is None:
            clock = (23, 59, 59) if at_end else (0, 0, 0)
        else:
            clock = (int(hour), int(minute), int(second or 0))
        moment = datetime(int(year), int(month), int(day), *clock)
        moment = (
            moment.replace(tzinfo=timezone(timedelta(minutes=_zone_minutes(zone))))
            if zone
            else moment.astimezone()
        )
        offset = moment.utcoffset() or timedelta()
        return int(moment.timestamp()), int(offset.total_seconds() // 60)
    except (ValueError, OverflowError):
        return None


def _zone_minutes(text: str) -> int:
    if text in ("z", "utc"):
        return 0
    digits = text[1:].replace(":", "")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    return -minutes if text[0] == "-" else minutes


def _relative(words: str, moment: datetime, at_end: bool) -> datetime | None:
    if words == "now":
        return moment
    if words == "today":
        clock = {"hour": 23, "minute": 59, "second": 59} if at_end else {"hour": 0, "minute": 0, "second": 0}
        return moment.replace(microsecond=0, **clock)  # type: ignore[arg-type]
    if words == "yesterday":
        return moment - timedelta(days=1)
    if words in ("noon", "midnight"):
        found = moment.replace(hour=12 if words == "noon" else 0, minute=0, second=0, microsecond=0)
        return found if found <= moment else found - timedelta(days=1)
    day = words.removeprefix("last ")
    if day in _DAYS:
        back = (moment.weekday() - _DAYS.index(day)) % 7 or 7
        return moment - timedelta(days=back)
    match = _AGO.fullmatch(f"1 {day}" if words.startswith("last ") else words)
    if match is None or not (words.endswith("ago") or words.startswith("last ")):
        return None
    count = int(match[1]) if match[1].isdigit() else _WORDS.get(match[1], -1)
    if not 0 <= count <= 100_000_000:
        return None
    try:
        return _months_back(moment, count, match[2])
    except (ValueError, OverflowError):
        return None


def _months_back(moment: datetime, count: int, unit: str) -> datetime:
    if unit not in ("month", "year"):
        return moment - timedelta(seconds=count * _UNITS[unit])
    months = moment.year * 12 + moment.month - 1 - count * (12 if unit == "year" else 1)
    year, month = divmod(months, 12)
    for day in range(moment.day, 27, -1):
        try:
            return moment.replace(year=year, month=month + 1, day=day)
        except ValueError:
            continue
    return moment.replace(year=year, month=month + 1, day=min(moment.day, 28))
