"""The objects of a store: chunks in packs, small objects loose.

**loose object** — a small object in a file of its own.

An object may have several copies, after it was healed or packed. Any intact copy serves.

Invariants: all that a transaction wrote is durable before it ends, packs first, then small objects; an intact
object is not written again, a damaged one is; nothing present is rewritten in place. Small objects are
verified by id at every read, chunks by the BLAKE3 of their stored bytes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from persona.errors import LISTED_BY_FSCK, IntegrityError, PersonaError
from persona.frozen import dataclass
from persona.limits import MAX_PAYLOAD_BYTES
from persona.objects.ids import ID_CHARS, is_id, object_id
from persona.store import files, pack, records
from persona.store.files import Buffer
from persona.store.index import Entry
from persona.store.pack import Pack
from persona.store.records import Header, Record

_T = TypeVar("_T")

BULK_KINDS: Final = frozenset({"chunk", "delta"})
"""Kinds whose id covers decoded elements, so that the store cannot compute it."""
_SETTLED_NS: Final = 100_000_000
"""Nanoseconds after a change of a directory in which a second change may get the same time stamp."""
_LOOSE_LIMIT: Final = max(MAX_PAYLOAD_BYTES.values()) + records.MAX_HEADER_BYTES
_FEW_PACKS: Final = 8
"""Up to this many packs are asked one after another.

