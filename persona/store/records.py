"""**record** — one object on disk: a header, then its segments, each raw or one zstd frame.

    offset  bytes  field
    0       4      magic "PVR1"
    4       1      kind: 1 + its place in `KINDS`
    5       1      version of the kind
    6       1      number of segments, n ≤ 64
    7       1      flags: 1 = relative to another object
    8       4      form, little-endian: how the codec laid the segments out; the store does not look at it
    12      32     id
    44      32     id of the object that it is relative to, or zeros
    76      32     BLAKE3 of all that follows the header
    108     17·n   a segment each: stored bytes (8), raw bytes (8), encoding (1: 0 raw, 1 zstd)
    …       16     BLAKE3 of the header up to here, first 16 bytes

Invariants: the stored bytes are verified before any of them is decompressed; a frame declares exactly the raw
length of its header, asks for no dictionary and at most `ZSTD_WINDOW_BYTES` of window, and ends where its
segment ends. The id is only a claim here: the caller knows the payload and verifies it.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from persona.errors import LISTED_BY_FSCK, IntegrityError, InvalidInput
from persona.frozen import dataclass
from persona.limits import MAX_PAYLOAD_BYTES, MAX_SEGMENTS, ZSTD_WINDOW_BYTES
from persona.objects.ids import KINDS
from persona.store.files import Buffer

if TYPE_CHECKING:
    import zstandard

MAGIC: Final = b"PVR1"
FIXED: Final = struct.Struct("<4sBBBBI32s32s32s")
SEGMENT: Final = struct.Struct("<QQB")
CHECK_BYTES: Final = 16
MAX_HEADER_BYTES: Final = FIXED.size + MAX_SEGMENTS * SEGMENT.size + CHECK_BYTES
RAW: Final = 0
ZSTD: Final = 1
SMALL_RAW_BYTES: Final = 4096
"""A payload below this many bytes stays raw, so that reading history needs no zstandard."""

KIND_CODES: Final = {kind: code for code, kind in enumerate(KINDS, 1)}
"""The number of each kind in records, packs and indexes."""
_RELATIVE: Final = 1
_NO_ID: Final = bytes(32)
_NEWER: Final = "a newer persona may read it"
_local = threading.local()


@dataclass(frozen=True)
class Header:
    """The header of a record: lengths in bytes, `segments` as (stored, raw, encoding)."""

    kind: str
    version: int
    id: str
    form: int
    relative: str | None
    digest: bytes
    segments: tuple[tuple[int, int, int], ...]

    @property
    def header_bytes(self) -> int:
        """The header's own length."""
        return FIXED.size + len(self.segments) * SEGMENT.size + CHECK_BYTES

    @property
    def stored_bytes(self) -> int:
        """Bytes after the header."""
        return sum(stored for stored, _, _ in self.segments)

    @property
    def raw_bytes(self) -> int:
        """Bytes of all segments, decompressed."""
        return sum(raw for _, raw, _ in self.segments)

    @property
    def length(self) -> int:
        """Bytes of the whole record."""
        return self.header_bytes + self.stored_bytes


@dataclass(frozen=True)
class Record:
    """An object out of the store: segments decompressed, `stored_bytes` on disk (header included)."""

    kind: str
    version: int
    id: str
    form: int
    relative: str | None
    segments: tuple[Buffer, ...]
    stored_bytes: int


@dataclass(frozen=True)
class PackedRecord:
    """A record ready to be written.

    `pieces` in order, the header first; `length` bytes together; `raw_bytes` before compression.
    """

    kind: str
    id: str
    pieces: tuple[Buffer, ...]
    length: int
    raw_bytes: int


