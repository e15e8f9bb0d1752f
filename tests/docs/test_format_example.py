"""docs/format.md's worked example, and what its tables say, against the code."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from persona.codec.base import decode_base, encode_base
from persona.codec.delta import Scratch, decode_delta, delta_payload, encode_delta, exponent_order, restore
from persona.objects.digest import weights_digest
from persona.objects.ids import KINDS, object_id
from persona.objects.table import decode_table
from persona.objects.vector import Vector
from persona.store import records
from persona.store.refs import Reason
from persona.store.store import Store
from tests.docs.pages import blocks, from_hex, table

EXAMPLE = blocks("format.md")
LINES = {name: from_hex(text) for name, text in EXAMPLE.items() if name.startswith("hex ")}
IDS = {name: text.strip() for name, text in EXAMPLE.items() if name.startswith("id ")}


def elements(name: str) -> np.ndarray:
    return np.frombuffer(b"".join(LINES[f"hex {name}"]), np.uint16)


def form(name: str) -> int:
    return int.from_bytes(LINES[f"hex {name}"][0], "little")


BASE, AFTER, Z = elements("base"), elements("after"), elements("z")
RECORD = b"".join(LINES["hex delta-record"])


def test_the_base_chunk_has_this_id_form_and_these_segments() -> None:
    assert object_id("chunk", BASE.tobytes()) == IDS["id chunk"]
    found, segments = encode_base(BASE, "BF16")
    assert (found, [bytes(segment) for segment in segments]) == (
        form("base-form"),
        LINES["hex base-segments"],
    )
    out = np.empty_like(BASE)
    decode_base(found, LINES["hex base-segments"], out)
    assert (out == BASE).all()


def test_the_vector_chunk_has_these_values_this_id_and_these_segments() -> None:
    made = encode_delta(BASE, AFTER, "BF16", Scratch())
    assert (made.z == Z).all()
    assert object_id("delta", bytes.fromhex(IDS["id chunk"]), Z.tobytes()) == IDS["id delta"]
    assert b"".join(bytes(memoryview(part)) for part in delta_payload(IDS["id chunk"], Z)) == (
        bytes.fromhex(IDS["id chunk"]) + Z.tobytes()
    )
    assert [bytes(segment) for segment in made.segments] == LINES["hex delta-segments"]


@pytest.mark.parametrize("name", ["delta-segments", "delta-segments-in-two-groups"])
def test_the_segments_give_the_fine_tune_back(name: str) -> None:
    order, sorted_base = np.empty(BASE.size, np.uint32), np.empty_like(BASE)
    exponent_order(BASE, "BF16", order, sorted_base)
    z, out = np.empty_like(BASE), np.empty_like(BASE)
    decode_delta(records.parse_header(RECORD, "").form, LINES[f"hex {name}"], z)
    assert (z == Z[order]).all()
    restore(sorted_base, z, order, out)
    assert (out == AFTER).all()


def test_z_follows_from_both_sides_as_the_page_says() -> None:
    def mono(x: int) -> int:
        return x ^ 0xFFFF if x & 0x8000 else x ^ 0x8000

    for before, after, z in zip(BASE.tolist(), AFTER.tolist(), Z.tolist(), strict=True):
        d = (mono(after) - mono(before)) & 0xFFFF
        signed = d - 0x10000 if d & 0x8000 else d
        assert z == ((signed << 1) ^ (signed >> 15)) & 0xFFFF


def test_the_record_is_what_the_store_writes_and_reads() -> None:
    made = records.pack_record(
        "delta",
        IDS["id delta"],
        int.from_bytes(LINES["hex delta-record"][5], "little"),
        LINES["hex delta-segments"],
        relative=IDS["id chunk"],
    )
    assert b"".join(bytes(piece) for piece in made.pieces) == RECORD
    read = records.unpack_record(RECORD, expect_id=IDS["id delta"], expect_kind="delta", max_raw=100)
    assert read.relative == IDS["id chunk"]
    assert [bytes(segment) for segment in read.segments] == LINES["hex delta-segments"]


def test_the_fields_of_a_record_lie_where_the_table_puts_them() -> None:
    rows = table("format.md", "offset")
    n = RECORD[6]
    places = {row[2].split(":")[0]: eval(row[0].replace("·", "*"), {"n": n}) for row in rows}
    assert RECORD[: places["code of the kind"]] == b"PVR1"
    assert RECORD[places["code of the kind"]] == 1 + KINDS.index("delta")
    assert RECORD[places["id"] :][:32].hex() == IDS["id delta"]
    assert RECORD[places["id of the base chunk of a delta; else zeros"] :][:32].hex() == IDS["id chunk"]
    start = places["the segments"]
    assert RECORD[start:] == b"".join(LINES["hex delta-segments"])
    assert RECORD[places["BLAKE3 of all that follows the header"] :][:32] == blake3(RECORD[start:]).digest()
    assert RECORD[start - 16 : start] == blake3(RECORD[: start - 16]).digest()[:16]
    assert struct.unpack_from("<QQB", RECORD, places["for each segment"]) == (8, 8, 0)
    sizes = [int(row[1]) for row in rows if row[1].isdigit()]
    assert sum(sizes) == places["the segments"] - 17 * n


def test_kinds_have_the_codes_of_the_table() -> None:
    assert [row[1] for row in table("format.md", "code")[:4]] == list(KINDS[:4])
    assert table("format.md", "code")[4][1].split() == list(KINDS[4:])


def test_the_vector_is_bound_to_the_base_and_names_its_chunk() -> None:
    payload = EXAMPLE["text vector"].strip().encode()
    vector = Vector.decode(payload)
    assert object_id("vector", payload) == IDS["id vector"]
    assert vector.table == object_id("table", b"".join(LINES["hex table"]))
    found = decode_table(b"".join(LINES["hex table"]), vector.tensors, vector.chunk)
    assert found.chunks("w") == [IDS["id delta"]]
    digest = blake3(blake3(BASE.tobytes()).digest()).digest()
    assert vector.base == weights_digest([("w", "BF16", (10,), digest)])


def test_the_ref_and_its_reflog_are_what_a_store_writes(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    name, text = "refs/heads/main", EXAMPLE["text refs/heads/main"]
    line = EXAMPLE[f"text logs/{name}"]
    who, rest = line.split(" ", 3)[3].split("> ")
    when, why = rest.rstrip("\n").split("\t")
    seconds, _ = when.split()
    reason = Reason(f"{who}>", (int(seconds), 60), why)
    store.refs.update(name, text.splitlines()[0], reason, expect=None)
    assert (store.root / name).read_text() == text
    assert (store.root / "logs" / name).read_text() == line


def test_state_and_cache_carry_the_checks_of_the_page(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    store.state("weights").write({"a": 1})
    check, _, text = (store.root / "state/weights.json").read_bytes().partition(b"\n")
    assert check == b"blake3:" + blake3(b"state\x00weights\x00" + text).hexdigest().encode()
    store.cache("x/y").write(b"data")
    assert (store.root / "cache/x/y").read_bytes() == blake3(b"cache\x00x/y\x00data").digest() + b"data"


def test_a_pack_is_what_the_page_says(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    with store.transaction() as tx:
        for text in (b"b", b"a"):
            tx.append(records.pack_record("blob", object_id("blob", text), 0, [text]))
    (pack,) = (store.root / "packs").glob("*.pack")
    (idx,) = (store.root / "packs").glob("*.idx")
    ids = [object_id("blob", text) for text in (b"b", b"a")]
    name = blake3(b"pack\x000\x00" + b"".join(sorted(map(bytes.fromhex, ids))))
    assert pack.stem == idx.stem == name.hexdigest()

    data = pack.read_bytes()
    assert data[:16] == b"persona pack 1\n\x00"
    length = 124 + 17 + 1
    offsets = [16, 16 + length]
    rows = b"".join(
        struct.pack("<32sBQQ", bytes.fromhex(id), 4, offset, length)
        for id, offset in zip(ids, offsets, strict=True)
    )
    head = rows + struct.pack("<Q", 2) + name.digest()
    assert data[16 + 2 * length :] == head + blake3(head).digest() + b"PVF1"

    places = sorted(zip(map(bytes.fromhex, ids), offsets, strict=True))
    counts = [sum(id[0] <= byte for id, _ in places) for byte in range(256)]
    body = struct.pack("<4s4xQQ32s256Q", b"PVI1", 2, len(data), name.digest(), *counts)
    body += b"".join(id for id, _ in places)
    body += b"".join(struct.pack("<BQQ", 4, offset, length) for _, offset in places)
    assert idx.read_bytes() == body + blake3(body).digest()
