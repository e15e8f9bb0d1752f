"""**transaction** — objects on their way into the store: bulk into packs under `tmp/`, small ones last.

Invariants: nothing is visible before `commit`, and what `commit` made visible is durable when it returns:
packs and their idx first, then small objects, each with its directories. That holds for objects that were
there already too: who wrote them may have been cut short before their names were durable. A transaction that
fails leaves at most objects that nothing names.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from persona.limits import MAX_PACK_BYTES
from persona.objects.ids import object_id
from persona.store import files
from persona.store.pack import PackWriter
from persona.store.records import Buffer, PackedRecord, pack_record

if TYPE_CHECKING:
    from persona.store.objects import ObjectStore


class Transaction:
    """Objects on their way into the store. `append` and `put` may be called from many threads.

    `new_bytes`: what the store grows by, so far; objects that it has already count for nothing.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._writers: list[PackWriter] = []
        self._small: dict[str, PackedRecord] = {}
        self._relied_on: set[Path] = set()
        self.new_bytes = 0
        self.pack_cap = MAX_PACK_BYTES

    def append(self, record: PackedRecord) -> bool:
        """Takes a record into a pack; False when an intact copy is in the store or in this transaction
        already.
        """
        if not self._is_new(record.id):
            return False
        while True:
            writer = self._writer(None)
            if writer.append(record, cap=self.pack_cap):
                with self._lock:
                    self.new_bytes += record.length
                return True
            self._writer(writer)

    def put(self, kind: str, payload: Buffer, *, version: int = 1) -> str:
        """Takes a small object, to be written loose; returns its id."""
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
        files.sync_directories(sorted(self._relied_on))
        self._relied_on.clear()
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
        copy = self._store.intact_copy(id)
        if copy is None:
            return True
        with self._lock:
            self._relied_on.add(copy.file.parent)
            if copy.pack is None:
                self._relied_on.add(self._store.loose_dir)
        return False

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
                output = files.Output.create(store.tmp_dir, prefix="object")
                outputs.append((output, store.loose_dir / id[:2] / id[2:]))
                output.write(record.pieces)
                output.finish()  # at once: there may be more of them than descriptors
            folders = {target.parent for _, target in outputs}
            files.make_directories(folders, below=store.root)
            for output, target in outputs:
                output.rename_to(target)
            files.sync_directories(sorted({store.loose_dir, *folders}))
        finally:
            for output, _ in outputs:
                output.discard()
