"""The objects of a store: bulk in packs, small ones loose, and the **transaction** that adds to them.

**copy** — an object may lie in several places, after it was healed or packed; any intact copy serves.

Invariants: what a transaction wrote is durable before it ends, packs first, then small objects; an intact object is not
written again, a damaged one is; nothing present is rewritten in place. Small objects are verified by id at every read,
the others by the BLAKE3 of their stored bytes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

from persona.errors import IntegrityError, PersonaError
from persona.limits import MAX_PACK_BYTES, MAX_RECORD_BYTES, MAX_SMALL_BYTES
from persona.objects.ids import is_id, object_id
from persona.store import files, pack, records
from persona.store.index import Entry
from persona.store.pack import Pack, PackWriter
from persona.store.records import Buffer, Header, PackedRecord, Record, pack_record

_T = TypeVar("_T")

BULK_KINDS: Final = frozenset({"chunk", "delta"})
"""Kinds whose id is over decoded elements, which the store cannot compute itself."""
_SETTLED_NS: Final = 100_000_000
"""A directory changed less than this many nanoseconds ago may change again under the same time stamp."""
_LOOSE_LIMIT: Final = MAX_SMALL_BYTES + records.MAX_HEADER_BYTES


@dataclass(frozen=True)
class Problem:
    """Something that `fsck` reports. `healed`: an intact copy of the object exists, so nothing is lost."""

    kind: str
    id: str
    file: str
    problem: str
    healed: bool = False


PayloadOf = Callable[[Record], Iterable[Buffer] | None]
"""The parts of a record's canonical payload, or None when they cannot be had (its base chunk is damaged)."""


@dataclass(frozen=True)
class _Copy:
    """One place where an object lies: a pack with its entry, or a loose file."""

    file: Path
    pack: Pack | None
    entry: Entry | None

    def read(self) -> bytes:
        if self.pack is not None and self.entry is not None:
            return self.pack.read_record(self.entry)
        data = files.read_file(self.file, limit=_LOOSE_LIMIT)
        if data is None:
            raise IntegrityError(f"{self.file} is missing", file=str(self.file))
        return data


