"""**pack** — an immutable file of records: `MAGIC`, the records one after another, the footer (see `index`).

A pack is named by its ids. It is filled under `tmp/`, synced, renamed, and never changed again. Its idx is a
convenience: when it is missing or damaged it is rebuilt from the footer, and when that is damaged too, from
the records themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from persona.errors import IntegrityError, PersonaError, SystemFault
from persona.limits import MAX_PACK_BYTES
from persona.store import files, index, records
from persona.store.index import Entry, Index

MAGIC: Final = b"persona pack 1\n\x00"
SUFFIX: Final = ".pack"
IDX_SUFFIX: Final = ".idx"
_NAME_CHARS: Final = 64
KEPT_OPEN: Final = 128
"""Packs whose descriptors stay open between reads; the others are opened for each read."""
_kept = 0


class PackWriter:
    """A pack being filled in `tmp_dir`. `append` may be called from many threads."""

    def __init__(self, tmp_dir: Path) -> None:
        self._tmp_dir = tmp_dir
        self._output = files.Output.create(tmp_dir, prefix="pack")
        self._idx: files.Output | None = None
        self._lock = threading.Lock()
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
        """Takes the record, unless the pack would grow over `cap` bytes: then False, and nothing happened."""
        with self._lock:
            if self._entries and self._end + record.length > cap:
                return False
            offset = self._end
            self._end += record.length
            self._entries.append(Entry(record.id, record.kind, offset, record.length))
        try:
            self._output.pwrite(record.pieces, offset)
        except BaseException:
            self._holed = True
            raise
        return True

    def seal(self, packs: Path) -> None:
        """Writes footer and idx, and syncs both; neither has its name yet."""
        if self._holed:
            raise SystemFault(f"cannot publish a pack in {packs}: a write to it failed before")
        ids = [entry.id for entry in self._entries]
        salt = 0
        while (packs / f"{(name := index.pack_name(ids, salt))}{SUFFIX}").exists():
            salt += 1
        self.name = name
        footer = index.encode_footer(self._entries, name)
        self._output.pwrite(footer, self._end)
        self._end += len(footer)
        self._output.finish()
        self._idx = files.Output.create(self._tmp_dir, prefix="idx")
        self._idx.write(Index.of(self._entries, name, self._end).data)
        self._idx.finish()

    def publish(self, packs: Path) -> None:
        """Renames a sealed pack, then its idx, into `packs`. The caller syncs the directory."""
        assert self._idx is not None
        self._output.rename_to(packs / f"{self.name}{SUFFIX}")
        self._idx.rename_to(packs / f"{self.name}{IDX_SUFFIX}")

    def discard(self) -> None:
        """Removes what was not published. Never raises."""
        self._output.discard()
        if self._idx is not None:
            self._idx.discard()


class Pack:
    """One pack of the store, opened when first needed. Thread-safe."""

    def __init__(self, path: Path, *, tmp_dir: Path) -> None:
        self.path = path
        self.name = path.name.removesuffix(SUFFIX)
        self._tmp_dir = tmp_dir
        self._lock = threading.RLock()
        self._fd = -1
        self._length = 0
        self._index: Index | None = None

    @property
    def idx_path(self) -> Path:
        """The idx file beside the pack."""
        return self.path.with_suffix(IDX_SUFFIX)

    def index(self) -> Index:
        """The idx: read, or rebuilt from the pack and written again. `IntegrityError` when the pack is no
        pack at all.
        """
        if self._index is None:
            with self._lock:
                if self._index is None:
                    self._index = self._read_index() or self._rebuild_index()
        return self._index

    def find(self, id: str) -> Entry | None:
        """Where the object lies in this pack, or None."""
        return self.index().find(id)

    def read_record(self, entry: Entry) -> bytes:
        """The bytes of a record, not yet verified. Raises `IntegrityError` when the pack is too short,
        `SystemFault`.
        """
        with self._opened() as (fd, length):
            if entry.offset + entry.length > length:
                raise IntegrityError(
                    f"{entry.kind} {entry.id[:12]} in {self.path} is cut off",
                    kind=entry.kind,
                    id=entry.id,
                    file=str(self.path),
                )
            return files.read_at(fd, entry.length, entry.offset, self.path)

    def footer(self) -> list[Entry]:
        """The entries in the order of the pack, from its footer; `IntegrityError` when that is damaged."""
        where = str(self.path)
        with self._opened() as (fd, length):
            start = max(length - index.TRAILER_BYTES, 0)
            size = index.footer_bytes(files.read_at(fd, length - start, start, self.path), where)
            if size > length - len(MAGIC):
                raise IntegrityError(f"{where}: the footer is damaged", kind="pack", file=where)
            entries, name = index.decode_footer(files.read_at(fd, size, length - size, self.path), where)
        if name != self.name:
            raise IntegrityError(f"{where} holds the pack {name[:12]}", kind="pack", file=where)
        return entries

    def walk_records(self) -> Iterator[Entry]:
        """The entries as the records themselves give them, up to the first place where no record begins."""
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
        """`IntegrityError` unless magic, records, footer and idx fit each other without a gap. Reads no
        segment.
        """
        where = str(self.path)
        entries = self.footer()
        with self._opened() as (fd, length):
            magic = files.read_at(fd, len(MAGIC), 0, self.path)
        if magic != MAGIC:
            raise IntegrityError(f"{where} does not begin as a pack", kind="pack", file=where)
        end = len(MAGIC)
        for entry in entries:
            if entry.offset != end:
                raise IntegrityError(f"{where}: its records leave a gap", kind="pack", file=where)
            end += entry.length
        if end + len(index.encode_footer(entries, self.name)) != length:
            raise IntegrityError(f"{where}: its records leave a gap", kind="pack", file=where)
        if Index.of(entries, self.name, length).data != self.index().data:
            raise IntegrityError(f"{self.idx_path} is not the index of its pack", kind="idx", file=where)

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
                    raise IntegrityError(f"{self.path} is missing", kind="pack", file=str(self.path))
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
            data = files.read_file(self.idx_path, limit=length + (1 << 20))
            if data is None:
                return None
            found = Index.parse(data, str(self.idx_path))
        except PersonaError:
            return None
        return found if found.pack_name == self.name else None

    def _rebuild_index(self) -> Index:
        with self._opened() as (_, length):
            pass
        try:
            entries = self.footer()
        except IntegrityError:
            entries = list(self.walk_records())
        rebuilt = Index.of(entries, self.name, length)
        with suppress(PersonaError):
            files.write_file(self.idx_path, rebuilt.data, tmp_dir=self._tmp_dir)
        return rebuilt


def packs_in(directory: Path, *, tmp_dir: Path) -> dict[str, Pack]:
    """The packs of a directory by name. An idx without a pack is a leftover and no pack."""
    found: dict[str, Pack] = {}
    for item in files.names_in(directory):
        name = item.name.removesuffix(SUFFIX)
        if item.name.endswith(SUFFIX) and len(name) == _NAME_CHARS:
            found[name] = Pack(Path(item.path), tmp_dir=tmp_dir)
    return found
