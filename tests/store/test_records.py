"""Records: bytes come back, and nothing is decompressed that was not verified and bounded."""

from __future__ import annotations

import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from persona.errors import IntegrityError
from persona.objects.ids import KINDS, object_id
from persona.store import records
from persona.store.records import PackedRecord, pack_record, unpack_record

ID = object_id("delta", b"x")
OTHER = object_id("delta", b"y")


def joined(record: PackedRecord) -> bytes:
    return b"".join(record.pieces)


def forged(frame: bytes, raw: int, *, encoding: int = records.ZSTD) -> bytes:
    """A record whose checks hold and whose only segment is `frame`."""
    head = records.FIXED.pack(
        records.MAGIC, 2, 1, 1, 0, 7, bytes.fromhex(ID), bytes(32), blake3(frame).digest()
    ) + records.SEGMENT.pack(len(frame), raw, encoding)
    return head + blake3(head).digest(records.CHECK_BYTES) + frame


def unpack(data: bytes, max_raw: int = 1 << 24) -> records.Record:
    return unpack_record(data, expect_id=ID, expect_kind="delta", max_raw=max_raw)


segments = st.lists(
    st.one_of(
        st.binary(max_size=300), st.builds(lambda b, n: b * n, st.binary(max_size=3), st.integers(0, 9000))
    ),
    max_size=16,
)


@given(
    segments=segments,
    kind=st.sampled_from(KINDS),
    form=st.integers(0, 2**32 - 1),
    version=st.integers(1, 255),
    relative=st.one_of(st.none(), st.just(OTHER)),
    level=st.sampled_from(["bulk", "small"]),
)
def test_a_record_comes_back_as_it_went_in(
    segments: list[bytes], kind: str, form: int, version: int, relative: str | None, level: str
) -> None:
    packed = pack_record(kind, ID, form, segments, relative=relative, level=level, version=version)
    data = joined(packed)
    assert packed.length == len(data)
    record = unpack_record(data, expect_id=ID, expect_kind=kind, max_raw=packed.raw_bytes)
    assert [bytes(segment) for segment in record.segments] == segments
    assert (record.kind, record.id, record.form) == (kind, ID, form)
    assert (record.version, record.relative, record.stored_bytes) == (version, relative, len(data))


def test_arrays_are_taken_and_copied() -> None:
    import numpy as np

    array = np.arange(64, dtype=np.uint16)
    before = array.tobytes()
    packed = pack_record("delta", ID, 0, [array, np.zeros((0,), np.uint8)])
    array[:] = 0
    assert [bytes(segment) for segment in unpack(joined(packed)).segments] == [before, b""]


def test_what_zstd_hardly_shortens_stays_raw() -> None:
    import random

    noise = random.Random(1).randbytes(10_000)
    assert pack_record("delta", ID, 0, [noise + bytes(200)]).length > 10_200
    assert pack_record("delta", ID, 0, [noise + bytes(2000)]).length < 10_500


def test_threads_share_nothing() -> None:
    def round_trip(seed: int) -> bool:
        data = bytes([seed]) * 50_000
        return bytes(unpack(joined(pack_record("delta", ID, 0, [data]))).segments[0]) == data

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(round_trip, range(64)))


def test_every_changed_byte_is_found() -> None:
    data = joined(pack_record("delta", ID, 3, [b"abc" * 100, b"xyz"], relative=OTHER))
    for place in range(len(data)):
        for bit in (0, 7):
            bad = bytearray(data)
            bad[place] ^= 1 << bit
            with pytest.raises(IntegrityError):
                unpack(bytes(bad))


@pytest.mark.parametrize("cut", [0, 1, 107, -1])
def test_a_cut_or_extended_record_is_refused(cut: int) -> None:
    data = joined(pack_record("delta", ID, 3, [b"abc" * 100]))
    with pytest.raises(IntegrityError):
        unpack(data[:cut])
    with pytest.raises(IntegrityError):
        unpack(data + b"\x00")


