"""Author and committer of a commit, and its times.

The library takes them from its caller, then from the config, then from the system's account, never from the
environment.
"""

from __future__ import annotations

import os
import time
from datetime import datetime

from persona.errors import InvalidInput, UsageError
from persona.history.config import Config
from persona.objects.commit import MAX_OFFSET, MAX_SECONDS, MIN_SECONDS, Person


def person(config: Config, given: Person | None = None) -> Person:
    """The given person, checked; else the config's or the account's, with the time now."""
    if given is not None:
        return check_person(given)
    account_name, account_email = account()
    seconds, offset = now()
    return check_person(
        Person(
            name=config.get("user.name") or account_name,
            email=config.get("user.email") or account_email,
            time=seconds,
            offset=offset,
        )
    )


def now() -> tuple[int, int]:
    """Seconds since 1970 UTC, and minutes east of it, here."""
    seconds = int(time.time())
    return seconds, local_offset(seconds)


def check_person(value: Person) -> Person:
    """A person whose name, address and time can be recorded; `InvalidInput` otherwise."""
    if not isinstance(value, Person):  # a function of the caller gave it
        raise UsageError(f"an author must be a persona.Person, not {value!r:.60}")
    for what, text in (("name", value.name), ("e-mail address", value.email)):
        if type(text) is not str:
            raise InvalidInput(f"an author's {what} must be text, not {text!r:.80}")
    if type(value.time) is not int or type(value.offset) is not int:
        raise InvalidInput(
            "an author's date must be a Unix time and an offset in minutes, both whole numbers, not"
            f" {value.time!r} and {value.offset!r}"
        )
    for what, text in (("name", value.name), ("e-mail address", value.email)):
        if any(ord(char) < 0x20 or char in "<>\x7f" or 0xD800 <= ord(char) <= 0xDFFF for char in text):
            raise InvalidInput(
                f"{text!r:.80} cannot be an author's {what}, because it has <, > or a control character"
            )
    if not value.name.strip():
        raise InvalidInput("an author's name cannot be empty; set user.name")
    if not MIN_SECONDS <= value.time <= MAX_SECONDS or abs(value.offset) > MAX_OFFSET:
        raise InvalidInput(
            f"an author's date must lie in the years 1 to 9999, less than a day from UTC, not at Unix time"
            f" {value.time} with an offset of {value.offset:+d} minutes"
        )
    return value


def account() -> tuple[str, str]:
    """Name and address made from the system's account and host."""
    import pwd

    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = f"uid{os.getuid()}"
    return user, f"{user}@{os.uname().nodename}"


def local_offset(seconds: int) -> int:
    """Minutes east of UTC, here, at that time."""
    offset = datetime.fromtimestamp(seconds).astimezone().utcoffset()
    return int(offset.total_seconds() // 60) if offset else 0
