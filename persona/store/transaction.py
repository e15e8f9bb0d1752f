"""**transaction** — objects on their way into the store: chunks into packs under `tmp/`, small objects last.

Invariants: all that `commit` made visible is durable when it returns: packs and their idx first, then small
objects, each with its directories. That includes objects that were there before: their writer may have been
cut short before their names were durable. A full pack gets its name at once, so that a transaction holds few
files open, and so that a command that is cut short and run again finds its packs. A transaction that fails
leaves at most objects that nothing names. Every object that is put can be read: a structured object is
decoded first.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from persona.errors import IntegrityError, InvalidInput
from persona.limits import MAX_PACK_BYTES
from persona.objects.decoders import DECODERS
from persona.objects.ids import object_id
from persona.store import files, records
from persona.store.files import Buffer
from persona.store.pack import PackWriter
from persona.store.records import PackedRecord, pack_record

if TYPE_CHECKING:
    from persona.store.check import PayloadOf
    from persona.store.objects import Copy, ObjectStore

_SMALL_AT_ONCE: Final = 128
"""Small objects that are written before they get their names; each holds a descriptor meanwhile."""


class Transaction:
    """Objects on their way into the store. `append` and `put` may be called from many threads.

    `new_bytes`: the growth of the store so far; objects that it has already count as 0.
    """

    def __init__(self, store: ObjectStore, payload_of: PayloadOf | None = None) -> None:
        self._store = store
        self._payload_of = payload_of
        self._healed = False
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._writer: PackWriter | None = None
        self._unsynced = False
        self._small: dict[str, PackedRecord] = {}
        self._relied_on: set[Path] = set()
        self.new_bytes = 0
        self.pack_cap = MAX_PACK_BYTES

    def append(self, record: PackedRecord) -> bool:
        """Takes a record into a pack; returns False if the store or this transaction has an intact copy.

        A copy with right stored bytes but another content does not count: the record is stored again, and
        read from then on.
        """
        if not self._is_new(record.id, record):
            return False
        while not (writer := self._open_writer()).append(record, cap=self.pack_cap):
            self._publish(writer)
        with self._lock:
            self.new_bytes += record.length
        return True

    def put(self, kind: str, payload: Buffer, *, version: int = 1) -> str:
        """Takes a small object, to be written loose; returns its id.

        Raises `InvalidInput` for a structured object that no reader would accept.
        """
        if kind in DECODERS:
            try:
                DECODERS[kind](bytes(payload))
            except IntegrityError as error:
                raise InvalidInput(f"this {kind} cannot be stored: {error.message}") from None
        id = object_id(kind, payload, version=version)
        if self._is_new(id):
            record = pack_record(kind, id, 0, [payload], level="small", version=version)
            with self._lock:
                self._small[id] = record
                self.new_bytes += record.length
        return id

    def put_bulk(self, kind: str, payload: Buffer, *, version: int = 1) -> str:
        """Takes an object whose payload is stored as it is (a table, say) into the pack; returns its id."""
        id = object_id(kind, payload, version=version)
        self.append(pack_record(kind, id, 0, [payload], level="small", version=version))
        return id

    def commit(self) -> None:
        """Makes everything durable, in order: packs and their idx, then small objects."""
        if self._writer is not None:
            self._publish(self._writer)
        if self._unsynced:
            files.sync_directory(self._store.packs_dir)
            self._unsynced = False
        if self._small:
            self._write_small()
        files.sync_directories(sorted(self._relied_on))
        self._relied_on.clear()
        self._store.refresh()
        if self._healed:
            files.remove_tree(self._store.root / "cache")  # some of it may come from healed copies

    def discard(self) -> None:
        """Removes everything that was not published. Never raises."""
        if self._writer is not None:
            self._writer.discard()
        self._writer = None
        self._small.clear()

    def rely_on(self, id: str) -> None:
        """Makes sure that the name of an object which is only named here is durable when `commit` returns."""
        with self._lock:
            known = id in self._known
        if not known and (copy := next(self._store.copies(id), None)) is not None:
            self._rely_on(copy)

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

    def _is_new(self, id: str, record: PackedRecord | None = None) -> bool:
        with self._lock:
            if id in self._known:
                return False
            self._known.add(id)
        found = self._store.intact(id)
        if found is None or (record is not None and self._is_other(*found, record)):
            return True
        self._rely_on(found[0])
        return False

    def _is_other(self, copy: Copy, header: records.Header, record: PackedRecord) -> bool:
        """Whether a copy whose stored bytes are right stands for something else than its id says."""
        if header.digest == records.parse_header(record.pieces[0], "record").digest:
            return False
        try:
            held = self._store.unpack(copy, record.id, record.kind)
            if self._payload_of is None:
                ours = b"".join(record.pieces)
                new = records.unpack_record(ours, expect_id=record.id, expect_kind=record.kind)
                wrong = list(map(bytes, held.segments)) != list(map(bytes, new.segments))
            else:
                parts = self._payload_of(held)
                wrong = parts is not None and object_id(held.kind, *parts, version=held.version) != record.id
        except IntegrityError:
            wrong = True
        self._healed = self._healed or wrong
        return wrong

    def _rely_on(self, copy: Copy) -> None:
        with self._lock:
            self._relied_on.add(copy.file.parent)
            if copy.pack is None:
                self._relied_on.add(self._store.loose_dir)

    def _open_writer(self) -> PackWriter:
        """The pack being filled."""
        with self._lock:
            if self._writer is None:
                files.mkdirs(self._store.tmp_dir, below=self._store.root)
                self._writer = PackWriter(self._store.tmp_dir)
            return self._writer

    def _publish(self, writer: PackWriter) -> None:
        """Gives a full pack its name, once; meanwhile other threads fill the next."""
        with self._lock:
            if self._writer is not writer:
                return
            self._writer, self._unsynced = None, True
        try:
            files.mkdirs(self._store.packs_dir, below=self._store.root)
            writer.publish(self._store.packs_dir)
        finally:
            writer.discard()

    def _write_small(self) -> None:
        store = self._store
        files.mkdirs(store.tmp_dir, below=store.root)
        items = list(self._small.items())
        folders: set[Path] = set()
        for start in range(0, len(items), _SMALL_AT_ONCE):
            folders |= self._write_some(items[start : start + _SMALL_AT_ONCE])
        files.sync_directories(sorted({store.loose_dir, *folders}))

    def _write_some(self, items: list[tuple[str, PackedRecord]]) -> set[Path]:
        """Writes small objects; returns their directories, which the caller has yet to sync."""
        store = self._store
        outputs: list[tuple[files.Output, Path]] = []
        try:
            for id, record in items:
                output = files.Output.create(store.tmp_dir, prefix="object")
                outputs.append((output, store.loose_dir / id[:2] / id[2:]))
                output.write(record.pieces)
                output.finish()
            folders = {target.parent for _, target in outputs}
            files.make_directories(folders, below=store.root)
            for output, target in outputs:
                output.rename_to(target)
        finally:
            for output, _ in outputs:
                output.discard()
        return folders
