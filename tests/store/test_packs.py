"""Packs and their indexes: what is half there, made to mislead, or stored twice."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from blake3 import blake3

from persona import limits
from persona.errors import IntegrityError, InvalidInput
from persona.objects.ids import object_id
from persona.store import index, pack, records
from persona.store.check import problems
from persona.store.files import replaced_calls
from persona.store.index import Entry, Index
from persona.store.pack import MAGIC, PackWriter
from persona.store.records import pack_record
from persona.store.store import Store
from tests.disks import Quick
from tests.store.samples import check_commit, chunk, commit, commit_bytes, noise, packs_of


def fresh(store: Store) -> Store:
    """The store as another process sees it."""
    return Store.open(store.worktree)


@contextmanager
def little_memory(nbytes: int = 1 << 30) -> Iterator[None]:
    """Allows so many bytes of address space more than are in use."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits_before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + nbytes, limits_before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits_before)


# -- an index that is not the pack's


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_a_pack_that_is_seen_half_copied_is_whole_once_it_is_copied(store: Store, share: float) -> None:
    commit(store, 1, bulk=12)
    (path,) = packs_of(store)
    data, idx = path.read_bytes(), path.with_suffix(".idx")
    idx.unlink()
    path.write_bytes(data[: int(len(data) * share)])
    seen = fresh(store).objects
    assert len({id for id, _, _ in seen.iterate()}) < 15
    assert not idx.exists()
    path.write_bytes(data)
    check_commit(fresh(store), 1, bulk=12)
    assert list(fresh(store).problems()) == []


def test_an_index_of_a_part_of_its_pack_is_refused_by_the_length_it_names(store: Store) -> None:
    commit(store, 1, bulk=12)
    (path,) = packs_of(store)
    entries = sorted(store.objects.open_packs()[path.stem].index(), key=lambda entry: entry.offset)
    part = Index.of(entries[:3], path.stem, path.stat().st_size - 1)
    path.with_suffix(".idx").write_bytes(part.data)
    check_commit(fresh(store), 1, bulk=12)
    assert list(fresh(store).problems()) == []


def test_an_index_that_lacks_objects_of_its_pack_is_made_anew_when_one_is_missed(store: Store) -> None:
    commit(store, 1, bulk=12)
    (path,) = packs_of(store)
    idx = path.with_suffix(".idx")
    good = idx.read_bytes()
    entries = sorted(store.objects.open_packs()[path.stem].index(), key=lambda entry: entry.offset)
    idx.write_bytes(Index.of(entries[:3], path.stem, path.stat().st_size).data)
    check_commit(fresh(store), 1, bulk=12)
    assert idx.read_bytes() == good


def test_no_index_is_written_from_records_alone(store: Store) -> None:
    commit(store, 1)
    (path,) = packs_of(store)
    idx = path.with_suffix(".idx")
    idx.unlink()
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    check_commit(fresh(store), 1)
    assert not idx.exists()


def test_no_index_is_written_into_a_store_of_a_newer_format(store: Store) -> None:
    commit(store, 1)
    (path,) = packs_of(store)
    path.with_suffix(".idx").unlink()
    (store.root / "format").write_text("persona 2\n")
    check_commit(fresh(store), 1)
    assert not path.with_suffix(".idx").exists()


# -- names of packs


def fill(store: Store, seeds: list[int]) -> PackWriter:
    writer = PackWriter(store.objects.tmp_dir)
    for seed in seeds:
        writer.append(chunk(seed))
    return writer


def test_a_pack_of_the_same_ids_never_takes_the_place_of_another(store: Store) -> None:
    first, second = fill(store, [1, 2, 3]), fill(store, [3, 1, 2])
    first.publish(store.objects.packs_dir)
    (path,) = packs_of(store)
    before = path.read_bytes()
    second.publish(store.objects.packs_dir)
    assert len(packs_of(store)) == 2
    assert path.read_bytes() == before
    assert list(fresh(store).problems()) == []