def pack_record(
    kind: str,
    id: str,
    form: int,
    segments: Sequence[Any],
    *,
    relative: str | None = None,
    level: str = "bulk",
    version: int = 1,
) -> PackedRecord:
    """The record of an object.

    `segments` are contiguous buffers (bytes, memoryview, numpy arrays) and are copied. `level`: "bulk" for
    planes of elements (zstd level 1, min_match 7, hash_log 6), "small" for text and tables (level 3, raw
    below 4 KiB). A segment stays raw if zstd saves less than 3 %. Thread-safe; releases the GIL while it
    compresses. Raises `InvalidInput` for more bytes than an object of its kind may have.
    """
    if len(segments) > MAX_SEGMENTS:
        raise ValueError(f"{len(segments)} segments, more than {MAX_SEGMENTS}")
    views = [_bytes_of(segment) for segment in segments]
    raw_bytes = sum(view.nbytes for view in views)
    if raw_bytes > MAX_PAYLOAD_BYTES[kind]:
        raise InvalidInput(
            f"a {kind} of {raw_bytes} bytes cannot be stored: at most {MAX_PAYLOAD_BYTES[kind]} are allowed"
        )
    table: list[bytes] = []
    stored: list[Buffer] = []
    hasher = blake3()
    for view in views:
        data, encoding = _compress(view, level)
        hasher.update(data)
        stored.append(data)
        table.append(SEGMENT.pack(len(data), view.nbytes, encoding))
    fixed = FIXED.pack(
        MAGIC,
        KIND_CODES[kind],
        version,
        len(views),
        _RELATIVE if relative else 0,
        form,
        bytes.fromhex(id),
        bytes.fromhex(relative) if relative else _NO_ID,
        hasher.digest(),
    )
    head = b"".join((fixed, *table))
    pieces = (head + blake3(head).digest(CHECK_BYTES), *stored)
    return PackedRecord(kind, id, pieces, sum(map(len, pieces)), raw_bytes)


def parse_header(buffer: Buffer, where: str) -> Header:
    """The header at the start of `buffer`; raises `IntegrityError` naming `where` if its check is wrong."""
    view = memoryview(buffer)
    if view.nbytes < FIXED.size + CHECK_BYTES:
        raise IntegrityError(f"{where}: the bytes end inside a record", file=where, hint=LISTED_BY_FSCK)
    magic, code, version, count, flags, form, id, relative, digest = FIXED.unpack_from(view)
    end = FIXED.size + count * SEGMENT.size
    if magic != MAGIC or count > MAX_SEGMENTS or view.nbytes < end + CHECK_BYTES:
        raise IntegrityError(
            f"{where}: the bytes at the start of a record are damaged", file=where, hint=LISTED_BY_FSCK
        )
    if blake3(view[:end]).digest(CHECK_BYTES) != view[end : end + CHECK_BYTES]:
        raise IntegrityError(f"{where}: the header of a record is damaged", file=where, hint=LISTED_BY_FSCK)
    if not 1 <= code <= len(KINDS) or flags not in (0, _RELATIVE):
        raise IntegrityError(f"{where}: a record of an unknown kind; {_NEWER}", file=where)
    segments = tuple(SEGMENT.iter_unpack(view[FIXED.size : end]))
    for stored, raw, encoding in segments:
        if encoding not in (RAW, ZSTD):
            raise IntegrityError(
                f"{where}: a segment is malformed or has a new encoding; {_NEWER}", file=where
            )
        if encoding == RAW and stored != raw:
            raise IntegrityError(
                f"{where}: a segment of a record is malformed", file=where, hint=LISTED_BY_FSCK
            )
    return Header(
        kind=KINDS[code - 1],
        version=version,
        id=id.hex(),
        form=form,
        relative=relative.hex() if flags else None,
        digest=digest,
        segments=segments,
    )


def only_payload(data: bytes, kind: str) -> bytes | None:
    """The payload of a record of one raw segment, its header verified; None for every other record.

    Nothing verifies the payload here: the caller computes its id.
    """
    end = FIXED.size + SEGMENT.size
    if len(data) < end + CHECK_BYTES or not data.startswith(MAGIC) or data[4] != KIND_CODES[kind]:
        return None
    if (
        data[6] != 1
        or data[end - 1] != RAW
        or blake3(data[:end]).digest(CHECK_BYTES) != data[end : end + CHECK_BYTES]
    ):
        return None
    return data[end + CHECK_BYTES :]


def verify_stored(header: Header, buffer: Buffer, where: str) -> memoryview:
    """The stored bytes of a record, verified against its header's BLAKE3.

    `buffer` is exactly the whole record.
    """
    view = memoryview(buffer)
    if view.nbytes != header.length:
        raise _damaged(header, where, f"has {view.nbytes} bytes instead of {header.length}")
    body = view[header.header_bytes :]
    if blake3(body).digest() != header.digest:
        raise _damaged(header, where, "is damaged")
    return body


