"""Who commits: `PERSONA_AUTHOR_NAME`, `_EMAIL`, `_DATE`, then persona's config, git's, and user@host."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from persona.errors import InvalidInput
from persona.history import identity
from persona.objects.commit import MAX_OFFSET, MAX_SECONDS, MIN_SECONDS, Person

UNSAID = (
    "no user.name or user.email is set; committing as {}. "
    'Set them with `persona config --global user.name "…"` and `… user.email "…"`'
)


def author(
    environment: Mapping[str, str],
    config: Callable[[str], str | None],
    say: Callable[[str], None],
    directory: str,
) -> Person:
    """Who commits. `config` reads persona's own config, `say` tells the user that nothing else was known."""
    seconds, offset = _when(environment.get("PERSONA_AUTHOR_DATE"))
    name = environment.get("PERSONA_AUTHOR_NAME") or config("user.name")
    email = environment.get("PERSONA_AUTHOR_EMAIL") or config("user.email")
    if not name or not email:
        known = git_settings(directory)
        name = name or known.get("user.name")
        email = email or known.get("user.email")
    if not name or not email:
        account, address = identity.account()
        name, email = name or account, email or address
        say(UNSAID.format(f"{name} <{email}>"))
    return Person(_clean(name), _clean(email), seconds, offset)


def _when(text: str | None) -> tuple[int, int]:
    """Seconds since 1970 UTC, minutes east of it: `[@]SECONDS [+HHMM]`, ISO-8601 or RFC 2822; else now."""
    if not text:
        now = int(time.time())
        return now, identity.local_offset(now)
    try:
        seconds, offset = _parse(text.strip())
    except (ValueError, OverflowError, OSError):
        raise InvalidInput(
            f"PERSONA_AUTHOR_DATE: {text!r:.60} is no date; write 2026-11-15T09:30:00+01:00 or @SECONDS +HHMM"
        ) from None
    if not MIN_SECONDS <= seconds <= MAX_SECONDS or abs(offset) > MAX_OFFSET:
        raise InvalidInput(f"PERSONA_AUTHOR_DATE: {text!r:.60} is not a date of the years 1 to 9999")
    return seconds, offset


def _parse(text: str) -> tuple[int, int]:
    import re
    from datetime import datetime

    stamp = re.fullmatch(r"@?(-?\d{4,})(?:\s+([+-])(\d\d):?(\d\d))?", text)
    if stamp and (text[0] == "@" or len(stamp[1]) > 8):
        seconds = int(stamp[1])
        if not stamp[2]:
            return seconds, identity.local_offset(seconds)
        minutes = int(stamp[3]) * 60 + int(stamp[4])
        return seconds, minutes if stamp[2] == "+" else -minutes
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        from email.utils import parsedate_to_datetime

        moment = parsedate_to_datetime(text)
    seconds = int(moment.timestamp())
    zone = moment.utcoffset()
    return seconds, identity.local_offset(seconds) if zone is None else int(zone.total_seconds()) // 60


def git_settings(directory: str) -> dict[str, str]:
    """What git knows, in that directory, of who the user is and of the editor; nothing without git."""
    import subprocess

    wanted = r"^(user\.(name|email)|core\.editor)$"
    command = ["git", "-C", directory, "config", "--null", "--get-regexp", wanted]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=5, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = (entry.partition("\n") for entry in answer.decode("utf-8", "replace").split("\0") if entry)
    return {key: value for key, _, value in pairs}


def _clean(text: str) -> str:
    """Without what a commit cannot hold, as git does it."""
    return "".join(char for char in text if char >= " " and char not in "<>\x7f").strip() or "unknown"
