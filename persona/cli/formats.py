"""Formats: how `log` and `show` write a commit, by a name that git has, or by a text such as `%h %s`.

The placeholders in the text are git's. One that is unknown is printed as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from time import time
from typing import TYPE_CHECKING, Final

from click import style

from persona.cli.options import COMMIT_FORMS, DATE_FORMS
from persona.cli.render import coloured_id, decoration, entry_lines, short
from persona.cli.terminal import printable
from persona.errors import UsageError

if TYPE_CHECKING:
    from persona.history.query_results import Annotation, CommitEntry
    from persona.objects.commit import Person

DATES: Final = ("default", *DATE_FORMS)
_PLACEHOLDER: Final = re.compile(
    r"%(?:x([0-9a-fA-F]{2})|C\(([^)]*)\)|C(red|green|blue|reset)|([<>])\((\d+)(?:,(trunc|ltrunc|mtrunc))?\)"
    r"|([ac][nNeElLdDrtiIs]|[HhTtPpsfbBdDNn%]))"
)
_SAME: Final = {"iso8601": "iso", "iso8601-strict": "iso-strict", "rfc2822": "rfc"}
_UNITS: Final = ((90, 60, "second"), (90, 60, "minute"), (36, 24, "hour"))
"""Up to how many a time is told in a unit, how many make one of the next, and the unit."""

Dates = Callable[["Person"], str]
Form = Callable[["CommitEntry"], "list[str]"]


def date_form(name: str) -> Dates:
    """The way to write dates that `--date` names. Raises `UsageError`."""
    if name.startswith(("format:", "format-local:")):
        pattern, local = name.split(":", 1)[1], name.startswith("format-local:")
        return lambda person: _moment(person, local).strftime(pattern)
    plain = name.removesuffix("-local")
    plain = _SAME.get(plain, plain)
    local = name.endswith("-local") or plain == "local"
    if plain not in DATES:
        raise UsageError(
            f"--date={name} is none of {', '.join(DATES)}, format:…; all but relative take -local"
        )
    write = _WRITERS.get(plain, _default)
    return lambda person: write(person, local)


def form(name: str, dates: Dates, refs: bool, *, whole_ids: bool = False) -> Form:
    """The way to write commits that `--format` names. `refs`: with the names that point at them.

    Raises `UsageError` for a name that is unknown.
    """
    if name.startswith(("format:", "tformat:")):
        return _template(name.split(":", 1)[1], dates)
    if "%" in name:
        return _template(name, dates)
    if name not in COMMIT_FORMS:
        known = ", ".join(COMMIT_FORMS)
        raise UsageError(f"--format={name} is none of {known}, and has no placeholder such as %h")
    return lambda entry: _named(name, entry, dates, refs, whole_ids)


def _named(name: str, entry: CommitEntry, dates: Dates, refs: bool, whole_ids: bool) -> list[str]:
    shown = decoration(entry.refs if refs else ())
    author, committer = entry.commit.author, entry.commit.committer
    if name == "oneline":
        id = style(entry.id, fg="yellow") if whole_ids else coloured_id(entry.id)
        return [f"{id}{shown} {printable(entry.subject)}"]
    if name == "reference":
        day = _short(author, False)
        return [f"{short(entry.id)} ({printable(entry.subject)}, {day})"]
    if name == "medium":
        return entry_lines(entry, refs, dates(author))
    lines = [style(f"commit {entry.id}", fg="yellow") + shown]
    message = printable(entry.message).rstrip("\n").split("\n")
    if name == "raw":
        lines += [f"tree {entry.commit.tree}", *(f"parent {parent}" for parent in entry.parents)]
        lines += [f"{what} {_signed(one)}" for what, one in (("author", author), ("committer", committer))]
    else:
        if len(entry.parents) > 1:
            lines.append("Merge: " + " ".join(map(short, entry.parents)))
        wide = name == "fuller"
        lines.append(f"Author:{' ' * 5 if wide else ' '}{_person(author)}")
        if wide:
            lines.append(f"AuthorDate: {dates(author)}")
        if name in ("full", "fuller"):
            lines.append(f"Commit:{' ' * 5 if wide else ' '}{_person(committer)}")
        if wide:
            lines.append(f"CommitDate: {dates(committer)}")
    if name == "short":
        message = message[:1]
    return [*lines, "", *(f"    {line}".rstrip() for line in message)]


# -- placeholders --------------------------------------------------------------------------------------------


def _template(text: str, dates: Dates) -> Form:
    def write(entry: CommitEntry) -> list[str]:
        made, place, pad = "", 0, None
        for match in _PLACEHOLDER.finditer(text):
            made += text[place : match.start()]
            place = match.end()
            if match[4]:
                pad = match[4], int(match[5]), match[6]
                continue
            found = _value(match, entry, dates)
            if pad is not None and match[7]:
                found, pad = _padded(found, *pad), None
            made += found
        return (made + text[place:]).split("\n")

    return write


def _value(match: re.Match[str], entry: CommitEntry, dates: Dates) -> str:
    hexadecimal, colour, plain, key = match[1], match[2], match[3], match[7]
    if hexadecimal:
        return chr(int(hexadecimal, 16))
    if colour is not None or plain:
        return _colour(plain or colour)
    if len(key) == 2:
        person = entry.commit.author if key[0] == "a" else entry.commit.committer
        return _of_person(person, key[1], dates)
    return printable(_OF_COMMIT[key](entry))


def _of_person(person: Person, key: str, dates: Dates) -> str:
    match key.lower() if key in "NEL" else key:
        case "n":
            return printable(person.name)
        case "e":
            return printable(person.email)
        case "l":
            return printable(person.email.partition("@")[0])
        case "d":
            return dates(person)
        case "D":
            return _rfc(person, False)
        case "r":
            return _relative(person, False)
        case "t":
            return str(person.time)
        case "i":
            return _iso(person, False)
        case "I":
            return _strict(person, False)
    return _short(person, False)


def _slug(entry: CommitEntry) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "-", entry.subject).strip("-.")


def _body(entry: CommitEntry) -> str:
    text = entry.message.partition("\n")[2].strip("\n")
    return text and text + "\n"  # as in git, it ends its last line


_OF_COMMIT: Final[dict[str, Callable[[CommitEntry], str]]] = {
    "H": lambda entry: entry.id,
    "h": lambda entry: short(entry.id),
    "T": lambda entry: entry.commit.tree,
    "t": lambda entry: short(entry.commit.tree),
    "P": lambda entry: " ".join(entry.parents),
    "p": lambda entry: " ".join(map(short, entry.parents)),
    "s": lambda entry: entry.subject,
    "f": _slug,
    "b": _body,
    "B": lambda entry: entry.message.rstrip("\n") + "\n",
    "d": lambda entry: f" ({', '.join(entry.refs)})" if entry.refs else "",
    "D": lambda entry: ", ".join(entry.refs),
    "N": lambda entry: entry.note or "",
    "n": lambda entry: "\n",
    "%": lambda entry: "%",
}


def _padded(text: str, side: str, width: int, cut: str | None) -> str:
    if cut and len(text) > width:
        if cut == "ltrunc":
            return ".." + text[len(text) - width + 2 :]
        if cut == "mtrunc":
            left = (width - 2) // 2
            return text[:left] + ".." + text[len(text) - (width - 2 - left) :]
        return text[: max(width - 2, 0)] + ".."
    return text.ljust(width) if side == "<" else text.rjust(width)


def _colour(words: str) -> str:
    """The escape sequence for git's words, such as `bold red`; nothing for `auto` or an unknown word."""
    names = words.removeprefix("auto,").replace(",", " ").split()
    if names == ["reset"]:
        return "\x1b[0m"
    known = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
    colour = next((name for name in names if name in known), None)
    begun = style("", fg=colour, bold="bold" in names or None, dim="dim" in names or None, reset=False)
    return begun if colour or {"bold", "dim"} & set(names) else ""