class ObjectStore:
    """The objects below a `.persona` directory. Reading is thread-safe and takes no lock of its own."""

    def __init__(self, root: Path, *, require_writable: Callable[[], None] = lambda: None) -> None:
        self.root = root
        self.require_writable = require_writable
        self.packs_dir = root / "packs"
        self.loose_dir = root / "objects"
        self.tmp_dir = root / "tmp"
        self._packs: dict[str, Pack] | None = None
        self._packs_stamp = -1
        self._plain: set[str] = set()
        self._lock = threading.Lock()

    # -- reading

    def read(self, id: str, kind: str | None, *, max_raw: int = MAX_RECORD_BYTES) -> Record:
        """The record of an object, its stored bytes verified, its segments decompressed.

        `max_raw` bounds the raw bytes of all segments together. `IntegrityError` with kind, id and file when no copy is intact
        or none exists.
        """
        return self._first_intact(id, kind, lambda copy: self._unpack(copy, id, kind, max_raw))

    def get(self, id: str, kind: str, *, max_raw: int = MAX_SMALL_BYTES) -> bytes:
        """The payload of a small object or table, verified by id."""

        def verified(copy: _Copy) -> bytes:
            record = self._unpack(copy, id, kind, max_raw)
            _check_id(record, record.segments, str(copy.file))
            return bytes(record.segments[0]) if len(record.segments) == 1 else b"".join(record.segments)

        return self._first_intact(id, kind, verified)

    def contains_intact(self, id: str) -> bool:
        """Whether a copy exists whose stored bytes are what they were when written."""
        for copy in self._copies(id):
            try:
                self._verify(copy, id)
                return True
            except PersonaError:
                continue
        return False

    def __contains__(self, id: str) -> bool:
        """Whether a copy exists, intact or not: no byte of it is read."""
        return any(True for _ in self._copies(id))

    def kind_of(self, id: str) -> str | None:
        """The kind of an object, or None when there is no readable copy of it."""
        for copy in self._copies(id):
            try:
                return copy.entry.kind if copy.entry else self._loose_header(copy.file).kind
            except PersonaError:
                continue
        return None

    def stored_bytes(self, id: str) -> int:
        """Bytes on disk of one copy of the object's record; `IntegrityError` when it is missing."""
        for copy in self._copies(id):
            try:
                return copy.entry.length if copy.entry else self._loose_header(copy.file).length
            except PersonaError:
                continue
        raise _missing(id, None)

    def ids_with_prefix(self, prefix: str) -> list[tuple[str, str]]:
        """(id, kind) of every object whose id begins with these hex digits, in order of ids."""
        if not prefix or not is_id(prefix.ljust(64, "0")):
            return []
        found: dict[str, str] = {}
        for one in self._open_packs().values():
            for entry in self._entries(one, prefix):
                found[entry.id] = entry.kind
        for id, path in self._loose(prefix):
            if id not in found:
                try:
                    found[id] = self._loose_header(path).kind
                except PersonaError:
                    continue
        return sorted(found.items())

    def iterate(self) -> Iterator[tuple[str, str, str]]:
        """(id, kind, file) of every copy of every object: loose ones by their header, packed ones by their idx."""
        for id, path in self._loose(""):
            try:
                kind = self._loose_header(path).kind
            except PersonaError:
                kind = "unknown"
            yield id, kind, str(path)
        for one in self._open_packs().values():
            for entry in self._entries(one, ""):
                yield entry.id, entry.kind, str(one.path)

    def counts(self) -> tuple[int, int, int]:
        """(distinct objects, packs, bytes on disk of packs, idx files and loose objects)."""
        ids: set[str] = set()
        size = 0
        for id, path in self._loose(""):
            ids.add(id)
            size += _size(path)
        packs = self._open_packs()
        for one in packs.values():
            ids.update(entry.id for entry in self._entries(one, ""))
            size += _size(one.path) + _size(one.idx_path)
        return len(ids), len(packs), size

    def refresh(self) -> None:
        """Looks for packs on disk again, unless their directory is what it was."""
        try:
            stamp = os.lstat(self.packs_dir).st_mtime_ns
        except OSError:
            stamp = 0
        if self._packs is not None and stamp == self._packs_stamp:
            return
        settled = time.time_ns() - stamp > _SETTLED_NS
        found = pack.packs_in(files.check_directories(self.root, "packs"), tmp_dir=self.tmp_dir)
        with self._lock:
            known = self._packs or {}
            self._packs = {name: known.get(name, one) for name, one in found.items()}
            self._packs_stamp = stamp if settled else -1

    def close(self) -> None:
        """Closes the packs; no read may be under way."""
        for one in (self._packs or {}).values():
            one.close()

    # -- writing

    def transaction(self) -> Transaction:
        """A context manager that makes what was appended and put durable on a clean exit, and discards it otherwise."""
        self.require_writable()
        return Transaction(self)

    # -- checking

    def problems(self, full: bool = False, payload_of: PayloadOf | None = None) -> Iterator[Problem]:
        """What is wrong with the stored bytes of every copy of every object.

        `full`: the ids too. `payload_of` decodes the kinds of `BULK_KINDS`; without it those ids stay unverified.
        """
        self.refresh()
        for one in self._open_packs().values():
            yield from self._pack_problems(one, full, payload_of)
        for id, path in self._loose(""):
            yield from self._copy_problems(_Copy(path, None, None), id, None, full, payload_of)
        yield from self._strangers()

    def _pack_problems(self, one: Pack, full: bool, payload_of: PayloadOf | None) -> Iterator[Problem]:
        try:
            one.check_frame()
        except PersonaError as error:
            yield Problem("pack", one.name, str(one.path), error.message)
        try:
            entries = {entry.id: entry for entry in one.index()}
        except PersonaError:
            return
        try:
            entries.update((entry.id, entry) for entry in one.footer())
        except PersonaError:
            pass
        for entry in sorted(entries.values(), key=lambda entry: entry.offset):
            yield from self._copy_problems(
                _Copy(one.path, one, entry), entry.id, entry.kind, full, payload_of
            )

    def _copy_problems(
        self, copy: _Copy, id: str, kind: str | None, full: bool, payload_of: PayloadOf | None
    ) -> Iterator[Problem]:
        try:
            found = self._verify(copy, id)
            kind = kind or found.kind
            if kind != found.kind:
                raise IntegrityError(f"{found.kind} {id[:12]} in {copy.file} is indexed as {kind}")
            if found.kind in BULK_KINDS and full:
                record = self._unpack(copy, id, kind, MAX_RECORD_BYTES)
                parts = payload_of(record) if payload_of else None
                if parts is not None:
                    _check_id(record, parts, str(copy.file))
        except PersonaError as error:
            healed = sum(1 for _ in self._copies(id)) > 1 and self.contains_intact(id)
            yield Problem(kind or "object", id, str(copy.file), error.message, healed)

    def _strangers(self) -> Iterator[Problem]:
        for directory in (self.loose_dir, *(Path(item.path) for item in files.names_in(self.loose_dir))):
            try:
                files.check_directories(self.root, *directory.relative_to(self.root).parts)
            except PersonaError as error:
                yield Problem("object", "", str(directory), error.message)
                continue
            for item in files.names_in(directory):
                name = item.name if directory == self.loose_dir else directory.name + item.name
                if directory == self.loose_dir and len(name) == 2 and is_id(name.ljust(64, "0")):
                    continue
                if not is_id(name):
                    yield Problem("object", "", item.path, f"{item.path} is no object")

    # -- where things lie

    def _open_packs(self) -> dict[str, Pack]:
        if self._packs is None:
            self.refresh()
        assert self._packs is not None
        return self._packs

    def _entries(self, one: Pack, prefix: str) -> Iterator[Entry]:
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

    def _loose(self, prefix: str) -> Iterator[tuple[str, Path]]:
        """(id, file) of every loose object whose id begins with `prefix`."""
        for folder in files.names_in(self.loose_dir):
            if not (folder.name.startswith(prefix[:2]) and folder.is_dir(follow_symlinks=False)):
                continue
            for item in files.names_in(Path(folder.path)):
                id = folder.name + item.name
                if id.startswith(prefix) and is_id(id):
                    yield id, Path(item.path)

    def _loose_header(self, path: Path) -> Header:
        opened = files.open_regular(path)
        if opened is None:
            raise IntegrityError(f"{path} is missing", file=str(path))
        fd, size = opened
        try:
            head = files.read_at(fd, min(size, records.MAX_HEADER_BYTES), 0, path)
        finally:
            files.close(fd)
        return records.parse_header(head, str(path))

    def _copies(self, id: str) -> Iterator[_Copy]:
        """Every place that claims to hold the object; packs that appeared since the last look come last."""
        if not is_id(id):
            raise IntegrityError(f"{id!r:.80} is not an object id")
        try:
            path = self._loose_path(id)
            if os.path.lexists(path):
                yield _Copy(path, None, None)
        except IntegrityError:
            pass
        seen = self._open_packs()
        yield from self._packed_copies(seen, id)
        self.refresh()
        yield from self._packed_copies(
            {name: one for name, one in self._open_packs().items() if name not in seen}, id
        )

    def _packed_copies(self, packs: dict[str, Pack], id: str) -> Iterator[_Copy]:
        for one in packs.values():
            try:
                entry = one.find(id)
            except PersonaError:
                continue
            if entry is not None:
                yield _Copy(one.path, one, entry)

    def _first_intact(self, id: str, kind: str | None, read: Callable[[_Copy], _T]) -> _T:
        failure: PersonaError | None = None
        for copy in self._copies(id):
            try:
                return read(copy)
            except PersonaError as error:
                failure = failure or error
        if failure is None:
            raise _missing(id, kind)
        if isinstance(failure, IntegrityError):
            failure.object_kind = failure.object_kind or kind
            failure.id = failure.id or id
        raise failure

    def _unpack(self, copy: _Copy, id: str, kind: str | None, max_raw: int) -> Record:
        return records.unpack_record(
            copy.read(), expect_id=id, expect_kind=kind, max_raw=max_raw, where=str(copy.file)
        )

    def _verify(self, copy: _Copy, id: str) -> Header:
        data, where = copy.read(), str(copy.file)
        header = records.parse_header(data, where)
        if header.id != id:
            raise IntegrityError(f"{where} holds {header.kind} {header.id[:12]} instead", id=id, file=where)
        records.verify_stored(header, data, where)
        if header.kind not in BULK_KINDS:
            record = records.unpack_record(
                data, expect_id=id, expect_kind=None, max_raw=MAX_SMALL_BYTES, where=where
            )
            _check_id(record, record.segments, where)
        return header


