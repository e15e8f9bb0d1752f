"""The one parser of dates that a user types.

It takes `yesterday`, `last week`, `1.week.ago`, `3 days`, `10:00`, `noon yesterday`, `2026-11-15`,
`20261115`, `2026-11-15T12:30+01:00`, `Sun Nov 15 09:30:00 2026 +0100` and `@1763200000 +0100`. A date without
a zone is local time, with the offset of this place at that moment. Days, weeks, months and years follow the
calendar and keep the time of day; hours and shorter units are elapsed time. A date without a time means its
first second, or its last if the caller asks for the state *at* that date.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from typing import Final

from persona.history.identity import local_offset
from persona.objects.commit import MAX_OFFSET, MAX_SECONDS, MIN_SECONDS

_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3600}
_DAYS: Final = {"day": 1, "week": 7, "fortnight": 14}
_MONTHS: Final = {"month": 1, "year": 12}
_COUNTS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDS: Final = {"a": 1, "an": 1, "last": 1} | {word: count for count, word in enumerate(_COUNTS)}
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_YEAR: Final = "january february march april may june july august september october november december".split()
_CLOCKS: Final = {"midnight": 0, "noon": 12, "tea": 17}
_MAX_COUNT: Final = 100_000_000

_EPOCH: Final = re.compile(r"(?:@(-?\d{1,14})|(\d{9,14}))(?: *([+-]\d\d:?\d\d))?")
_TOKEN: Final = re.compile(
    r"""[\s,]*(?:
      (?P<iso>\d{4}-\d\d?-\d\d?|\d{4}/\d\d?/\d\d?|\d{4}\.\d\d?\.\d\d?)(?:t(?=\d))?
    | (?P<european>\d\d?\.\d\d?\.\d{4})
    | (?P<compact>\d{8})(?:t(?=\d)(?P<clock>\d{4}(?:\d\d)?))?(?!\d)
    | (?P<hour>\d\d?)(?::(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,]\d+)?)?)?\s*(?P<half>am|pm)(?![a-z])
    | (?P<time>\d\d?:\d\d(?::\d\d)?)(?:[.,]\d+)?
    | (?P<zone>(?:z|utc|gmt)(?![a-z])|[+-]\d\d(?::?\d\d)?(?!\d))
    | (?P<number>\d{1,9})(?:st|nd|rd|th)?(?![\d:])
    | (?P<word>[a-z]+)
    )(?:\.|_|-(?=[a-z]))?""",
    re.VERBOSE,
)


def parse_date(text: str, now: int, *, at_end: bool = False) -> tuple[int, int] | None:
    """Seconds since 1970 UTC and the offset in minutes that a text means at `now`; None when it is no date.

    `at_end`: a day without a time is its last second.
    """
    words = text.strip().lower()
    try:
        if match := _EPOCH.fullmatch(words):
            seconds = int(match[1] or match[2])
            offset = _zone_minutes(match[3]) if match[3] else local_offset(seconds)
        else:
            reading = _Reading(datetime.fromtimestamp(now))
            if not words or not reading.take(words):
                return None
            seconds, offset = reading.moment(now, at_end)
    except (ValueError, OverflowError, OSError):
        return None
    if not MIN_SECONDS <= seconds <= MAX_SECONDS or abs(offset) > MAX_OFFSET:
        return None
    return seconds, offset


@dataclass
class _Reading:
    """The meaning of the words read so far."""

    here: datetime
    """Now, local and without a zone."""
    day: date | None = None
    """A date of the calendar."""
    whole: bool = False
    """Whether a whole day is meant, from its first second to its last."""
    clock: tuple[int, int, int] | None = None
    latest: bool = False
    """Whether a time without a day means its last occurrence up to now."""
    zone: int | None = None
    months: int = 0
    days: int = 0
    seconds: int = 0
    """How far back, by the calendar and by the clock."""
    relative: bool = False
    weekday: int | None = None
    """How many days ago the weekday was that is named."""
    month: int | None = None
    numbers: list[str] = field(default_factory=list)
    """Numbers that were read, as written, before their meaning is known: counts, days or years."""

    def take(self, text: str) -> bool:
        """Reads a text; whether all of it was understood."""
        text, place = text.rstrip(" ,."), 0
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None or match.end() == place or not self._token(match):
                return False
            place = match.end()
        return self._finish()

    def moment(self, now: int, at_end: bool) -> tuple[int, int]:
        """The date, as seconds and offset."""
        found = self.here
        if self.day is not None:
            found = datetime.combine(self.day, found.time())
        if self.months:
            found = _months_back(found, self.months)
        if self.days:
            found -= timedelta(days=self.days)
        clock = self.clock
        if clock is None and self.whole:
            clock = (23, 59, 59) if at_end else (0, 0, 0)
        if clock is not None:
            found = found.replace(hour=clock[0], minute=clock[1], second=clock[2], microsecond=0, fold=0)
            if self.latest and not self.relative and self.day is None and found > self.here:
                found -= timedelta(days=1)
        if self.zone is not None:
            found = found.replace(tzinfo=timezone(timedelta(minutes=self.zone)))
        # Unchanged, it is exactly now: a local time is ambiguous when clocks are set back.
        seconds = now if found == self.here and self.zone is None else int(found.timestamp())
        seconds -= self.seconds
        return seconds, self.zone if self.zone is not None else local_offset(seconds)

    def _token(self, match: re.Match[str]) -> bool:
        said = match.groupdict()
        if said["iso"] or said["european"]:
            parts = [int(part) for part in re.split(r"[-/.]", said["iso"] or said["european"])]
            return self._calendar(*(parts if said["iso"] else reversed(parts)))
        if said["compact"]:
            digits, clock = said["compact"], said["clock"]
            if clock is not None and not self._time(clock[:2], clock[2:4], clock[4:]):
                return False
            return self._calendar(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
        if said["half"]:
            hour = int(said["hour"])
            if not 1 <= hour <= 12:
                return False
            hour = hour % 12 + (12 if said["half"] == "pm" else 0)
            return self._time(str(hour), said["minute"] or "", said["second"] or "")
        if said["time"]:
            return self._time(*said["time"].split(":"))
        if said["zone"]:
            if self.zone is not None:
                return False
            self.zone = _zone_minutes(said["zone"])
            return True
        if said["number"]:
            return self._number(said["number"])
        return self._word(said["word"])

    def _calendar(self, year: int, month: int, day: int) -> bool:
        if self.day is not None:
            return False
        self.day, self.whole = date(year, month, day), True
        return True

    def _time(self, hour: str, minute: str = "", second: str = "") -> bool:
        if self.clock is not None:
            return False
        self.clock = int(hour), int(minute or 0), int(second or 0)
        return True

    def _number(self, text: str) -> bool:
        self.numbers.append(text)
        return len(self.numbers) <= 2

    def _word(self, word: str) -> bool:
        unit = word.removesuffix("s")
        if unit in _SECONDS or unit in _DAYS or unit in _MONTHS:
            return self._back(unit)
        if word in _WORDS:
            return self._number(word)
        if word in _CLOCKS:
            self.latest = True
            return self._time(str(_CLOCKS[word]))
        if word in ("yesterday", "tomorrow"):
            self.days += 1 if word == "yesterday" else -1
            self.relative = True
            return True
        if word == "today":
            self.whole = self.relative = True
            return True
        for place, name in enumerate(_WEEKDAYS):
            if word in (name, name[:3]):
                return self._weekday(place)
        for place, name in enumerate(_YEAR, 1):
            if word in (name, name[:3]) or (word, place) == ("sept", 9):
                known, self.month = self.month, place
                return known is None
        self.relative |= word == "now"
        return word in ("now", "ago", "at", "on", "and")

    def _back(self, unit: str) -> bool:
        if not self.numbers:
            return False
        text = self.numbers.pop()
        count = _WORDS[text] if text in _WORDS else int(text)
        if count > _MAX_COUNT:
            return False
        self.months += count * _MONTHS.get(unit, 0)
        self.days += count * _DAYS.get(unit, 0)
        self.seconds += count * _SECONDS.get(unit, 0)
        self.relative = True
        return True

    def _weekday(self, place: int) -> bool:
        if self.numbers[-1:] == ["last"]:
            self.numbers.pop()
        self.weekday = (self.here.weekday() - place) % 7 or 7
        return True

    def _finish(self) -> bool:
        """Joins day, month and year that were written apart; returns whether all of it fits."""
        if self.month is not None:
            days = [int(text) for text in self.numbers if re.fullmatch(r"\d\d?", text)]
            years = [int(text) for text in self.numbers if re.fullmatch(r"\d{4}", text)]
            if len(days) != 1 or len(days) + len(years) != len(self.numbers):
                return False
            self.numbers.clear()
            year = years[0] if years else self.here.year - (self.month > self.here.month)
            if not self._calendar(year, self.month, days[0]):
                return False
        if self.weekday is not None and self.day is None:
            self.days += self.weekday
            self.relative = True
        if self.numbers or (self.zone is not None and self.clock is None and self.day is None):
            return False
        # A date, a distance or a time is needed, and the first two exclude each other.
        return (self.day is not None) + self.relative == 1 or (self.day is None and self.clock is not None)


def _zone_minutes(text: str) -> int:
    if text in ("z", "utc", "gmt"):
        return 0
    digits = text[1:].replace(":", "").ljust(4, "0")
    minutes = int(digits[:2]) * 60 + int(digits[2:])
    return -minutes if text[0] == "-" else minutes


def _months_back(moment: datetime, count: int) -> datetime:
    """The same day and time `count` months before; the last day of a month that is too short."""
    year, month = divmod(moment.year * 12 + moment.month - 1 - count, 12)
    for day in range(moment.day, 27, -1):
        try:
            return moment.replace(year=year, month=month + 1, day=day)
        except ValueError:
            continue
    return moment.replace(year=year, month=month + 1, day=min(moment.day, 28))
