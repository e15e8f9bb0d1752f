"""**reflog** — every move of one ref, one line each, oldest first; `main@{1}` reads it.

    check SP old SP new SP who SP <email> SP seconds SP ±hhmm TAB why LF

`check` is the first 16 hex digits of BLAKE3 over the ref's name, the check of the line before, and the rest
of the line. So a line that was changed, lost or brought from another ref is noticed. A line is appended and
synced before the ref moves. So the last line may be torn, or may describe a move that never happened. Readers
ignore it, and the next write drops it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from blake3 import blake3

from persona.errors import IntegrityError, PersonaError
from persona.frozen import dataclass
from persona.limits import MAX_REFLOG_BYTES
from persona.objects.ids import NULL_ID
from persona.store import files

CHECK_CHARS: Final = 16
MAX_WHY_CHARS: Final = 1000
MAX_WHO_CHARS: Final = 500
_TAIL_BYTES: Final = 1 << 16
"""More than the last three lines can have."""
_SHORTEST_LINE: Final = 150
"""Bytes that no line can fall short of."""
_LINE: Final = re.compile(
    r"([0-9a-f]{16}) ([0-9a-f]{64}) ([0-9a-f]{64}) ([^\t\n]*) (-?\d{1,15}) ([+-])(\d\d)(\d\d)\t([^\n]*)\n"
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True)
class Entry:
    """One move of a ref.

    `old` and `new` are ids (None: the ref did not exist), `time` is in seconds since 1970 UTC, `offset` in
    minutes.
    """

    old: str | None
    new: str | None
    who: str
    time: int
    offset: int
    why: str


def path_of(root: Path, name: str) -> Path:
    """The path of the reflog of a ref (or HEAD). The name has been checked."""
    return root / "logs" / name


def load(root: Path, name: str, value: str | None, *, known: bool = True) -> tuple[Entry, ...]:
    """The moves of `name`, whose ref holds `value`, oldest first; empty if there is no reflog.

    The last line is left out if it is torn, or if the ref does not hold its new value. `IntegrityError` names
    file and line of any other damage. A reflog that does not end at `value` is damaged too, unless `value` is
    not `known`.
    """
    path = path_of(root, name)
    files.check_directories(root, "logs", *name.split("/")[:-1])
    if path.is_dir() and not path.is_symlink():  # of names that begin with this one
        return ()
    data = files.read_file(path, limit=MAX_REFLOG_BYTES)
    if data is None:
        return ()
    lines = _lines(data)
    entries = _entries(name, lines, path)
    if not known:
        return tuple(entries)
    if entries and len(entries) == len(lines) and _undone(entries[-2:], value):
        entries.pop()
    if not data or (entries[-1].new if entries else None) != value:
        raise IntegrityError(
            f"{path} does not end at the value of {name}; a line of the reflog is lost",
            kind="reflog",
            file=str(path),
            hint="move this file away; the next move of the ref begins a new reflog",
        )
    return tuple(entries)


def _entries(name: str, lines: list[bytes], path: Path) -> list[Entry]:
    """The moves of a whole reflog; a torn last line is left out."""
    entries: list[Entry] = []
    before = ""
    for number, line in enumerate(lines, 1):
        entry = _parse(name, before, line)
        if entry is None:
            if number == len(lines) and _torn(name, before, line):
                break
            raise IntegrityError(
                f"{path}: line {number} is damaged",
                kind="reflog",
                file=str(path),
                hint="move this file away; the next move of the ref begins a new reflog",
            )
        before = _stated_check(line)
        entries.append(entry)
    return entries


def readable(root: Path, name: str) -> tuple[Entry, ...]:
    """The lines of a reflog that are whole, even if others are damaged; oldest first."""
    try:
        data = files.read_file(path_of(root, name), limit=MAX_REFLOG_BYTES) or b""
    except PersonaError:
        return ()
    lines = _lines(data)
    befores = ["", *map(_stated_check, lines)]
    found = (_parse(name, before, line) for before, line in zip(befores, lines, strict=False))
    return tuple(entry for entry in found if entry is not None)


def append(root: Path, name: str, value: str | None, entry: Entry, *, again: bool = False) -> None:
    """Writes one line durably. The caller holds the refs lock.

    It replaces a last line that is torn or that does not lead to `value`, the ref's value. `again`: a last
    line that says the same comes from a command that was cut short, and is replaced. Only the end of the file
    is read, so damage further up does not matter here. If the file would become larger than `load` reads, it
    loses its older half.
    """
    path = path_of(root, name)
    files.check_directories(root, "logs", *name.split("/")[:-1])
    size, tail = _tail(path)
    if not size:
        files.relied_on_directories(path.parent, below=root)
    third, second, last = [b"", b"", b"", *tail][-3:]
    previous = _parse(name, _stated_check(third), second)
    move = _parse(name, _stated_check(second), last)
    if move is not None:
        drop = _undone([previous, move] if previous else [move], value)
        drop |= again and last == _line(name, _stated_check(second), entry)
    else:
        agrees = (previous.new if previous else None) == value
        drop = bool(last) and agrees and _torn(name, _stated_check(second), last)
    line = _line(name, _stated_check(second if drop else last), entry)
    if size + len(line) >= MAX_REFLOG_BYTES and _shorten(root, name, value, entry):
        return
    if drop:
        kept = (files.read_file(path, limit=MAX_REFLOG_BYTES) or b"")[: size - len(last)]
        files.write_file(path, [kept, line], tmp_dir=tmp_dir(root))
    else:
        end = b"\n" if last and not last.endswith(b"\n") else b""
        files.append_line(path, end + line, tmp_dir=tmp_dir(root))


def append_all(root: Path, name: str, value: str | None, entries: Sequence[Entry]) -> None:
    """Writes several lines durably, all or none. The caller holds the refs lock, and has a journal.

    Like `append`, it replaces a last line that is torn or that does not lead to `value`. If the reflog ends
    with these lines already, they come from a command that was cut short, and stay.
    """
    path = path_of(root, name)
    files.check_directories(root, "logs", *name.split("/")[:-1])
    data = files.read_file(path, limit=MAX_REFLOG_BYTES) or b""
    if not data:
        files.relied_on_directories(path.parent, below=root)
    lines = _lines(data)
    held = _entries(name, lines, path)
    if len(held) == len(lines) and tuple(held[-len(entries) :]) == tuple(map(_cleaned, entries)):
        return
    if held and len(held) == len(lines) and _undone(held[-2:], value):
        held.pop()
    written = _chained(name, [*held, *entries])
    if len(written) >= MAX_REFLOG_BYTES:
        written = _chained(name, [*held[len(held) // 2 :], *entries])
    files.write_file(path, written, tmp_dir=tmp_dir(root))


def _cleaned(entry: Entry) -> Entry:
    """A move as its line says it."""
    who = _CONTROL.sub(" ", entry.who)[:MAX_WHO_CHARS]
    return replace(entry, who=who, why=_CONTROL.sub(" ", entry.why)[:MAX_WHY_CHARS])


def expire(root: Path, name: str, value: str | None, keeps: Callable[[Entry], bool], *, known: bool) -> int:
    """Drops the moves of a whole reflog that `keeps` does not want; returns how many.

    The newest always stays: it proves the value of the ref. The file is replaced at once. The caller holds
    the refs lock.
    """
    entries = load(root, name, value, known=known)
    kept = [entry for entry in entries[:-1] if keeps(entry)] + list(entries[-1:])
    if len(kept) < len(entries):
        files.write_file(path_of(root, name), [_chained(name, kept)], tmp_dir=tmp_dir(root))
    return len(entries) - len(kept)


def renamed(root: Path, old: str, new: str, value: str | None, entry: Entry) -> bytes:
    """The reflog of `old`, whose ref holds `value`, as the bytes of one of `new`, with `entry` at its end."""
    return _chained(new, [*load(root, old, value), entry])


def tmp_dir(root: Path) -> Path:
    """The directory for unfinished writes, made when it is not there."""
    files.mkdirs(root / "tmp", below=root)
    return root / "tmp"


def _shorten(root: Path, name: str, value: str | None, entry: Entry) -> bool:
    """Writes the newer half of a reflog, and `entry`; False for one that is damaged, which stays."""
    path = path_of(root, name)
    try:
        entries = _entries(name, _lines(files.read_file(path, limit=MAX_REFLOG_BYTES) or b""), path)
    except IntegrityError:
        return False
    if entries and _undone(entries[-2:], value):
        entries.pop()
    kept = _chained(name, [*entries[len(entries) // 2 :], entry])
    files.write_file(path, kept, tmp_dir=tmp_dir(root))
    return True


def _chained(name: str, entries: Iterable[Entry]) -> bytes:
    """The bytes of a reflog with these moves."""
    lines = [b""]
    for entry in entries:
        lines.append(_line(name, _stated_check(lines[-1]), entry))
    return b"".join(lines)


def _line(name: str, before: str, entry: Entry) -> bytes:
    sign, minutes = ("-" if entry.offset < 0 else "+"), abs(entry.offset)
    who = _CONTROL.sub(" ", entry.who)[:MAX_WHO_CHARS]
    why = _CONTROL.sub(" ", entry.why)[:MAX_WHY_CHARS]
    body = (
        f"{entry.old or NULL_ID} {entry.new or NULL_ID} {who} {entry.time} "
        f"{sign}{minutes // 60:02d}{minutes % 60:02d}\t{why}\n"
    ).encode("utf-8", "replace")
    return f"{_check(name, before, body)} ".encode() + body


def _check(name: str, before: str, body: bytes) -> str:
    return blake3(b"\x00".join((name.encode(), before.encode(), body))).hexdigest()[:CHECK_CHARS]


def _parse(name: str, before: str, line: bytes) -> Entry | None:
    check = line[:CHECK_CHARS].decode("ascii", "replace")
    if line[CHECK_CHARS : CHECK_CHARS + 1] != b" " or check != _check(name, before, line[CHECK_CHARS + 1 :]):
        return None
    match = _LINE.fullmatch(line.decode("utf-8", "replace"))
    if match is None:
        return None
    _, old, new, who, time, sign, hours, minutes, why = match.groups()
    offset = int(hours) * 60 + int(minutes)
    return Entry(
        old=None if old == NULL_ID else old,
        new=None if new == NULL_ID else new,
        who=who,
        time=int(time),
        offset=-offset if sign == "-" else offset,
        why=why,
    )


def _stated_check(line: bytes) -> str:
    return line[:CHECK_CHARS].decode("ascii", "replace")


def _undone(last: list[Entry], value: str | None) -> bool:
    """Whether the last line's move never happened: the ref still holds `value`, its value before."""
    return last[-1].new != value and (last[-2].new if last[1:] else last[-1].old) == value


def _lines(data: bytes) -> list[bytes]:
    """The lines with their ends; the last may have none.

    If there are more lines than a reflog of that size can have, the rest is one line, which is damaged.
    """
    most = len(data) // _SHORTEST_LINE + 1
    lines = [line + b"\n" for line in data.split(b"\n", most)]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _tail(path: Path) -> tuple[int, list[bytes]]:
    """The size of a reflog, and its last lines, whole but perhaps for the first."""
    opened = files.open_regular(path)
    if opened is None:
        return 0, []
    fd, size = opened
    try:
        start = max(0, size - _TAIL_BYTES)
        return size, _lines(files.read_at(fd, size - start, start, path))
    finally:
        files.close(fd)


def _torn(name: str, before: str, line: bytes) -> bool:
    """Whether a bad last line looks like an append that was cut short.

    It then has no end, or holes. A whole line with a changed byte looks different.
    """
    if b"\x00" in line:
        return True
    return not line.endswith(b"\n") and _parse(name, before, line[:-1] + b"\n") is None