class Transaction:
    """Objects on their way into the store. `append` and `put` may be called from many threads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._writers: list[PackWriter] = []
        self._small: dict[str, PackedRecord] = {}
        self.pack_cap = MAX_PACK_BYTES

    def append(self, record: PackedRecord) -> bool:
        """Takes a record into a pack; False when an intact copy is in the store or in this transaction already."""
        if not self._is_new(record.id):
            return False
        while True:
            writer = self._writer(None)
            if writer.append(record, cap=self.pack_cap):
                return True
            self._writer(writer)

    def put(self, kind: str, payload: Buffer, *, version: int = 1) -> str:
        """Takes a small object, to be written loose; returns its id."""
        id = object_id(kind, payload, version=version)
        if self._is_new(id):
            record = pack_record(kind, id, 0, [payload], level="small", version=version)
            with self._lock:
                self._small[id] = record
        return id

    def put_bulk(self, kind: str, payload: Buffer, *, version: int = 1) -> str:
        """Takes an object whose payload is stored as it is (a table, say) into the pack; returns its id."""
        id = object_id(kind, payload, version=version)
        self.append(pack_record(kind, id, 0, [payload], level="small", version=version))
        return id

    def commit(self) -> None:
        """Makes everything durable, in the order of docs/format.md: packs and their idx, then small objects."""
        packs = self._store.packs_dir
        if self._writers:
            files.mkdirs(packs, below=self._store.root)
            for writer in self._writers:
                writer.seal(packs)
                writer.publish(packs)
            files.sync_directory(packs)
            self._writers.clear()
        if self._small:
            self._write_small()
        self._store.refresh()

    def discard(self) -> None:
        """Removes what was not published. Never raises."""
        for writer in self._writers:
            writer.discard()
        self._writers.clear()
        self._small.clear()

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.discard()

    def _is_new(self, id: str) -> bool:
        with self._lock:
            if id in self._known:
                return False
            self._known.add(id)
        return not self._store.contains_intact(id)

    def _writer(self, full: PackWriter | None) -> PackWriter:
        """The pack being filled; a new one when there is none or `full` is it."""
        with self._lock:
            if not self._writers or self._writers[-1] is full:
                files.mkdirs(self._store.tmp_dir, below=self._store.root)
                self._writers.append(PackWriter(self._store.tmp_dir))
            return self._writers[-1]

    def _write_small(self) -> None:
        store = self._store
        files.mkdirs(store.tmp_dir, below=store.root)
        outputs: list[tuple[files.Output, Path]] = []
        try:
            for id, record in self._small.items():
                target = store.loose_dir / id[:2] / id[2:]
                files.mkdirs(target.parent, below=store.root)
                output = files.Output.create(store.tmp_dir, prefix="object")
                outputs.append((output, target))
                output.write(record.pieces)
                output.finish()
            for output, target in outputs:
                output.rename_to(target)
            files.sync_directories(target.parent for _, target in outputs)
        finally:
            for output, _ in outputs:
                output.discard()


def _check_id(record: Record, payload: Iterable[Buffer], where: str) -> None:
    if object_id(record.kind, *payload, version=record.version) != record.id:
        raise IntegrityError(
            f"{record.kind} {record.id[:12]} in {where} is not what its id says",
            kind=record.kind,
            id=record.id,
            file=where,
        )


def _missing(id: str, kind: str | None) -> IntegrityError:
    return IntegrityError(f"{kind or 'object'} {id[:12]} is missing from the store", kind=kind, id=id)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