def test_another_id_or_kind_is_refused_by_name() -> None:
    data = joined(pack_record("delta", OTHER, 3, [b"abc"]))
    with pytest.raises(IntegrityError, match=OTHER[:12]) as caught:
        unpack(data)
    assert caught.value.id == ID
    with pytest.raises(IntegrityError, match="chunk"):
        unpack(joined(pack_record("chunk", ID, 3, [b"abc"])))


def frame(data: bytes, **options: int | bool) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, **options)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def lying(size: int, data: bytes = bytes(1000)) -> bytes:
    """A frame whose header declares `size` bytes: a single segment with an 8-byte content size."""
    honest = frame(data, write_content_size=False, window_log=10)
    assert honest[4] & 0xE0 == 0
    return honest[:4] + bytes([honest[4] | 0xC0]) + honest[5:6] + struct.pack("<Q", size) + honest[6:]


GOOD = frame(bytes(1000))

BAD_FRAMES = {
    "a bomb that declares its size": (frame(bytes(1 << 26)), 1000),
    "no declared size": (frame(bytes(1000), write_content_size=False), 1000),
    "a size below the truth": (lying(500), 500),
    "a size above the truth": (lying(1 << 20), 1 << 20),
    "a size of exabytes": (lying(1 << 62), 1000),
    "a window of 64 MiB": (frame(bytes(1 << 25), window_log=26, write_content_size=True), 1 << 25),
    "a second frame": (GOOD + GOOD, 1000),
    "a second, empty frame": (GOOD + frame(b""), 1000),
    "a skippable frame behind": (GOOD + b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd", 1000),
    "a skippable frame alone": (b"\x50\x2a\x4d\x18\xe8\x03\x00\x00" + bytes(1000), 1000),
    "trailing bytes": (GOOD + b"\x00", 1000),
    "a cut": (GOOD[:-1], 1000),
    "only a header": (GOOD[:6], 1000),
    "no frame": (b"not zstd at all", 1000),
    "nothing": (b"", 1000),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_frame_that_is_not_what_its_record_declares_is_refused(name: str) -> None:
    data, raw = BAD_FRAMES[name]
    with pytest.raises(IntegrityError, match="zstd"):
        unpack(forged(data, raw), max_raw=1 << 26)


def test_an_honest_forgery_is_taken() -> None:
    assert unpack(forged(GOOD, 1000)).segments == (bytes(1000),)


def test_the_callers_bound_holds_before_anything_is_decompressed() -> None:
    with pytest.raises(IntegrityError, match="more than the 999"):
        unpack(forged(b"not zstd at all", 1000), max_raw=999)
    with pytest.raises(IntegrityError, match="more than"):
        unpack(forged(GOOD, 1 << 60))


def test_an_unknown_encoding_or_a_raw_segment_of_two_lengths_is_refused() -> None:
    with pytest.raises(IntegrityError, match="malformed"):
        unpack(forged(GOOD, 1000, encoding=2))
    with pytest.raises(IntegrityError, match="malformed"):
        unpack(forged(b"abc", 4, encoding=records.RAW))


@given(data=st.binary(max_size=400))
def test_only_integrity_errors_leave_the_reader(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        unpack(data)
    with pytest.raises(IntegrityError):
        unpack(records.MAGIC + data)


def test_small_records_and_the_store_itself_need_neither_numpy_nor_zstandard() -> None:
    program = (
        "import sys; from persona.store import records, store; from persona.objects.ids import object_id;"
        "p = records.pack_record('blob', object_id('blob', b'x'), 0, [b'x' * 4000], level='small');"
        "records.unpack_record(b''.join(p.pieces), expect_id=p.id, expect_kind='blob', max_raw=4000);"
        "sys.exit(bool({'numpy', 'zstandard', 'ctypes', 'json.tool'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
