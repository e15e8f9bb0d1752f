"""Disks that fail, fill up, or lose their power: a ref holds its old or its new value, and what it names."""

from __future__ import annotations

import errno
import os
import random
from contextlib import suppress
from pathlib import Path

import pytest

from persona.errors import SystemFault
from persona.store import files
from persona.store.check_refs import survey
from persona.store.files import Output, replaced_calls, write_file
from persona.store.store import Store
from tests.disks import (
    Failing,
    Recording,
    Refusing,
    Short,
    Unsyncable,
    count_calls,
    kill_at,
    lay_out,
)
from tests.store.samples import check_commit, chunk, commit, commit_id


def check(worktree: Path, *, acknowledged: int, attempted: int, leftovers: bool = False) -> None:
    """The oracle: acknowledged commits whole, refs old or new, nothing damaged, and the next commit works."""
    store = Store.open(worktree)
    held = store.refs.head_id()
    allowed = {commit_id(number) if number else None for number in range(acknowledged, attempted + 1)}
    assert held in allowed
    assert set(store.refs.list().values()) == ({held} if held else set())
    for number in range(1, attempted + 1):
        if number <= acknowledged or held == commit_id(number):
            check_commit(store, number)
    assert list(store.problems(full=True)) == []
    assert list(survey(store.refs).problems) == []
    assert len(store.refs.log("HEAD")) >= acknowledged
    if not leftovers:
        assert os.listdir(store.root / "tmp") == []
    for number in (attempted, attempted + 1):
        commit(store, number)
        check_commit(Store.open(worktree), number)
    assert list(survey(store.refs).problems) == []
    store.objects.close()


def calls_of_a_commit(tmp_path: Path) -> int:
    """How many calls change the disk in the second commit of a store."""
    store = Store.create(tmp_path / "count")
    commit(store, 1)
    return count_calls(lambda: commit(store, 2))


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_call_that_fails_is_a_system_fault_and_publishes_nothing_half(tmp_path: Path, error: int) -> None:
    total = calls_of_a_commit(tmp_path)
    assert total > 40
    for at in range(1, total + 1):
        store = Store.create(tmp_path / f"repository{at}")
        commit(store, 1)
        failing = Failing(at, error, full=error == errno.ENOSPC)
        with replaced_calls(failing), pytest.raises(SystemFault) as caught:
            commit(store, 2)
        assert failing.failed, at
        assert caught.value.exit_code == 7
        assert os.strerror(error) in caught.value.message
        assert str(store.root) in caught.value.message
        check(store.worktree, acknowledged=1, attempted=2, leftovers=failing.failed == ["unlink"])


def test_creating_a_store_makes_it_whole_or_not_at_all(tmp_path: Path) -> None:
    total = count_calls(lambda: Store.create(tmp_path / "count"))
    for at in range(1, total + 1, 3):
        worktree = tmp_path / f"repository{at}"
        worktree.mkdir()
        with replaced_calls(Failing(at, errno.ENOSPC, full=True)), suppress(SystemFault):
            Store.create(worktree)
        assert os.listdir(worktree) in ([], [".persona"])
        if not (worktree / ".persona").exists():
            Store.create(worktree)
        commit(Store.open(worktree), 1)


def test_a_pack_with_a_hole_is_never_published(store: Store) -> None:
    def store_two() -> None:
        with store.transaction() as transaction:
            transaction.append(chunk(1))
            with replaced_calls(Failing(1, errno.EIO)), suppress(SystemFault):
                transaction.append(chunk(2))

    with pytest.raises(SystemFault, match="failed before"):
        store_two()
    assert store.objects.counts() == (0, 0, 0)
    assert os.listdir(store.root / "tmp") == []


def test_a_read_that_fails_is_a_system_fault(store: Store) -> None:
    commit(store, 1)
    unreadable = Refusing("pread", OSError(errno.EIO, "Input/output error"))
    with replaced_calls(unreadable), pytest.raises(SystemFault, match="cannot read"):
        store.objects.get(commit_id(1), "commit")
    check_commit(store, 1)


