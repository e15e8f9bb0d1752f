"""What the tests put into stores."""

from __future__ import annotations

import random
from pathlib import Path

from persona.objects.commit import Commit, Person
from persona.objects.ids import object_id
from persona.store.records import PackedRecord, pack_record
from persona.store.refs import ANY, Reason
from persona.store.store import Store


def reason(why: str) -> Reason:
    """Why a ref moves, by somebody, some time."""
    return Reason("Ada <ada@example.org>", (1_700_000_000, -330), why)


def id_of(number: int) -> str:
    """The id of a commit that is in no store."""
    return object_id("commit", b"%d" % number)


def packs_of(store: Store) -> list[Path]:
    """The files of a store's packs."""
    return sorted(store.objects.packs_dir.glob("*.pack"))


def noise(seed: int, count: int = 200) -> bytes:
    """Bytes that zstd cannot shorten."""
    return random.Random(seed).randbytes(count)


def chunk(seed: int, count: int = 200) -> PackedRecord:
    """A bulk record; the store takes its id on trust."""
    segments = [noise(seed, count), bytes(count)]
    id = object_id("delta", *segments)
    return pack_record("delta", id, 7, segments, relative="ab" * 32)


def commit_bytes(number: int) -> bytes:
    """The payload of commit `number`; what it names is not in the store."""
    who = Person("Ada", "ada@example.org", 1_700_000_000, -330)
    return Commit("ab" * 32, (), who, who, f"commit {number}\n").encode()


def commit(store: Store, number: int, *, bulk: int = 2) -> str:
    """What a commit of a vector does: chunks, a table, small objects, then HEAD's branch."""
    with store.transaction() as transaction:
        records = [chunk(1000 * number + i) for i in range(bulk)]
        for record in records:
            transaction.append(record)
        if records:
            transaction.put_bulk("table", b"".join(bytes.fromhex(record.id) for record in records))
        transaction.put("blob", b"text of commit %d" % number)
        id = transaction.put("commit", commit_bytes(number))
    store.refs.advance(id, reason(f"commit: number {number}"), expect=ANY)
    return id


def commit_id(number: int) -> str:
    """The id that `commit` returns."""
    return object_id("commit", commit_bytes(number))


def check_commit(store: Store, number: int, *, bulk: int = 2) -> None:
    """Reads back all of what `commit` stored."""
    assert store.objects.get(commit_id(number), "commit") == commit_bytes(number)
    text = b"text of commit %d" % number
    assert store.objects.get(object_id("blob", text), "blob") == text
    for i in range(bulk):
        record = chunk(1000 * number + i)
        assert [bytes(s) for s in store.objects.read(record.id, "delta", max_raw=400).segments] == [
            noise(1000 * number + i),
            bytes(200),
        ]
