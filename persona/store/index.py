"""The places of the objects in a pack.

**footer** — a pack's entries in the order of its records, at its end.
**idx** — the same entries sorted by id, in a file beside the pack, searched by bisection.

    idx     magic "PVI1", zeros (4), count (8), pack length (8), pack name (32)
            256 running counts of ids by first byte (8 each), ids (32 each),
            then kind (1), offset (8), length (8) each
            BLAKE3 of all before (32)
    footer  entries: id (32), kind (1), offset (8), length (8) each
            count (8), pack name (32), BLAKE3 of the footer up to here (32), magic "PVF1" (4)

Integers are little-endian, kinds as in records. An idx with a wrong check, pack name or pack length counts as
absent. `fsck` compares all of it with its pack.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from blake3 import blake3

from persona.errors import LISTED_BY_FSCK, IntegrityError
from persona.frozen import dataclass
from persona.limits import MAX_PACK_RECORDS
from persona.objects.ids import KINDS
from persona.store.records import KIND_CODES

IDX_MAGIC: Final = b"PVI1"
FOOTER_MAGIC: Final = b"PVF1"
_IDX_HEAD: Final = struct.Struct("<4s4xQQ32s")
_FANOUT: Final = struct.Struct("<256Q")
_PLACE: Final = struct.Struct("<BQQ")
_FOOTER_ENTRY: Final = struct.Struct("<32sBQQ")
_TRAILER: Final = struct.Struct("<Q32s32s4s")
TRAILER_BYTES: Final = _TRAILER.size
_CHECK: Final = 32
MAX_IDX_BYTES: Final = _IDX_HEAD.size + _FANOUT.size + MAX_PACK_RECORDS * (32 + _PLACE.size) + _CHECK
"""Bytes that an idx may have."""


@dataclass(frozen=True)
class Entry:
    """One object of a pack: its record is `length` bytes from `offset`."""

    id: str
    kind: str
    offset: int
    length: int


class Index:
    """The entries of one pack, by id. Immutable."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        _, self._count, self.pack_length, name = _IDX_HEAD.unpack_from(data)
        self.pack_name = name.hex()
        self._fanout = _FANOUT.unpack_from(data, _IDX_HEAD.size)
        self._ids = _IDX_HEAD.size + _FANOUT.size
        self._places = self._ids + 32 * self._count

    @classmethod
    def parse(cls, data: bytes, where: str) -> Index:
        """The idx in `data`.

        Raises `IntegrityError` naming `where` unless it is whole and its check is right.
        """
        head = _IDX_HEAD.size + _FANOUT.size
        if len(data) < head + _CHECK or data[:8] != IDX_MAGIC + bytes(4):
            raise IntegrityError(
                f"{where} is not the index of a pack", kind="idx", file=where, hint=LISTED_BY_FSCK
            )
        count = _IDX_HEAD.unpack_from(data)[1]
        if len(data) != head + count * (32 + _PLACE.size) + _CHECK:
            raise IntegrityError(
                f"{where} must have the length that it declares", kind="idx", file=where, hint=LISTED_BY_FSCK
            )
        if blake3(memoryview(data)[:-_CHECK]).digest() != data[-_CHECK:]:
            raise IntegrityError(f"{where} is damaged", kind="idx", file=where, hint=LISTED_BY_FSCK)
        index = cls(data)
        if index._fanout[-1] != count or any(
            first > second for first, second in zip(index._fanout, index._fanout[1:], strict=False)
        ):
            raise IntegrityError(f"{where} is malformed", kind="idx", file=where, hint=LISTED_BY_FSCK)
        return index

    @classmethod
    def of(cls, entries: Iterable[Entry], pack_name: str, pack_length: int) -> Index:
        """The idx of these entries; of several under one id the first counts."""
        unique: dict[str, Entry] = {}
        for entry in entries:
            unique.setdefault(entry.id, entry)
        ordered = [unique[id] for id in sorted(unique)]
        counts = [0] * 256
        for entry in ordered:
            counts[int(entry.id[:2], 16)] += 1
        total = 0
        for byte, count in enumerate(counts):
            total += count
            counts[byte] = total
        body = b"".join(
            (
                _IDX_HEAD.pack(IDX_MAGIC, len(ordered), pack_length, bytes.fromhex(pack_name)),
                _FANOUT.pack(*counts),
                bytes.fromhex("".join(entry.id for entry in ordered)),
                b"".join(
                    _PLACE.pack(KIND_CODES[entry.kind], entry.offset, entry.length) for entry in ordered
                ),
            )
        )
        return cls(body + blake3(body).digest())

    @property
    def data(self) -> bytes:
        """The bytes of the idx file."""
        return self._data

    def __len__(self) -> int:
        return int(self._count)

    def prefixes(self) -> set[int]:
        """The first two bytes of every id, as integers."""
        ids = memoryview(self._data)[self._ids : self._places]
        return {first << 8 | second for first, second in zip(ids[::32], ids[1::32], strict=True)}

    def find(self, id: str) -> Entry | None:
        """The entry of the object, or None."""
        key = bytes.fromhex(id)
        first = key[0]
        low, high = self._fanout[first - 1] if first else 0, self._fanout[first]
        place = bisect_left(range(high), key, lo=low, key=self._id)
        return self._entry(place) if place < high and self._id(place) == key else None

    def with_prefix(self, prefix: str) -> Iterator[Entry]:
        """The entries whose ids begin with these hex digits, in order."""
        low = bytes.fromhex(prefix + "0" * (-len(prefix) % 2))
        place = bisect_left(range(self._count), low, key=self._id)
        while place < self._count and self._id(place).hex().startswith(prefix):
            yield self._entry(place)
            place += 1

    def __iter__(self) -> Iterator[Entry]:
        return (self._entry(place) for place in range(self._count))

    def _id(self, place: int) -> bytes:
        start = self._ids + 32 * place
        return self._data[start : start + 32]

    def _entry(self, place: int) -> Entry:
        code, offset, length = _PLACE.unpack_from(self._data, self._places + place * _PLACE.size)
        if not 1 <= code <= len(KINDS):
            raise IntegrityError(f"idx of pack {self.pack_name[:12]} has an unknown kind", kind="idx")
        return Entry(self._id(place).hex(), KINDS[code - 1], offset, length)


