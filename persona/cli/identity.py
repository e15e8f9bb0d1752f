"""Author and committer from the environment, then persona's config, then git's, then user@host.

The author's variables are `PERSONA_AUTHOR_NAME`, `_EMAIL` and `_DATE`; the committer's begin with
`PERSONA_COMMITTER_`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from persona.errors import InvalidInput, quoted
from persona.history import identity
from persona.objects.commit import Person

if TYPE_CHECKING:
    from persona.repository import Repository

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
    """The author of a commit.

    `config` reads persona's own config. `say` tells the user that nothing else was known.
    """
    return _person("PERSONA_AUTHOR", environment, config, say, directory, {})


def committer(
    environment: Mapping[str, str],
    config: Callable[[str], str | None],
    say: Callable[[str], None],
    directory: str,
    author: Person | None = None,
) -> Person:
    """The person who runs the command, now.

    `author`, if known, fills in values that the environment does not set.
    """
    known = {}
    if author is not None and not environment.get("PERSONA_AUTHOR_NAME"):
        known["user.name"] = author.name
    if author is not None and not environment.get("PERSONA_AUTHOR_EMAIL"):
        known["user.email"] = author.email
    return _person("PERSONA_COMMITTER", environment, config, say, directory, known)


def _person(
    prefix: str,
    environment: Mapping[str, str],
    config: Callable[[str], str | None],
    say: Callable[[str], None],
    directory: str,
    known: dict[str, str],
) -> Person:
    seconds, offset = _when(f"{prefix}_DATE", environment.get(f"{prefix}_DATE"))
    name = environment.get(f"{prefix}_NAME") or known.get("user.name") or config("user.name")
    email = environment.get(f"{prefix}_EMAIL") or known.get("user.email") or config("user.email")
    if not name or not email:
        found = git_settings(directory)
        name = name or found.get("user.name")
        email = email or found.get("user.email")
    if not name or not email:
        account, address = identity.account()
        name, email = name or account, email or address
        say(UNSAID.format(f"{name} <{email}>"))
    return Person(_clean(name), _clean(email), seconds, offset)


def changed(repo: Repository, person: Person, name: str | None, date: str | None) -> Person:
    """An author with the name and email of `--author`, and the date of `--date`, where they are given.

    As in git, a name without an email in angle brackets is looked for in the authors of the history.
    """
    if name is not None:
        match = re.fullmatch(r"\s*(.*?)\s*<([^<>]*)>\s*", name)
        if match is not None:
            person = replace(person, name=_clean(match[1]), email=_clean(match[2]))
        else:
            found = next(repo.log(all=True, author=re.escape(name), n=1), None)
            if found is None:
                raise InvalidInput(
                    f"--author: no author in this history matches {quoted(name, 60)};"
                    " give the author as 'Name <email>'"
                )
            person = replace(person, name=found.author.name, email=found.author.email)
    if date is not None:
        seconds, offset = _when("--date", date)
        person = replace(person, time=seconds, offset=offset)
    return person


def _when(variable: str, text: str | None) -> tuple[int, int]:
    """Seconds since 1970 UTC, minutes east of it, of a date of the environment or a flag; else now."""
    now, offset = identity.now()
    if not text:
        return now, offset
    from persona.history.names.dates import parse_date

    found = parse_date(text, now)
    if found is None:
        raise InvalidInput(
            f"{variable}: {quoted(text, 60)} is not a date of the years 1 to 9999; write "
            "2026-11-15T09:30:00+01:00 or @SECONDS +HHMM"
        )
    return found


def git_settings(directory: str) -> dict[str, str]:
    """git's settings of the user and the editors, in that directory; empty without git."""
    import subprocess

    wanted = r"^(user\.(name|email)|(core|sequence)\.editor)$"
    command = ["git", "-C", directory, "config", "--null", "--get-regexp", wanted]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=5, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = (entry.partition("\n") for entry in answer.decode("utf-8", "replace").split("\0") if entry)
    return {key: value for key, _, value in pairs}


def _clean(text: str) -> str:
    """A name without the characters that a commit cannot hold, as in git."""
    return "".join(char for char in text if char >= " " and char not in "<>\x7f").strip() or "unknown"