def test_a_failed_fsync_is_never_tried_again(tmp_path: Path) -> None:
    unsyncable = Refusing("fsync", OSError(errno.EIO, "Input/output error"))
    with replaced_calls(unsyncable), pytest.raises(SystemFault):
        write_file(tmp_path / "file", b"text")
    assert unsyncable.tries == 1
    assert os.listdir(tmp_path) == []


def test_short_writes_and_reads_are_carried_on(tmp_path: Path) -> None:
    with replaced_calls(Short()):
        store = Store.create(tmp_path / "repository")
        commit(store, 1)
        check_commit(store, 1)
    check(store.worktree, acknowledged=1, attempted=1)


def test_killed_at_every_call(tmp_path: Path) -> None:
    for at in range(1, calls_of_a_commit(tmp_path) + 1, 2):
        store = Store.create(tmp_path / f"repository{at}")
        commit(store, 1)
        kill_at(at, lambda store=store: commit(store, 2))  # type: ignore[misc]
        check(store.worktree, acknowledged=1, attempted=2, leftovers=True)


def test_the_power_may_fail_at_every_call(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    chance = random.Random(5)
    seen: set[int] = set()
    cuts: list[tuple[int, int, dict[str, bytes | None]]] = []

    class Cut(Recording):
        acknowledged = 0
        attempted = 0

        def changed(self) -> None:
            for state in self.states(chance):
                key = hash((self.acknowledged, self.attempted, tuple(sorted(state.items(), key=str))))
                if key not in seen:
                    seen.add(key)
                    cuts.append((self.acknowledged, self.attempted, state))

    store = Store.create(disk / "repository")
    with replaced_calls(Cut(disk)) as recording:
        assert isinstance(recording, Cut)
        for number in (1, 2, 3):
            recording.attempted = number
            commit(store, number)
            recording.acknowledged = number
    assert len(cuts) > 200
    for place, (acknowledged, attempted, state) in enumerate(chance.sample(cuts, 120)):
        target = tmp_path / f"cut{place}"
        lay_out(state, target)
        check(target / "repository", acknowledged=acknowledged, attempted=attempted, leftovers=True)


def test_what_an_earlier_command_left_unsynced_is_synced_before_it_is_relied_on(tmp_path: Path) -> None:
    failures = 0
    for at in range(1, 40):
        disk = tmp_path / f"disk{at}"
        disk.mkdir()
        store = Store.create(disk / "repository")
        commit(store, 1)
        recording = Unsyncable(disk, at)
        with replaced_calls(recording):
            try:
                commit(store, 2)
            except SystemFault:
                failures += 1
                commit(Store.open(store.worktree), 2)
        for place, state in enumerate(recording.states(random.Random(at))):
            target = tmp_path / f"cut{at}-{place}"
            lay_out(state, target)
            check(target / "repository", acknowledged=2, attempted=2, leftovers=True)
        if recording.count < at:
            break
    assert failures == at - 1 >= 5


def test_an_output_is_published_whole_or_discarded(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.write_bytes(b"old")
    with Output.create(tmp_path, prefix=".model", size=10) as output:
        output.pwrite([b"78", b"9"], 7)
        output.pwrite(memoryview(b"0123456"), 0)
        assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model"]
    with Output.create(tmp_path, prefix=".model") as output:
        assert [output.write(b"abc"), output.write([b"d", b"", b"ef"]), output.write(b"")] == [0, 3, 6]
        output.publish(target)
    assert os.listdir(tmp_path) == ["model"]
    assert target.read_bytes() == b"abcdef"


def test_an_output_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.write_bytes(b"mine")
    target.symlink_to(outside)
    write_file(target, b"new")
    assert (outside.read_bytes(), target.read_bytes(), target.is_symlink()) == (b"mine", b"new", False)


def test_write_back_begins_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hinted(files.Calls):
        hints = 0

        def start_write_back(self, fd: int) -> None:
            self.hints += 1
            super().start_write_back(fd)

    monkeypatch.setattr(files, "WRITE_BACK_BYTES", 1000)
    with replaced_calls(Hinted()) as disk, Output.create(tmp_path, prefix="x") as output:
        for _ in range(10):
            output.write(bytes(300))
        output.publish(tmp_path / "y")
    assert isinstance(disk, Hinted)
    assert disk.hints == 2
    assert (tmp_path / "y").stat().st_size == 3000
