"""**reflog** — every move of one ref, a line each, oldest first; what `main@{1}` reads.

    check SP old SP new SP who SP <email> SP seconds SP ±hhmm TAB why LF

`check` is the first 16 hex digits of BLAKE3 over the ref's name, the check of the line before, and the rest
of the line: a line that was changed, lost or brought from elsewhere shows. A line is appended and synced
before the ref moves; so the last line may be one whose move never happened, or be torn. Such a line is
ignored, and dropped by the next write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blake3 import blake3

from persona.errors import IntegrityError
from persona.limits import MAX_REFLOG_BYTES
from persona.objects.ids import NULL_ID
from persona.store import files

CHECK_CHARS: Final = 16
MAX_WHY_CHARS: Final = 1000
_LINE: Final = re.compile(
    r"([0-9a-f]{16}) ([0-9a-f]{64}) ([0-9a-f]{64}) ([^\t\n]*) (-?\d{1,15}) ([+-])(\d\d)(\d\d)\t([^\n]*)\n"
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True)
class Entry:
    """One move: `old` and `new` ids (None: the ref did not exist), `time` in seconds since 1970 UTC,
    `offset` in minutes.
    """

    old: str | None
    new: str | None
    who: str
    time: int
    offset: int
    why: str


@dataclass(frozen=True)
class Log:
    """A reflog as read: what counts, oldest first; `keep` bytes of the file do, the rest is to be dropped."""

    entries: tuple[Entry, ...]
    keep: int
    size: int
    check: str


def path_of(root: Path, name: str) -> Path:
    """Where the reflog of a ref (or HEAD) lies. The name has been checked."""
    return root / "logs" / name


def load(root: Path, name: str, value: str | None, *, known: bool = True) -> Log:
    """The reflog of `name`, whose ref holds `value`.

    A last line that is torn or whose new value the ref does not hold is left out, where the line before
    agrees with the ref. `known` False: `value` is not known, every whole line counts. `IntegrityError` names
    file and line of any other damage.
    """
    path = path_of(root, name)
    files.check_directories(root, "logs", *name.split("/")[:-1])
    data = files.read_file(path, limit=MAX_REFLOG_BYTES) or b""
    entries: list[Entry] = []
    check, before, keep, kept_before = "", "", 0, 0
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        entry, line_check = _parse(name, check, line)
        if entry is None:
            if number == len(lines) and _torn(name, check, line):
                break
            raise IntegrityError(f"{path}: line {number} is damaged", kind="reflog", file=str(path))
        before, check = check, line_check
        kept_before, keep = keep, keep + len(line)
        entries.append(entry)
    if known and entries and entries[-1].new != value:
        undone = entries[-1].old == value if len(entries) == 1 else entries[-2].new == value
        if undone and keep == len(data):
            entries.pop()
            keep, check = kept_before, before
    return Log(tuple(entries), keep, len(data), check)


def append(root: Path, name: str, log: Log, entry: Entry) -> None:
    """Writes one line after `log`, durably, and drops what `log` left out. The caller holds the refs lock."""
    path = path_of(root, name)
    line = _line(name, log.check, entry)
    files.mkdirs(path.parent, below=root)
    if log.keep == log.size:
        files.append_line(path, line, tmp_dir=tmp_dir(root))
        return
    kept = (files.read_file(path, limit=MAX_REFLOG_BYTES) or b"")[: log.keep]
    files.write_file(path, [kept, line], tmp_dir=tmp_dir(root))


def tmp_dir(root: Path) -> Path:
    """The directory for unfinished writes, made when it is not there."""
    files.mkdirs(root / "tmp", below=root)
    return root / "tmp"


def _line(name: str, before: str, entry: Entry) -> bytes:
    sign, minutes = ("-" if entry.offset < 0 else "+"), abs(entry.offset)
    who = _CONTROL.sub(" ", entry.who)
    why = _CONTROL.sub(" ", entry.why)[:MAX_WHY_CHARS]
    body = (
        f"{entry.old or NULL_ID} {entry.new or NULL_ID} {who} {entry.time} "
        f"{sign}{minutes // 60:02d}{minutes % 60:02d}\t{why}\n"
    ).encode("utf-8", "replace")
    return f"{_check(name, before, body)} ".encode() + body


def _check(name: str, before: str, body: bytes) -> str:
    return blake3(b"\x00".join((name.encode(), before.encode(), body))).hexdigest()[:CHECK_CHARS]


def _parse(name: str, before: str, line: bytes) -> tuple[Entry | None, str]:
    check = line[:CHECK_CHARS].decode("ascii", "replace")
    if line[CHECK_CHARS : CHECK_CHARS + 1] != b" " or check != _check(name, before, line[CHECK_CHARS + 1 :]):
        return None, ""
    match = _LINE.fullmatch(line.decode("utf-8", "replace"))
    if match is None:
        return None, ""
    _, old, new, who, time, sign, hours, minutes, why = match.groups()
    offset = int(hours) * 60 + int(minutes)
    return (
        Entry(
            old=None if old == NULL_ID else old,
            new=None if new == NULL_ID else new,
            who=who,
            time=int(time),
            offset=-offset if sign == "-" else offset,
            why=why,
        ),
        check,
    )


def _torn(name: str, before: str, line: bytes) -> bool:
    """Whether a bad last line looks like an append cut short: no end, or holes; not like a whole line with a
    changed byte.
    """
    if b"\x00" in line:
        return True
    return not line.endswith(b"\n") and _parse(name, before, line[:-1] + b"\n")[0] is None