def test_a_pack_that_appears_between_the_look_and_the_naming_is_not_replaced(store: Store) -> None:
    class Racing(Quick):
        """Another process publishes a pack of the same ids right before the name is given."""

        raced = False

        def link(self, source: Path, target: Path) -> None:
            if not self.raced:
                self.raced = True
                target.write_bytes(b"another pack of this name")
            super().link(source, target)

    with replaced_calls(Racing()):
        fill(store, [1, 2]).publish(store.objects.packs_dir)
    assert sorted(path.read_bytes()[:7] for path in packs_of(store)) == [b"another", MAGIC[:7]]
    assert fresh(store).objects.read(chunk(1).id, "delta").segments[0] == noise(1)


def test_the_same_pack_made_twice_is_stored_once(store: Store) -> None:
    for writer in [fill(store, [1, 2]), fill(store, [1, 2])]:
        writer.publish(store.objects.packs_dir)
    assert len(packs_of(store)) == 1
    assert os.listdir(store.objects.tmp_dir) == []


def test_packs_get_their_names_where_the_file_system_has_no_hard_links(store: Store) -> None:
    class NoLinks(Quick):
        def link(self, source: Path, target: Path) -> None:
            raise PermissionError(1, "Operation not permitted")

    with replaced_calls(NoLinks()):
        commit(store, 1)
    check_commit(fresh(store), 1)
    assert os.listdir(store.objects.tmp_dir) == []


# -- many packs


def test_a_transaction_holds_few_files_open_and_keeps_full_packs_when_it_fails(store: Store) -> None:
    most = 0

    class Watching(Quick):
        """Counts the descriptors of outputs that are open together."""

        held: set[int]

        def __init__(self) -> None:
            super().__init__()
            self.held = set()

        def open(self, path: Path, flags: int, mode: int = 0o666) -> int:
            nonlocal most
            fd = super().open(path, flags, mode)
            if flags & os.O_CREAT:
                self.held.add(fd)
                most = max(most, len(self.held))
            return fd

        def close(self, fd: int) -> None:
            super().close(fd)
            self.held.discard(fd)

    def cut_short() -> None:
        with store.transaction() as transaction:
            transaction.pack_cap = 2 * chunk(0).length + 100
            for seed in range(40):
                transaction.append(chunk(seed))
            raise ZeroDivisionError

    with replaced_calls(Watching()), pytest.raises(ZeroDivisionError):
        cut_short()
    assert most <= 3
    with fresh(store).transaction() as transaction:
        again = [transaction.append(chunk(seed)) for seed in range(40)]
    assert again.count(True) <= 2
    assert list(fresh(store).problems(full=True)) == []
    assert os.listdir(store.objects.tmp_dir) == []