def check_size(header: Header, max_raw: int | None, where: str) -> None:
    """`IntegrityError` for a record of more raw bytes than `max_raw`, or than its kind may have."""
    largest = MAX_PAYLOAD_BYTES[header.kind]
    most = largest if max_raw is None else min(largest, max_raw)
    if header.raw_bytes > most or header.stored_bytes > largest:
        declared = max(header.raw_bytes, header.stored_bytes)
        raise _damaged(header, where, f"declares {declared} bytes, more than the {most} it may have")


def unpack_record(
    buffer: Buffer,
    *,
    expect_id: str,
    expect_kind: str | None,
    max_raw: int | None = None,
    where: str = "record",
) -> Record:
    """Verifies and decompresses one whole record.

    Raises `IntegrityError` naming kind, id and `where` if the record is of another object, is damaged, has
    more than `max_raw` raw bytes or more than its kind may have, or holds a frame that its header does not
    describe exactly. Raw segments are views into `buffer`.
    """
    header = parse_header(buffer, where)
    if header.id != expect_id or (expect_kind is not None and header.kind != expect_kind):
        raise IntegrityError(
            f"{where}: holds {header.kind} {header.id[:12]} "
            f"where {expect_kind or 'object'} {expect_id[:12]} should be",
            kind=expect_kind,
            id=expect_id,
            file=where,
        )
    check_size(header, max_raw, where)
    body = verify_stored(header, buffer, where)
    parts: list[Buffer] = []
    offset = 0
    for stored, raw, encoding in header.segments:
        piece = body[offset : offset + stored]
        parts.append(piece if encoding == RAW else _decompress(piece, raw, header, where))
        offset += stored
    return Record(
        header.kind, header.version, header.id, header.form, header.relative, tuple(parts), header.length
    )


def _damaged(header: Header, where: str, what: str) -> IntegrityError:
    return IntegrityError(
        f"{header.kind} {header.id[:12]} in {where} {what}", kind=header.kind, id=header.id, file=where
    )


def _bytes_of(segment: Any) -> memoryview:
    view = memoryview(segment)
    if not view.nbytes:
        return memoryview(b"")
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def _compress(view: memoryview, level: str) -> tuple[bytes, int]:
    if view.nbytes < (SMALL_RAW_BYTES if level == "small" else 64):
        return bytes(view), RAW
    frame = _compressor(level).compress(view)
    if len(frame) * 100 > view.nbytes * 97:
        return bytes(view), RAW
    return frame, ZSTD


def _decompress(frame: memoryview, raw: int, header: Header, where: str) -> bytes:
    import zstandard

    try:
        parameters = zstandard.get_frame_parameters(frame)
    except zstandard.ZstdError as error:
        raise _damaged(header, where, f"holds no zstd frame: {error}") from None
    if parameters.content_size != raw:
        raise _damaged(header, where, "holds a zstd frame of another size than declared")
    if parameters.dict_id or parameters.window_size > ZSTD_WINDOW_BYTES:
        raise _damaged(header, where, "holds a zstd frame that asks for a dictionary or too large a window")
    try:
        data = _decompressor().decompress(frame, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as error:
        raise _damaged(header, where, f"holds a malformed zstd frame: {error}") from None
    if len(data) != raw:
        raise _damaged(header, where, "holds a zstd frame of another size than declared")
    return data


def _compressor(level: str) -> zstandard.ZstdCompressor:
    found: zstandard.ZstdCompressor | None = getattr(_local, level, None)
    if found is None:
        import zstandard

        if level == "bulk":
            parameters = zstandard.ZstdCompressionParameters.from_level(
                1, min_match=7, hash_log=6, write_content_size=True, write_checksum=False
            )
            found = zstandard.ZstdCompressor(compression_params=parameters)
        elif level == "small":
            found = zstandard.ZstdCompressor(level=3, write_content_size=True, write_checksum=False)
        else:
            raise ValueError(f"no such level: {level}")
        setattr(_local, level, found)
    return found


def _decompressor() -> zstandard.ZstdDecompressor:
    found: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if found is None:
        import zstandard

        found = _local.decompressor = zstandard.ZstdDecompressor()
    return found
