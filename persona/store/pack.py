"""**pack** — an immutable file of records: `MAGIC`, the records one after another, the footer (see `index`).

A pack is named by its ids. It is filled under `tmp/`, synced, given its name, and never changed or replaced.
If its idx is missing, damaged or of another pack, the idx is rebuilt from the footer. If the footer is
damaged too, the records are walked, and no idx is written.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final

from persona.errors import LISTED_BY_FSCK, IntegrityError, PersonaError, SystemFault
from persona.limits import MAX_PACK_BYTES, MAX_PACK_RECORDS
from persona.store import files, index, records
from persona.store.index import Entry, Index

MAGIC: Final = b"persona pack 1\n\x00"
SUFFIX: Final = ".pack"
IDX_SUFFIX: Final = ".idx"
_NAME_CHARS: Final = 64
KEPT_OPEN: Final = 128
"""Packs whose descriptors stay open between reads; the others are opened for each read."""
_COMPARED_BYTES: Final = 8 << 20
LARGE_BYTES: Final = 8 << 20
"""A record above this many bytes says in its header how long it is before all of it is read."""
_kept = 0


class PackWriter:
    """A pack being filled in `tmp_dir`. `append` may be called from many threads."""

    def __init__(self, tmp_dir: Path) -> None:
        self._tmp_dir = tmp_dir
        self._output = files.Output.create(tmp_dir, prefix="pack")
        self._idle = threading.Condition()
        self._writing = 0
        self._closed = False
        self._entries: list[Entry] = []
        self._holed = False
        self._end = len(MAGIC)
        self.name = ""
        try:
            self._output.pwrite(MAGIC, 0)
        except BaseException:
            self.discard()
            raise

    def append(self, record: records.PackedRecord, *, cap: int = MAX_PACK_BYTES) -> bool:
        """Takes the record; returns False and does nothing if the pack would become too large.

        The limits are `cap` bytes and a number of records.
        """
        with self._idle:
            full = self._end + record.length > cap or len(self._entries) == MAX_PACK_RECORDS
            if self._closed or (self._entries and full):
                return False
            offset = self._end
            self._end += record.length
            self._entries.append(Entry(record.id, record.kind, offset, record.length))
            self._writing += 1
        try:
            self._output.pwrite(record.pieces, offset)
        except BaseException:
            self._holed = True
            raise
        finally:
            with self._idle:
                self._writing -= 1
                self._idle.notify_all()
        return True

    def publish(self, packs: Path) -> None:
        """Finishes the pack and gives it its name in `packs`, then its idx. It takes no more records.

        It waits for the appends under way, writes the footer and syncs. The caller syncs the directory. If a
        pack has the name already, that one stays: if the bytes are equal, they are stored then; other bytes
        get another name.
        """
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: not self._writing)
        if self._holed:
            raise SystemFault(f"cannot publish a pack in {packs}: a write to it failed before")
        ids = [entry.id for entry in self._entries]
        for salt in count():
            self.name = index.pack_name(ids, salt)
            target = packs / f"{self.name}{SUFFIX}"
            footer = index.encode_footer(self._entries, self.name)
            self._output.pwrite(footer, self._end)
            length = self._end + len(footer)
            if os.path.lexists(target):
                if self._is_same(target, length):
                    self.discard()
                    return
                continue
            self._output.sync()
            if self._output.link_to(target):
                break
        self._output.withdraw()
        with files.Output.create(self._tmp_dir, prefix="idx") as idx:
            idx.write(Index.of(self._entries, self.name, length).data)
            idx.publish(packs / f"{self.name}{IDX_SUFFIX}", sync_directory=False)

    def discard(self) -> None:
        """Removes everything that was not published. Never raises."""
        self._output.discard()

    def _is_same(self, target: Path, length: int) -> bool:
        """Whether the file at `target` holds the same bytes."""
        try:
            opened = files.open_regular(target)
        except PersonaError:
            return False
        if opened is None:
            return False
        fd, size = opened
        try:
            return size == length and all(
                files.read_at(fd, _COMPARED_BYTES, start, target)
                == files.read_at(self._output.fileno(), _COMPARED_BYTES, start, self._output.path)
                for start in range(0, length, _COMPARED_BYTES)
            )
        finally:
            files.close(fd)


class Pack:
    """One pack of the store, opened on first use. Thread-safe.

    `writable`: whether an idx may be made again on disk.
    """

    def __init__(self, path: Path, *, tmp_dir: Path, writable: Callable[[], bool] = lambda: True) -> None:
        self.path = path
        self.name = path.name.removesuffix(SUFFIX)
        self._tmp_dir = tmp_dir
        self._writable = writable
        self._lock = threading.RLock()
        self._fd = -1
        self._length = 0
        self._index: Index | None = None
        self._certain = False
        """Whether the index was made from the pack itself."""

    @property
    def idx_path(self) -> Path:
        """The idx file beside the pack."""
        return self.path.with_suffix(IDX_SUFFIX)

    def index(self) -> Index:
        """The idx: read, or rebuilt from the pack. `IntegrityError` when the pack is no pack at all."""
        if self._index is None:
            with self._lock:
                if self._index is None:
                    self._index = self._read_index() or self._rebuilt_index()
        return self._index

    def look_again(self) -> bool:
        """Makes the index again from the footer, at most once; returns whether it was another one."""
        with self._lock:
            before = self.index()
            if self._certain:
                return False
            self._certain = True
            try:
                self._index = self._index_of_footer()
            except IntegrityError:
                return False
            return self._index.data != before.data

    def find(self, id: str) -> Entry | None:
        """The entry of the object in this pack, or None."""
        return self.index().find(id)

    def read_record(self, entry: Entry, *, max_raw: int | None = None) -> bytes:
        """The bytes of a record, not yet verified.

        Raises `IntegrityError` if the pack is too short or the record is larger than its kind or `max_raw`
        allows, and `SystemFault`.
        """
        with self._opened() as (fd, length):
            if entry.offset + entry.length > length:
                raise self._damaged(entry, "is cut off")
            if entry.length > LARGE_BYTES:  # the memory may be wasted: the header must have this length too
                head = files.read_at(fd, records.MAX_HEADER_BYTES, entry.offset, self.path)
                header = records.parse_header(head, str(self.path))
                records.check_size(header, max_raw, str(self.path))
                if header.length != entry.length:
                    raise self._damaged(entry, f"has {header.length} bytes instead of {entry.length}")
            return files.read_at(fd, entry.length, entry.offset, self.path)

    def read_header(self, entry: Entry) -> records.Header:
        """The header of a record; `IntegrityError` unless its own check holds."""
        with self._opened() as (fd, _):
            head = files.read_at(fd, records.MAX_HEADER_BYTES, entry.offset, self.path)
        return records.parse_header(head, str(self.path))

    def footer(self) -> list[Entry]:
        """The entries in the order of the pack, from its footer.

        Raises `IntegrityError` unless the footer is whole and the records fill the pack without a gap.
        """
        where = str(self.path)
        with self._opened() as (fd, length):
            start = max(length - index.TRAILER_BYTES, 0)
            size = index.footer_bytes(files.read_at(fd, length - start, start, self.path), where)
            if size > length - len(MAGIC):
                raise IntegrityError(
                    f"{where}: the footer is damaged", kind="pack", file=where, hint=LISTED_BY_FSCK
                )
            entries, name = index.decode_footer(files.read_at(fd, size, length - size, self.path), where)
        if name != self.name:
            raise IntegrityError(
                f"{where} must hold the pack of its name, not the pack {name[:12]}",
                kind="pack",
                file=where,
                hint=LISTED_BY_FSCK,
            )
        end = len(MAGIC)
        for entry in entries:
            if entry.offset != end:
                break
            end += entry.length
        if end + size != length:
            raise IntegrityError(
                f"{where}: its records must follow each other without a gap",
                kind="pack",
                file=where,
                hint=LISTED_BY_FSCK,
            )
        return entries

    def walk_records(self) -> Iterator[Entry]:
        """The entries from the records themselves, up to the first position where no record begins."""
        offset = len(MAGIC)
        with self._opened() as (fd, length):
            while offset < length:
                head = files.read_at(fd, min(records.MAX_HEADER_BYTES, length - offset), offset, self.path)
                try:
                    header = records.parse_header(head, str(self.path))
                except IntegrityError:
                    return
                if offset + header.length > length:
                    return
                yield Entry(header.id, header.kind, offset, header.length)
                offset += header.length

    def check_frame(self) -> None:
        """`IntegrityError` unless magic, records, footer and idx fit each other without a gap.

        Reads no segment. An idx that is another pack's, or incomplete, is made again all the same.
        """
        where = str(self.path)
        with self._opened() as (fd, _):
            magic = files.read_at(fd, len(MAGIC), 0, self.path)
        if magic != MAGIC:
            raise IntegrityError(
                f"{where} does not begin like a pack", kind="pack", file=where, hint=LISTED_BY_FSCK
            )
        self.footer()
        if self.look_again():
            raise IntegrityError(
                f"{self.idx_path} was not the index of its pack; it is made again", kind="idx", file=where
            )

    def close(self) -> None:
        """Closes the descriptor; no read may be under way."""
        global _kept
        with self._lock:
            if self._fd >= 0:
                files.close(self._fd)
                self._fd = -1
                _kept -= 1

    @contextmanager
    def _opened(self) -> Iterator[tuple[int, int]]:
        """A descriptor and the pack's length; kept open for the next reader while few packs are."""
        global _kept
        if self._fd >= 0:
            yield self._fd, self._length
            return
        with self._lock:
            kept = self._fd >= 0
            if kept:
                fd, length = self._fd, self._length
            else:
                opened = files.open_regular(self.path)
                if opened is None:
                    raise IntegrityError(
                        f"{self.path} is missing", kind="pack", file=str(self.path), hint=LISTED_BY_FSCK
                    )
                fd, length = opened
                if _kept < KEPT_OPEN:
                    _kept += 1
                    kept = True
                    self._length, self._fd = length, fd
        try:
            yield fd, length
        finally:
            if not kept:
                files.close(fd)

    def _read_index(self) -> Index | None:
        with self._opened() as (_, length):
            pass
        try:
            data = files.read_file(self.idx_path, limit=index.MAX_IDX_BYTES)
            if data is None:
                return None
            found = Index.parse(data, str(self.idx_path))
        except PersonaError:
            return None
        return found if (found.pack_name, found.pack_length) == (self.name, length) else None

    def _rebuilt_index(self) -> Index:
        self._certain = True
        try:
            return self._index_of_footer()
        except IntegrityError:
            with self._opened() as (_, length):
                pass
            # The pack may be incomplete, if it is still being copied: the list is not written.
            return Index.of(self.walk_records(), self.name, length)

    def _index_of_footer(self) -> Index:
        """The index from a whole footer, written beside the pack if possible."""
        with self._opened() as (_, length):
            pass
        made = Index.of(self.footer(), self.name, length)
        if self._writable():
            with suppress(PersonaError):
                if files.read_file(self.idx_path, limit=index.MAX_IDX_BYTES) == made.data:
                    return made
            with suppress(PersonaError):
                files.write_file(self.idx_path, made.data, tmp_dir=self._tmp_dir)
        return made

    def _damaged(self, entry: Entry, what: str) -> IntegrityError:
        return IntegrityError(
            f"{entry.kind} {entry.id[:12]} in {self.path} {what}",
            kind=entry.kind,
            id=entry.id,
            file=str(self.path),
        )


def packs_in(
    directory: Path, *, tmp_dir: Path, writable: Callable[[], bool] = lambda: True
) -> dict[str, Pack]:
    """The packs of a directory by name, the newest first.

    So if an object was stored again, the newest copy is read. An idx without a pack is a leftover, not a
    pack.
    """
    found: list[tuple[int, str, Pack]] = []
    for item in files.names_in(directory):
        name = item.name.removesuffix(SUFFIX)
        if item.name.endswith(SUFFIX) and len(name) == _NAME_CHARS:
            path = Path(item.path)
            try:
                age = -path.lstat().st_mtime_ns
            except OSError:
                continue
            found.append((age, name, Pack(path, tmp_dir=tmp_dir, writable=writable)))
    return {name: one for _, name, one in sorted(found, key=lambda item: item[:2])}