def test_of_many_packs_only_those_are_asked_that_can_hold_an_object(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.transaction() as transaction:
        transaction.pack_cap = 2 * chunk(0).length + 100
        for seed in range(120):
            transaction.append(chunk(seed))
    objects = fresh(store).objects
    asked: list[str] = []
    find = pack.Pack.find
    monkeypatch.setattr(pack.Pack, "find", lambda one, id: asked.append(id) or find(one, id))
    assert len(objects.open_packs()) == 60
    assert all(chunk(seed).id in objects for seed in range(120))
    assert len(asked) < 150
    assert "12" * 32 not in objects
    with fresh(store).transaction() as transaction:
        transaction.append(chunk(1000))
    assert objects.read(chunk(1000).id, "delta").segments[0] == noise(1000)


# -- records that are right by their own hash and wrong by their id


@pytest.mark.parametrize("known", ["by its segments", "by its id"])
@pytest.mark.parametrize("form", [7, 9])
def test_a_wrong_record_of_a_right_hash_is_healed_by_storing_the_object_again(
    store: Store, known: str, form: int
) -> None:
    right = chunk(1)
    wrong = pack_record("delta", right.id, form, [noise(2), bytes(200)], relative="ab" * 32)
    store.cache("thresholds").write(b"computed from the wrong one")
    with store.transaction() as transaction:
        transaction.append(wrong)
        transaction.append(chunk(3))
    payload_of = (lambda record: record.segments) if known == "by its id" else None
    assert [p.healed for p in fresh(store).problems(True, lambda record: record.segments)] == [False]
    with fresh(store).transaction(payload_of) as transaction:
        assert transaction.append(right) is True
        assert transaction.append(chunk(3)) is False
    healed = fresh(store)
    assert healed.objects.read(right.id, "delta").segments[0] == noise(1)
    assert healed.cache("thresholds").read() is None
    assert {p.healed for p in healed.problems(True, lambda record: record.segments)} == {True}
    with fresh(store).transaction(payload_of) as transaction:
        assert transaction.append(right) is False


def test_another_compression_of_the_same_object_is_not_stored_again(store: Store) -> None:
    segments = [bytes(5000), bytes(300)]
    id = object_id("delta", *segments)
    with store.transaction() as transaction:
        transaction.append(pack_record("delta", id, 7, segments, level="small"))
    for payload_of in (None, lambda record: record.segments):
        with fresh(store).transaction(payload_of) as transaction:
            assert transaction.append(pack_record("delta", id, 7, segments)) is False


# -- what may be stored, and what may be believed


@pytest.mark.parametrize("kind", ["base", "vector", "recipe", "tree", "commit", "tag", "note"])
def test_what_no_reader_would_take_is_not_stored(store: Store, kind: str) -> None:
    for payload in (b"", b"{}", b'{"a":1}', commit_bytes(1) + b" ", b"\xff"):
        with store.transaction() as transaction, pytest.raises(InvalidInput, match=kind):
            transaction.put(kind, payload)
    assert store.objects.counts()[0] == 0


@pytest.mark.parametrize("kind", ["commit", "tree", "blob", "recipe"])
def test_an_object_of_more_bytes_than_its_kind_may_have_is_neither_stored_nor_read(
    store: Store, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = limits.MAX_PAYLOAD_BYTES[kind] + 1
    with pytest.raises(InvalidInput, match=kind):
        pack_record(kind, "ab" * 32, 0, [bytes(size)], level="small")
    id = object_id(kind, bytes(size))
    with monkeypatch.context() as patch:
        patch.setattr(records, "MAX_PAYLOAD_BYTES", {kind: 1 << 40})
        record = pack_record(kind, id, 0, [bytes(size)], level="small")
    assert record.length < 100_000
    path = store.objects.loose_dir / id[:2] / id[2:]
    path.parent.mkdir()
    path.write_bytes(b"".join(record.pieces))
    with little_memory(16 << 20), pytest.raises(IntegrityError, match="more than"):
        store.objects.get(id, kind)
    assert [problem.id for problem in store.problems()] == [id]


def sparse(store: Store, length: int, footer: bytes, name: str = "ab" * 32) -> Path:
    """A pack of `length` bytes, all holes but for its beginning and its end."""
    path = store.objects.packs_dir / f"{name}.pack"
    with path.open("wb") as file:
        file.write(MAGIC)
        file.truncate(length - len(footer))
        file.seek(length - len(footer))
        file.write(footer)
    return path


def test_a_sparse_pack_costs_no_memory_and_is_named(store: Store) -> None:
    commit(store, 1)
    length, name = 60 << 30, "ab" * 32
    entry = Entry("cd" * 32, "delta", len(MAGIC), length - 5000)
    whole = index.encode_footer([entry], name)
    lying = struct.pack("<Q", length // 60) + bytes.fromhex(name)
    lying += blake3(b"whatever").digest() + b"PVF1"
    for footer in (whole, lying):
        path = sparse(store, length, footer)
        path.with_suffix(".idx").write_bytes(Index.of([entry], name, length).data)
        with little_memory():
            objects = fresh(store).objects
            check_commit(fresh(store), 1)
            with pytest.raises(IntegrityError):
                objects.read("cd" * 32, "delta")
            assert str(path) in {problem.file for problem in problems(objects, full=True)}


def test_a_sparse_index_costs_no_memory(store: Store) -> None:
    commit(store, 1)
    (path,) = packs_of(store)
    path.with_suffix(".idx").write_bytes(b"PVI1")
    os.truncate(path.with_suffix(".idx"), 60 << 30)
    with little_memory():
        check_commit(fresh(store), 1)


def test_a_pack_takes_no_more_records_than_a_reader_believes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "MAX_PACK_RECORDS", 3)
    with store.transaction() as transaction:
        for seed in range(7):
            transaction.append(chunk(seed))
    assert len(packs_of(store)) == 3
    assert list(fresh(store).problems()) == []