If there are more, only packs with ids that begin alike are asked.
"""


@dataclass(frozen=True)
class Copy:
    """One copy of an object: a pack with its entry, or a loose file."""

    file: Path
    pack: Pack | None
    entry: Entry | None

    def header(self) -> Header:
        """The header of the record."""
        if self.pack is not None and self.entry is not None:
            return self.pack.read_header(self.entry)
        return loose_header(self.file)

    def read(self, max_raw: int | None = None) -> bytes:
        """The bytes of the record, not yet verified; none larger than its kind or `max_raw` allows."""
        if self.pack is not None and self.entry is not None:
            return self.pack.read_record(self.entry, max_raw=max_raw)
        if _size(self.file) > pack.LARGE_BYTES:
            records.check_size(loose_header(self.file), max_raw, str(self.file))
        data = files.read_file(self.file, limit=_LOOSE_LIMIT)
        if data is None:
            raise IntegrityError(f"{self.file} is missing", file=str(self.file), hint=LISTED_BY_FSCK)
        return data


class ObjectStore:
    """The objects below a `.persona` directory. Reading is thread-safe and takes no lock of its own."""

    def __init__(self, root: Path, *, require_writable: Callable[[], None] = lambda: None) -> None:
        self.root = root
        self.require_writable = require_writable
        self.packs_dir = root / "packs"
        self.loose_dir = root / "objects"
        self._loose = f"{self.loose_dir}/"
        self.tmp_dir = root / "tmp"
        self._packs: dict[str, Pack] | None = None
        self._packs_stamp = -1
        self._by_start: dict[int, dict[str, Pack]] | None = None
        self._plain: set[str] = set()
        self._lock = threading.Lock()

    # -- reading

    def read(self, id: str, kind: str | None, *, max_raw: int | None = None) -> Record:
        """The record of an object, its stored bytes verified, its segments decompressed.

        `max_raw` bounds the raw bytes of all segments together, further than the kind does. `IntegrityError`
        with kind, id and file when no copy is intact or none exists.
        """
        return self._first_intact(id, kind, lambda copy: self.unpack(copy, id, kind, max_raw))

    def get(self, id: str, kind: str, *, max_raw: int | None = None) -> bytes:
        """The payload of a small object or table, verified by id."""
        payload = self._plainly_stored(id, kind)
        if payload is not None and (max_raw is None or len(payload) <= max_raw):
            return payload

        def verified(copy: Copy) -> bytes:
            record = self.unpack(copy, id, kind, max_raw)
            check_id(record, record.segments, str(copy.file))
            return bytes(record.segments[0]) if len(record.segments) == 1 else b"".join(record.segments)

        return self._first_intact(id, kind, verified)

    def _plainly_stored(self, id: str, kind: str) -> bytes | None:
        """The payload of an intact loose object that is stored raw; None for every other object.

        Histories are long, and this takes a quarter of the time of `_first_intact`, which says what is wrong.
        """
        if id[:2] not in self._plain or len(id) != ID_CHARS or not id.isalnum():
            return None
        data = files.read_small(f"{self._loose}{id[:2]}/{id[2:]}", records.SMALL_RAW_BYTES)
        if data is None or (payload := records.only_payload(data, kind)) is None:
            return None
        return payload if object_id(kind, payload, version=data[5]) == id else None

    def contains_intact(self, id: str) -> bool:
        """Whether a copy exists whose stored bytes are as they were written."""
        return self.intact(id) is not None

    def intact(self, id: str) -> tuple[Copy, Header] | None:
        """The copy that is read, with its header, if the stored bytes of a copy are as they were written."""
        for copy in self.copies(id):
            try:
                return copy, self.verify(copy, id)
            except PersonaError:
                continue
        return None

    def __contains__(self, id: str) -> bool:
        """Whether a copy exists, intact or not: no byte of it is read."""
        return any(True for _ in self.copies(id))

    def kind_of(self, id: str) -> str | None:
        """The kind of an object, or None when there is no readable copy of it."""
        for copy in self.copies(id):
            try:
                return copy.entry.kind if copy.entry else loose_header(copy.file).kind
            except PersonaError:
                continue
        return None

    def stored_bytes(self, id: str) -> int:
        """Bytes on disk of one copy of the object's record; `IntegrityError` when it is missing."""
        for copy in self.copies(id):
            try:
                return copy.entry.length if copy.entry else loose_header(copy.file).length
            except PersonaError:
                continue
        raise _missing(id, None)

    def header(self, id: str) -> Header:
        """The header of a copy of an object, its own check verified; `IntegrityError` when it is missing."""
        return self._first_intact(id, None, lambda copy: copy.header())

    def ids_with_prefix(self, prefix: str) -> list[tuple[str, str]]:
        """(id, kind) of every object whose id begins with these hex digits, in order of ids."""
        if not prefix or not is_id(prefix.ljust(64, "0")):
            return []
        self.refresh()
        found: dict[str, str] = {}
        for one in self.open_packs().values():
            for entry in self.entries(one, prefix):
                found[entry.id] = entry.kind
        for id, path in self.loose(prefix):
            if id not in found:
                try:
                    found[id] = loose_header(path).kind
                except PersonaError:
                    continue
        return sorted(found.items())

    def iterate(self) -> Iterator[tuple[str, str, str]]:
        """(id, kind, file) of every copy of every object.

        Loose ones by their header, packed ones by their idx.
        """
        for id, path in self.loose(""):
            try:
                kind = loose_header(path).kind
            except PersonaError:
                kind = "unknown"
            yield id, kind, str(path)
        self.refresh()
        for one in self.open_packs().values():
            for entry in self.entries(one, ""):
                yield entry.id, entry.kind, str(one.path)

    def counts(self) -> tuple[int, int, int]:
        """(distinct objects, packs, bytes on disk of packs, idx files and loose objects)."""
        ids: set[str] = set()
        size = 0
        for id, path in self.loose(""):
            ids.add(id)
            size += _size(path)
        self.refresh()
        packs = self.open_packs()
        for one in packs.values():
            ids.update(entry.id for entry in self.entries(one, ""))
            size += _size(one.path) + _size(one.idx_path)
        return len(ids), len(packs), size

    def refresh(self) -> None:
        """Looks for packs on disk again, unless their directory did not change."""
        try:
            stamp = os.lstat(self.packs_dir).st_mtime_ns
        except OSError:
            stamp = 0
        if self._packs is not None and stamp == self._packs_stamp:
            return
        settled = time.time_ns() - stamp > _SETTLED_NS
        found = pack.packs_in(
            files.check_directories(self.root, "packs"), tmp_dir=self.tmp_dir, writable=self._is_writable
        )
        with self._lock:
            known = self._packs or {}
            self._packs = {name: known.get(name, one) for name, one in found.items()}
            self._by_start = None
            self._packs_stamp = stamp if settled else -1

    def close(self) -> None:
        """Closes the packs; no read may be under way."""
        for one in (self._packs or {}).values():
            one.close()

    def lone_indexes(self) -> list[tuple[Path, int]]:
        """The idx files whose pack is not there, with their sizes in bytes."""
        found = {Path(item.path) for item in files.names_in(self.packs_dir)}
        return [
            (path, _size(path))
            for path in sorted(found)
            if path.suffix == pack.IDX_SUFFIX and path.with_suffix(pack.SUFFIX) not in found
        ]

    # -- writing

    def _is_writable(self) -> bool:
        try:
            self.require_writable()
        except PersonaError:
            return False
        return True

    # -- where things lie

    def open_packs(self) -> dict[str, Pack]:
        """The packs by name, as of the last look."""
        if self._packs is None:
            self.refresh()
        assert self._packs is not None
        return self._packs

    def entries(self, one: Pack, prefix: str) -> Iterator[Entry]:
        """The entries of a pack under a prefix of ids; none when the pack is unreadable."""
        try:
            found = one.index()
        except PersonaError:
            return
        yield from found.with_prefix(prefix) if prefix else found

    def _loose_path(self, id: str) -> Path:
        folder = id[:2]
        if folder not in self._plain:
            files.check_directories(self.root, "objects", folder)
            self._plain.add(folder)
        return self.loose_dir / folder / id[2:]

    def loose(self, prefix: str) -> Iterator[tuple[str, Path]]:
        """(id, file) of every loose object whose id begins with `prefix`."""
        for folder in files.names_in(self.loose_dir):
            if not (folder.name.startswith(prefix[:2]) and folder.is_dir(follow_symlinks=False)):
                continue
            for item in files.names_in(Path(folder.path)):
                id = folder.name + item.name
                if id.startswith(prefix) and is_id(id):
                    yield id, Path(item.path)

    def copies(self, id: str, kind: str | None = None) -> Iterator[Copy]:
        """Every place that claims to hold the object; packs that appeared since the last look come last.

        Bulk kinds are looked for in the packs first: a file for each of them would be asked for in vain.
        """
        if not is_id(id):
            raise IntegrityError(f"{id!r:.80} is not an object id")
        bulk = kind in BULK_KINDS
        if not bulk:
            yield from self._loose_copies(id)
        seen = self.open_packs()
        yield from self._packed_copies(self._packs_with(id), id)
        if bulk:
            yield from self._loose_copies(id)
        self.refresh()
        yield from self._packed_copies(
            {name: one for name, one in self.open_packs().items() if name not in seen}, id
        )

    def _loose_copies(self, id: str) -> Iterator[Copy]:
        try:
            path = self._loose_path(id)
        except IntegrityError:
            return
        if os.path.lexists(path):
            yield Copy(path, None, None)

    def _packs_with(self, id: str) -> dict[str, Pack]:
        """The packs that may hold an object, the newest first: of many, those with ids that begin alike."""
        packs = self.open_packs()
        if len(packs) <= _FEW_PACKS:
            return packs
        with self._lock:
            if self._by_start is None:
                self._by_start = {}
                for name, one in packs.items():
                    try:
                        starts = one.index().prefixes()
                    except PersonaError:
                        continue
                    for start in starts:
                        self._by_start.setdefault(start, {})[name] = one
            return self._by_start.get(int(id[:4], 16), {})

    def _look_again(self) -> bool:
        """Whether the packs themselves say something else than their indexes did."""
        changed = [one.look_again() for one in self.open_packs().values() if _is_readable(one)]
        if any(changed):
            with self._lock:
                self._by_start = None
        return any(changed)

    def _packed_copies(self, packs: dict[str, Pack], id: str) -> Iterator[Copy]:
        for one in packs.values():
            try:
                entry = one.find(id)
            except PersonaError:
                continue
            if entry is not None:
                yield Copy(one.path, one, entry)

    def _first_intact(self, id: str, kind: str | None, read: Callable[[Copy], _T]) -> _T:
        failure: PersonaError | None = None
        for _ in range(2):
            for copy in self.copies(id, kind):
                try:
                    return read(copy)
                except PersonaError as error:
                    failure = failure or error
            if not self._look_again():
                break
            failure = None
        if failure is None:
            raise _missing(id, kind)
        if isinstance(failure, IntegrityError):
            failure.object_kind = failure.object_kind or kind
            failure.id = failure.id or id
        raise failure

    def unpack(self, copy: Copy, id: str, kind: str | None, max_raw: int | None = None) -> Record:
        """One copy, verified and decompressed."""
        return records.unpack_record(
            copy.read(max_raw), expect_id=id, expect_kind=kind, max_raw=max_raw, where=str(copy.file)
        )

    def verify(self, copy: Copy, id: str) -> Header:
        """The header of a copy with right stored bytes, and a right id if the store can tell."""
        data, where = copy.read(), str(copy.file)
        header = records.parse_header(data, where)
        if header.id != id:
            raise IntegrityError(f"{where} holds {header.kind} {header.id[:12]} instead", id=id, file=where)
        records.verify_stored(header, data, where)
        if header.kind not in BULK_KINDS:
            record = records.unpack_record(data, expect_id=id, expect_kind=None, where=where)
            check_id(record, record.segments, where)
        return header


def loose_header(path: Path) -> Header:
    """The header of a loose object."""
    opened = files.open_regular(path)
    if opened is None:
        raise IntegrityError(f"{path} is missing", file=str(path), hint=LISTED_BY_FSCK)
    fd, size = opened
    try:
        head = files.read_at(fd, min(size, records.MAX_HEADER_BYTES), 0, path)
    finally:
        files.close(fd)
    return records.parse_header(head, str(path))


def check_id(record: Record, payload: Iterable[Buffer], where: str) -> None:
    """`IntegrityError` unless this canonical payload has the record's id."""
    if object_id(record.kind, *payload, version=record.version) != record.id:
        raise IntegrityError(
            f"{record.kind} {record.id[:12]} in {where} is not what its id says",
            kind=record.kind,
            id=record.id,
            file=where,
        )


def _is_readable(one: Pack) -> bool:
    try:
        one.index()
    except PersonaError:
        return False
    return True


def _missing(id: str, kind: str | None) -> IntegrityError:
    return IntegrityError(f"{kind or 'object'} {id[:12]} is missing from the store", kind=kind, id=id)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