def encode_footer(entries: Sequence[Entry], pack_name: str) -> bytes:
    """The footer and trailer of a pack."""
    body = b"".join(
        _FOOTER_ENTRY.pack(bytes.fromhex(entry.id), KIND_CODES[entry.kind], entry.offset, entry.length)
        for entry in entries
    )
    head = body + struct.pack("<Q", len(entries)) + bytes.fromhex(pack_name)
    return head + blake3(head).digest() + FOOTER_MAGIC


def footer_bytes(trailer: bytes, where: str) -> int:
    """The length of footer and trailer together, from a pack's last `TRAILER_BYTES`; not yet verified."""
    if len(trailer) != TRAILER_BYTES or trailer[-4:] != FOOTER_MAGIC:
        raise IntegrityError(f"{where} has no footer", kind="pack", file=where, hint=LISTED_BY_FSCK)
    count: int = _TRAILER.unpack(trailer)[0]
    if count > MAX_PACK_RECORDS:
        raise IntegrityError(
            f"{where}: its footer declares {count} records, more than the {MAX_PACK_RECORDS} it may have",
            kind="pack",
            file=where,
            hint=LISTED_BY_FSCK,
        )
    return count * _FOOTER_ENTRY.size + TRAILER_BYTES


def decode_footer(data: bytes, where: str) -> tuple[list[Entry], str]:
    """The entries in the order of the pack, and the pack's name.

    Raises `IntegrityError` naming `where` unless the check is right.
    """
    if len(data) != footer_bytes(data[-TRAILER_BYTES:], where):
        raise IntegrityError(f"{where}: the footer is damaged", kind="pack", file=where, hint=LISTED_BY_FSCK)
    _, name, check, _ = _TRAILER.unpack(data[-TRAILER_BYTES:])
    if blake3(memoryview(data)[:-36]).digest() != check:
        raise IntegrityError(f"{where}: the footer is damaged", kind="pack", file=where, hint=LISTED_BY_FSCK)
    entries = []
    for id, code, offset, length in _FOOTER_ENTRY.iter_unpack(memoryview(data)[:-TRAILER_BYTES]):
        if not 1 <= code <= len(KINDS):
            raise IntegrityError(
                f"{where}: the footer has an unknown kind", kind="pack", file=where, hint=LISTED_BY_FSCK
            )
        entries.append(Entry(id.hex(), KINDS[code - 1], offset, length))
    return entries, name.hex()


def pack_name(ids: Iterable[str], salt: int = 0) -> str:
    """The name of a pack: BLAKE3 of its ids in ascending order.

    `salt` distinguishes two packs of the same objects.
    """
    hasher = blake3(b"pack\x00%d\x00" % salt)
    hasher.update(bytes.fromhex("".join(sorted(ids))))
    return hasher.hexdigest()