# -- dates ---------------------------------------------------------------------------------------------------


def at(date: str) -> Person:
    """Somebody at a moment that results give as ISO 8601, to write its date."""
    from persona.objects.commit import Person

    moment = datetime.fromisoformat(date)
    zone = moment.utcoffset() or timedelta()
    return Person("", "", int(moment.timestamp()), int(zone.total_seconds()) // 60)


def _moment(person: Person, local: bool) -> datetime:
    zone = timezone(timedelta(minutes=person.offset))
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=person.time)
    return moment.astimezone() if local else moment.astimezone(zone)


def _default(person: Person, local: bool) -> str:
    moment = _moment(person, local)
    return f"{moment:%a %b} {moment.day} {moment:%H:%M:%S} {moment.year:04}" + (
        "" if local else f" {moment:%z}"
    )


def _iso(person: Person, local: bool) -> str:
    moment = _moment(person, local)
    return f"{moment.year:04}-{moment:%m-%d %H:%M:%S %z}"


def _strict(person: Person, local: bool) -> str:
    return _moment(person, local).isoformat()


def _rfc(person: Person, local: bool) -> str:
    moment = _moment(person, local)
    return f"{moment:%a}, {moment.day} {moment:%b} {moment.year:04} {moment:%H:%M:%S %z}"


def _short(person: Person, local: bool) -> str:
    moment = _moment(person, local)
    return f"{moment.year:04}-{moment:%m-%d}"


def _raw(person: Person, local: bool) -> str:
    return f"{person.time} {_moment(person, local):%z}"


def _unix(person: Person, local: bool) -> str:
    return str(person.time)


def _relative(person: Person, local: bool) -> str:
    """How long ago it was, as git says it: two units from a year on, until five years."""
    ago = int(time()) - person.time
    if ago < 0:
        return "in the future"
    for limit, size, unit in _UNITS:
        if ago < limit:
            return _ago(ago, unit)
        ago = (ago + size // 2) // size
    days = ago
    if days < 14:
        return _ago(days, "day")
    if days < 70:
        return _ago((days + 3) // 7, "week")
    if days < 365:
        return _ago((days + 15) // 30, "month")
    if days < 1825:
        years, months = divmod((days * 12 * 2 + 365) // (365 * 2), 12)
        more = f", {months} month{'s' if months != 1 else ''}" if months else ""
        return f"{years} year{'s' if years != 1 else ''}{more} ago"
    return _ago((days + 183) // 365, "year")


def _ago(count: int, unit: str) -> str:
    return f"{count} {unit}{'s' if count != 1 else ''} ago"


_WRITERS: Final[dict[str, Callable[[Person, bool], str]]] = {
    "iso": _iso,
    "iso-strict": _strict,
    "rfc": _rfc,
    "short": _short,
    "relative": _relative,
    "raw": _raw,
    "unix": _unix,
}


def _person(person: Person) -> str:
    return f"{printable(person.name)} <{printable(person.email)}>"


def _signed(person: Person) -> str:
    return f"{_person(person)} {_raw(person, False)}"


def tag_lines(tag: Annotation, dates: Dates) -> Iterator[str]:
    """An annotated tag, as `show` prints it before its commit."""
    yield style(f"tag {printable(tag.name)}", fg="yellow")
    yield f"Tagger: {_person(tag.person)}"
    yield f"Date:   {dates(tag.person)}"
    yield ""
    yield from printable(tag.message).rstrip("\n").split("\n")
    yield ""
