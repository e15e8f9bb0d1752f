"""Objects, packs and transactions."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from persona.errors import IntegrityError, Refused
from persona.objects.ids import object_id
from persona.store import index
from persona.store.check import problems
from persona.store.files import replaced_calls
from persona.store.index import Entry, Index
from persona.store.records import pack_record
from persona.store.store import Store
from tests.disks import Quick
from tests.store.samples import check_commit, chunk, commit, commit_id, noise, packs_of


def test_what_a_transaction_took_can_be_read_by_another_process(store: Store) -> None:
    commit(store, 1)
    check_commit(Store.open(store.worktree), 1)
    assert list(Store.open(store.worktree).problems(full=True)) == []


def test_nothing_is_visible_before_the_transaction_ends_nor_after_one_that_failed(store: Store) -> None:

    def fail() -> None:
        with store.transaction() as transaction:
            transaction.append(chunk(1))
            transaction.put("blob", b"text")
            assert chunk(1).id not in Store.open(store.worktree).objects
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.objects.counts() == (0, 0, 0)
    assert os.listdir(store.root / "tmp") == []


def test_an_object_is_stored_once(store: Store) -> None:
    with store.transaction() as transaction:
        assert transaction.append(chunk(1)) is True
        assert transaction.append(chunk(1)) is False
        assert transaction.put("blob", b"text") == transaction.put("blob", b"text")
    before = store.objects.counts()
    with store.transaction() as transaction:
        assert transaction.append(chunk(1)) is False
        transaction.put("blob", b"text")
    assert store.objects.counts() == before
    assert before[:2] == (2, 1)


def test_a_full_pack_is_followed_by_another_in_the_same_transaction(store: Store) -> None:
    records = [chunk(seed) for seed in range(10)]
    with store.transaction() as transaction:
        transaction.pack_cap = 3 * records[0].length + 100
        for record in records:
            transaction.append(record)
    assert len(packs_of(store)) == 4
    assert all(store.objects.contains_intact(record.id) for record in records)
    assert list(store.problems()) == []


def test_many_threads_fill_one_transaction_and_read_it_back(store: Store) -> None:
    records = [chunk(seed % 40) for seed in range(80)]
    taken: list[bool] = []
    with store.transaction() as transaction:
        transaction.pack_cap = 8 * records[0].length

        def fill(part: int) -> None:
            taken.extend(transaction.append(record) for record in records[part::4])

        threads = [threading.Thread(target=fill, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(taken) == 40
    fresh = Store.open(store.worktree).objects
    wrong: list[str] = []

    def read(part: int) -> None:
        for record in records[part::4]:
            if fresh.read(record.id, "delta", max_raw=400).stored_bytes != record.length:
                wrong.append(record.id)

    threads = [threading.Thread(target=read, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert list(problems(fresh)) == []


def test_a_pack_that_another_process_added_is_found(store: Store) -> None:
    other = Store.open(store.worktree)
    assert other.objects.counts()[0] == 0
    commit(store, 1)
    check_commit(other, 1)


def test_what_the_store_says_of_its_objects(store: Store) -> None:
    id = commit(store, 1)
    objects = store.objects
    record = chunk(1000)
    assert objects.kind_of(id) == "commit"
    assert objects.kind_of(record.id) == "delta"
    assert objects.kind_of("1" * 64) is None
    assert objects.stored_bytes(record.id) == record.length
    assert record.id in objects
    assert "1" * 64 not in objects
    listed = sorted((found, kind) for found, kind, _ in objects.iterate())
    assert len(listed) == 5
    for found, kind in listed:
        for digits in (1, 5, 64):
            assert (found, kind) in objects.ids_with_prefix(found[:digits])
    assert (
        objects.ids_with_prefix("")
        == objects.ids_with_prefix("xyz")
        == objects.ids_with_prefix("0" * 65)
        == []
    )
    on_disk = sum(
        p.stat().st_size for f in ("packs", "objects") for p in (store.root / f).rglob("*") if p.is_file()
    )
    assert objects.counts() == (5, 1, on_disk)


def test_a_missing_object_is_named(store: Store) -> None:
    with pytest.raises(IntegrityError, match=f"commit {'1' * 12} is missing") as caught:
        store.objects.get("1" * 64, "commit")
    assert (caught.value.object_kind, caught.value.id) == ("commit", "1" * 64)
    with pytest.raises(IntegrityError):
        store.objects.stored_bytes("1" * 64)
    with pytest.raises(IntegrityError, match="not an object id"):
        store.objects.get("../../etc/passwd", "blob")


def test_an_object_of_another_kind_is_refused(store: Store) -> None:
    id = commit(store, 1)
    with pytest.raises(IntegrityError, match="tree"):
        store.objects.get(id, "tree")


def test_a_small_object_that_is_not_what_its_id_says_is_refused_and_healed(store: Store) -> None:
    id = object_id("blob", b"right")
    forged = b"".join(pack_record("blob", id, 0, [b"wrong"], level="small").pieces)
    path = store.root / "objects" / id[:2] / id[2:]
    path.parent.mkdir()
    path.write_bytes(forged)
    with pytest.raises(IntegrityError, match="not what its id says"):
        store.objects.get(id, "blob")
    assert [problem.id for problem in store.problems()] == [id]
    with store.transaction() as transaction:
        transaction.put("blob", b"right")
    assert store.objects.get(id, "blob") == b"right"
    assert list(store.problems()) == []


def test_a_full_check_verifies_what_the_codec_decodes(store: Store) -> None:
    good = chunk(1)
    lie = pack_record("delta", "5" * 64, 7, [b"anything"])
    with store.transaction() as transaction:
        transaction.append(good)
        transaction.append(lie)
    assert list(store.problems()) == []
    found = list(store.problems(full=True, payload_of=lambda record: record.segments))
    assert [(problem.kind, problem.id, problem.healed) for problem in found] == [("delta", "5" * 64, False)]


def test_storing_a_damaged_chunk_again_heals_it_in_a_new_pack(store: Store) -> None:
    records = [chunk(1), chunk(2)]

    def store_all() -> None:
        with Store.open(store.worktree).transaction() as transaction:
            for record in records:
                transaction.append(record)

    store_all()
    (pack,) = packs_of(store)
    data = bytearray(pack.read_bytes())
    data[len(data) // 4] ^= 1
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    fresh = Store.open(store.worktree).objects
    assert not any(fresh.contains_intact(record.id) for record in records)
    with pytest.raises(IntegrityError, match=records[0].id[:12]) as caught:
        fresh.read(records[0].id, "delta", max_raw=400)
    assert caught.value.file == str(pack)
    store_all()
    assert len(packs_of(store)) == 2
    healed = Store.open(store.worktree).objects
    assert all(healed.read(record.id, "delta", max_raw=400) for record in records)
    assert {problem.healed for problem in problems(healed)} == {True}
    assert pack.read_bytes() == data


@pytest.mark.parametrize("damage", ["absent", "empty", "flipped", "of another pack"])
def test_an_idx_is_rebuilt_from_the_footer(store: Store, damage: str) -> None:
    commit(store, 1)
    (pack,) = packs_of(store)
    idx = pack.with_suffix(".idx")
    good = idx.read_bytes()
    commit(store, 2)
    (other,) = [path for path in packs_of(store) if path != pack]
    bad = {
        "empty": b"",
        "flipped": good[:3000] + bytes([good[-1] ^ 1]),
        "of another pack": other.with_suffix(".idx").read_bytes(),
    }
    idx.unlink() if damage == "absent" else idx.write_bytes(bad[damage])
    fresh = Store.open(store.worktree)
    check_commit(fresh, 1)
    assert idx.read_bytes() == good
    assert list(fresh.problems()) == []


def test_an_idx_is_rebuilt_from_the_records_when_the_footer_is_damaged_too(store: Store) -> None:
    commit(store, 1)
    (pack,) = packs_of(store)
    pack.with_suffix(".idx").unlink()
    data = bytearray(pack.read_bytes())
    data[-40] ^= 1
    pack.write_bytes(data)
    fresh = Store.open(store.worktree)
    check_commit(fresh, 1)
    assert [problem.kind for problem in fresh.problems()] == ["pack"]


def test_a_bent_idx_whose_check_holds_still_leads_to_no_wrong_object(store: Store) -> None:
    commit(store, 1)
    (pack,) = packs_of(store)
    entries = list(store.objects.open_packs()[pack.stem].index())
    turned = [
        Entry(entry.id, other.kind, other.offset, other.length)
        for entry, other in zip(entries, entries[1:] + entries[:1], strict=True)
    ]
    forged = Index.of(turned, pack.stem, pack.stat().st_size).data
    idx = pack.with_suffix(".idx")
    good = idx.read_bytes()
    for look in (
        lambda objects: objects.read(chunk(1000).id, "delta", max_raw=400),
        lambda objects: [problem.kind for problem in problems(objects)],
    ):
        idx.write_bytes(forged)
        found = look(Store.open(store.worktree).objects)
        assert found == ["pack"] or found.segments[0] == noise(1000)
        assert idx.read_bytes() == good  # made anew from the footer
    assert list(Store.open(store.worktree).problems()) == []


def test_an_index_finds_every_id_and_no_other() -> None:
    chance = random.Random(3)
    ids = [chance.randbytes(32).hex() for _ in range(400)] + ["00" * 32, "ff" * 32]
    entries = [Entry(id, "chunk", 16 + n, n) for n, id in enumerate(ids)]
    found = Index.parse(Index.of(entries, "ab" * 32, 999).data, "idx")
    assert (len(found), found.pack_name, found.pack_length) == (402, "ab" * 32, 999)
    assert sorted(entries, key=lambda entry: entry.id) == list(found)
    assert all(found.find(entry.id) == entry for entry in entries)
    assert all(found.find(chance.randbytes(32).hex()) is None for _ in range(400))
    assert [entry.id for entry in found.with_prefix("f")] == sorted(id for id in ids if id[0] == "f")
    assert index.decode_footer(index.encode_footer(entries, "ab" * 32), "pack") == (entries, "ab" * 32)


@pytest.mark.parametrize("folder", ["packs", "objects", "tmp", "objects/{}"])
def test_a_linked_directory_is_not_followed(store: Store, tmp_path: Path, folder: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    place = store.root / folder.format(commit_id(1)[:2])
    if place.exists():
        place.rmdir()
    place.symlink_to(outside)
    with pytest.raises(IntegrityError, match="not a directory"):
        commit(Store.open(store.worktree), 1)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("plant", ["link", "pipe"])
def test_a_planted_object_is_not_followed_and_is_healed(store: Store, tmp_path: Path, plant: str) -> None:
    commit(store, 1)
    outside = tmp_path / "outside"
    id = commit_id(1)
    loose = store.root / "objects" / id[:2] / id[2:]
    outside.write_bytes(loose.read_bytes())
    loose.unlink()
    loose.symlink_to(outside) if plant == "link" else os.mkfifo(loose)
    before = outside.read_bytes()
    fresh = Store.open(store.worktree)
    with pytest.raises(IntegrityError, match="not a regular file"):
        fresh.objects.get(id, "commit")
    assert [problem.file for problem in fresh.problems()] == [str(loose)]
    commit(fresh, 1)
    check_commit(fresh, 1)
    assert outside.read_bytes() == before


@pytest.mark.parametrize("suffix", [".pack", ".idx"])
@pytest.mark.parametrize("plant", ["link", "pipe"])
def test_a_planted_pack_is_not_followed(store: Store, tmp_path: Path, suffix: str, plant: str) -> None:
    commit(store, 1)
    (pack,) = packs_of(store)
    file = pack.with_suffix(suffix)
    outside = tmp_path / "outside"
    file.rename(outside)
    file.symlink_to(outside) if plant == "link" else os.mkfifo(file)
    before = outside.read_bytes()
    fresh = Store.open(store.worktree)
    if suffix == ".pack":
        assert not fresh.objects.contains_intact(chunk(1000).id)
        assert str(file) in {problem.file for problem in fresh.problems()}
    commit(fresh, 1)
    check_commit(Store.open(store.worktree), 1)
    assert outside.read_bytes() == before


def test_a_transaction_takes_more_objects_than_a_process_may_open(store: Store) -> None:
    class Few(Quick):
        """Sixteen descriptors for files that are written."""

        held: ClassVar[set[int]] = set()

        def open(self, path: Path, flags: int, mode: int = 0o666) -> int:
            if len(self.held) >= 16:
                raise OSError(errno.EMFILE, "Too many open files")
            fd = super().open(path, flags, mode)
            self.held.add(fd)
            return fd

        def close(self, fd: int) -> None:
            super().close(fd)
            self.held.discard(fd)

    with replaced_calls(Few()), store.transaction() as transaction:
        ids = [transaction.put("blob", b"%d" % number) for number in range(100)]
    assert store.objects.get(ids[99], "blob") == b"99"


def test_a_newer_format_is_read_and_not_written(store: Store) -> None:
    commit(store, 1)
    for text, needed in (("persona 2\n", "format 2"), ("persona 1\nsparse-packs\n", "sparse-packs")):
        (store.root / "format").write_text(text)
        newer = Store.open(store.worktree)
        check_commit(newer, 1)
        for write in (
            lambda newer=newer: commit(newer, 2),
            lambda newer=newer: newer.state("x").write(1),
        ):
            with pytest.raises(Refused, match=needed):
                write()
        newer.cache("x").write(b"what can be computed again")
        assert newer.cache("x").read() is None


@pytest.mark.parametrize("text", ["", "persona", "persona 0\n", "persona 1", "git 1\n", "persona 1\n\x00"])
def test_a_damaged_format_is_refused(store: Store, text: str) -> None:
    (store.root / "format").write_text(text)
    with pytest.raises(IntegrityError, match="format"):
        Store.open(store.worktree)
