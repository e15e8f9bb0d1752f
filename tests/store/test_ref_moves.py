"""Moves of several refs, HEAD and reflogs: whole or not at all, whatever cuts them and whoever looks on."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from persona.cli.hints import in_shell
from persona.errors import BusyError, IntegrityError, InvalidInput, PersonaError, Refused
from persona.store import files, lock, reflog
from persona.store.check_refs import survey
from persona.store.ref_files import RefFiles
from persona.store.refs import ANY, Change, Head, Refs
from persona.store.store import Store
from tests.campaign import rounds
from tests.disks import Quick, Recording, Unsyncable, cut_at_each_call, lay_out
from tests.store.samples import id_of, reason

ONE, TWO, THREE = id_of(1), id_of(2), id_of(3)
HEADS = "refs/heads/"
MAIN, TOPIC = "refs/heads/main", "refs/heads/topic"


def move(refs: Refs, name: str, new: str | None, expect: object = ANY) -> None:
    refs.update(name, new, reason(f"to {new}"), expect=expect)  # type: ignore[arg-type]


def rename(refs: Refs, old: str, new: str, *, over: bool = False) -> None:
    refs.move(old, new, reason("renamed"), over=over)


def delete(refs: Refs, *names: str) -> None:
    changes = [Change(name, None, ANY, reason("deleted")) for name in names]
    refs.update_all(changes)


def attach(refs: Refs, name: str, at: str | None = None, *, created: str | None = None) -> None:
    made = None if created is None else reason(created)
    refs.set_head(("ref", name), reason("attach"), at=ANY if at is None else at, created=made)


def travel(refs: Refs, *ids: str, to: Head | None = None) -> None:
    head, at = refs.position()
    stops = [(id, reason(f"by {id}")) for id in ids]
    refs.travel(stops, expect=head, at=str(at), to=to, arrival=reason("arrived"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """`main` at TWO under HEAD, `topic` at THREE after ONE, `feature/a` and `feature/b` at ONE."""
    made = Store.create(tmp_path / "repository")
    made.refs.advance(ONE, reason("first"), expect=None)
    made.refs.advance(TWO, reason("second"), expect=ONE)
    for name in (TOPIC, HEADS + "feature/a", HEADS + "feature/b"):
        move(made.refs, name, ONE)
    move(made.refs, TOPIC, THREE)
    return made


# -- renames


@pytest.mark.parametrize("new", ["trunk", "topic/one", "topic/one/two", "Topic", "feature/c"])
def test_a_rename_takes_the_reflog_along(store: Store, new: str) -> None:
    refs, name = store.refs, HEADS + new
    before = list(refs.log(TOPIC))
    rename(refs, TOPIC, name)
    assert refs.read(TOPIC) is None
    assert refs.read(name) == THREE
    assert list(refs.log(name))[1:] == before
    assert (refs.log(name)[0].old, refs.log(name)[0].new, refs.log(name)[0].why) == (THREE, THREE, "renamed")
    assert list(survey(refs).problems) == []
    rename(refs, name, TOPIC)
    assert list(refs.log(TOPIC))[2:] == before
    assert refs.list(HEADS).keys() == {MAIN, TOPIC, HEADS + "feature/a", HEADS + "feature/b"}
    assert list(survey(refs).problems) == []


def test_a_rename_takes_head_along_with_a_line(store: Store) -> None:
    rename(store.refs, MAIN, MAIN + "/line")
    assert store.refs.position() == (("ref", MAIN + "/line"), TWO)
    assert [entry.why for entry in store.refs.log("HEAD")] == ["renamed", "second", "first"]


def test_a_rename_over_another_ref_leaves_nothing_of_it(store: Store) -> None:
    refs = store.refs
    with pytest.raises(Refused, match="exists"):
        rename(refs, HEADS + "feature/a", TOPIC)
    with pytest.raises(Refused, match="exists"):
        rename(refs, TOPIC, MAIN, over=True)  # HEAD is there
    rename(refs, HEADS + "feature/a", TOPIC, over=True)
    assert refs.read(TOPIC) == ONE
    assert [entry.new for entry in refs.log(TOPIC)] == [ONE, ONE]
    with pytest.raises(BusyError, match="was deleted"):
        rename(refs, HEADS + "feature/a", HEADS + "x")


@pytest.mark.parametrize("new", ["feature", "feature/a/b", "Feature/x", "Main"])
def test_a_rename_is_refused_where_a_third_ref_is_in_the_way(store: Store, new: str) -> None:
    with pytest.raises(InvalidInput, match=r"beside|case"):
        rename(store.refs, TOPIC, HEADS + new)
    assert store.refs.read(TOPIC) == THREE
    assert list(survey(store.refs).problems) == []


# -- deletions, HEAD


def test_several_refs_go_all_or_none(store: Store) -> None:
    refs, held = store.refs, store.refs.list()
    with pytest.raises(Refused, match="HEAD"):
        delete(refs, TOPIC, MAIN)
    expected = {TOPIC: THREE, HEADS + "feature/a": TWO}
    changes = [Change(name, None, id, reason("")) for name, id in expected.items()]
    with pytest.raises(BusyError):
        refs.update_all(changes)
    assert refs.list() == held
    delete(refs, TOPIC, HEADS + "feature/a")
    assert refs.list() == {MAIN: TWO, HEADS + "feature/b": ONE}
    assert list(survey(refs).problems) == []


@pytest.mark.parametrize("depth", range(1, 6))
def test_a_deleted_name_of_any_depth_leaves_room_for_its_beginnings(store: Store, depth: int) -> None:
    refs, parts = store.refs, ["team", "alice", "exp", "one", "more", "deep"]
    for last in (depth, 1):
        move(refs, HEADS + "/".join(parts[: last + 1]), ONE)
        delete(refs, HEADS + "/".join(parts[: last + 1]))
    for length in (1, depth, depth + 1):
        name = HEADS + "/".join(parts[:length])
        move(refs, name, TWO)
        assert refs.read(name) == TWO
        delete(refs, name)
    assert list(survey(refs).problems) == []


def test_head_is_not_left_on_a_branch_that_is_gone(store: Store) -> None:
    refs = store.refs
    with pytest.raises(Refused, match="HEAD"):
        move(refs, MAIN, None)
    with pytest.raises(BusyError, match="was deleted"):
        attach(refs, HEADS + "nope")
    with pytest.raises(BusyError, match="moved"):
        attach(refs, TOPIC, at=ONE)
    with pytest.raises(BusyError, match="moved"):
        attach(refs, TOPIC, at=THREE, created="made")
    with pytest.raises(Refused, match="HEAD"):
        refs.update_all([Change(MAIN, ONE, ANY, reason(""))], under_head=False)
    assert refs.position() == (("ref", MAIN), TWO)
    attach(refs, HEADS + "new", at=THREE, created="made")
    assert refs.position() == (("ref", HEADS + "new"), THREE)
    assert [entry.why for entry in refs.log(HEADS + "new")] == ["made"]


def test_the_error_of_a_head_that_leads_nowhere_says_what_to_type(store: Store) -> None:
    (store.root / MAIN).unlink()
    with pytest.raises(IntegrityError) as caught:
        store.refs.head_id()
    hint = in_shell(caught.value.hint or "")
    assert f"persona branch main {TWO[:8]}" in hint
    assert "persona switch feature/a" in hint
    assert [entry.new for entry in store.refs.log(MAIN)] == [TWO, ONE]
    assert [entry.new for entry in store.refs.log("HEAD")] == [TWO, ONE]
    move(store.refs, MAIN, TWO)
    assert store.refs.head_id() == TWO
    assert list(survey(store.refs).problems) == []


# -- journeys


def whys(refs: Refs, name: str) -> list[str]:
    """The sentences of a reflog, newest first."""
    return [entry.why for entry in refs.log(name)]


def test_a_branch_moves_along_with_a_line_for_each_commit(store: Store) -> None:
    travel(store.refs, THREE, ONE)
    assert (store.refs.head(), store.refs.read(MAIN)) == (("ref", MAIN), ONE)
    for name in ("HEAD", MAIN):
        assert whys(store.refs, name)[:3] == [f"by {ONE}", f"by {THREE}", "second"]
        assert [entry.old for entry in store.refs.log(name)][:2] == [THREE, TWO]
    assert list(survey(store.refs).problems) == []


def test_head_comes_to_a_branch_which_gets_one_line(store: Store) -> None:
    travel(store.refs, ONE, TWO, to=("ref", TOPIC))
    assert (store.refs.head(), store.refs.read(TOPIC), store.refs.read(MAIN)) == (("ref", TOPIC), TWO, TWO)
    assert whys(store.refs, "HEAD")[:2] == [f"by {TWO}", f"by {ONE}"]
    assert whys(store.refs, TOPIC)[0] == "arrived"
    travel(store.refs, THREE, to=("id", THREE))
    assert (store.refs.head(), store.refs.read(TOPIC)) == (("id", THREE), TWO)
    travel(store.refs, ONE)
    assert store.refs.head() == ("id", ONE)
    assert list(survey(store.refs).problems) == []


def test_head_that_moved_meanwhile_is_not_moved(store: Store) -> None:
    for expect, at in ((("ref", TOPIC), TWO), (("ref", MAIN), ONE)):
        with pytest.raises(BusyError, match="HEAD moved"):
            store.refs.travel([(THREE, reason("x"))], expect=expect, at=at)  # type: ignore[arg-type]
    with pytest.raises(BusyError, match="moved meanwhile"):
        store.refs.travel([(TWO, reason("x"))], expect=("ref", MAIN), at=TWO, to=("ref", TOPIC))


# -- cut short

State = tuple[Head, dict[str, str]]
MOVES: dict[str, Callable[[Refs], None]] = {
    "rename": lambda refs: rename(refs, TOPIC, HEADS + "trunk"),
    "rename the current": lambda refs: rename(refs, MAIN, HEADS + "trunk"),
    "rename below itself": lambda refs: rename(refs, MAIN, MAIN + "/one"),
    "rename above itself": lambda refs: rename(refs, HEADS + "a/b/c", HEADS + "a"),
    "rename but for case": lambda refs: rename(refs, MAIN, HEADS + "Main"),
    "rename over another": lambda refs: rename(refs, MAIN, TOPIC, over=True),
    "delete": lambda refs: delete(refs, TOPIC),
    "delete several": lambda refs: delete(refs, HEADS + "feature/b", TOPIC, HEADS + "feature/a"),
    "make and go": lambda refs: attach(refs, HEADS + "p/q/r", at=THREE, created="made"),
    "go": lambda refs: attach(refs, TOPIC, at=THREE),
    "make": lambda refs: move(refs, HEADS + "p/q/r", ONE, None),
    "travel": lambda refs: travel(refs, THREE, ONE),
    "travel to a branch": lambda refs: travel(refs, ONE, TWO, to=("ref", TOPIC)),
}


def state_of(refs: Refs) -> State:
    return refs.head(), refs.list()


@pytest.mark.parametrize("what", MOVES)
def test_a_move_cut_at_any_call_is_whole_or_not_begun(store: Store, tmp_path: Path, what: str) -> None:
    act = MOVES[what]
    move(store.refs, HEADS + "a/b/c", TWO)
    before = state_of(store.refs)
    states: list[State] = []

    def copy() -> Store:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(store.worktree, tmp_path / "copy")
        return Store.open(tmp_path / "copy")

    for cut, _ in cut_at_each_call(copy, lambda store: act(store.refs)):
        with files.replaced_calls(Quick()):
            refs = Store.open(cut.worktree).refs
            found = state_of(refs)
            assert refs.head_id() == (found[1][found[0][1]])
            assert list(survey(refs).problems) == []
            assert not (refs.root / "state" / "refs.json").exists()
            states.append(found)
            if found == before:
                act(refs)
            assert state_of(refs) not in (before, None)
            for name, id in refs.list().items():
                assert refs.log(name)[0].new == id
    after = states[-1]
    assert after != before
    begun = states.index(after)
    assert states == [before] * begun + [after] * (len(states) - begun)
    assert begun > 2


@pytest.mark.parametrize("what", MOVES)
def test_a_move_is_durable_when_it_returns_and_whole_after_a_power_cut(
    store: Store, tmp_path: Path, what: str
) -> None:
    act, chance = MOVES[what], random.Random(what)
    move(store.refs, HEADS + "a/b/c", TWO)
    before = state_of(store.refs)
    cuts: list[dict[str, bytes | None]] = []

    class Cutting(Recording):
        def changed(self) -> None:
            cuts.extend(self.states(chance))

    with files.replaced_calls(Cutting(store.worktree)) as disk:
        act(store.refs)
        assert isinstance(disk, Recording)
        ends = list(disk.states(chance))
    after = state_of(store.refs)
    distinct = list({hash(tuple(sorted(cut.items(), key=str))): cut for cut in cuts}.values())
    chosen = chance.sample(distinct, min(len(distinct), rounds(25)))
    for place, (cut, allowed) in enumerate(
        [(cut, (before, after)) for cut in chosen] + [(e, (after,)) for e in ends]
    ):
        lay_out(cut, tmp_path / f"cut{place}")
        with files.replaced_calls(Quick()):
            refs = Store.open(tmp_path / f"cut{place}").refs
            assert state_of(refs) in allowed
            assert list(survey(refs).problems) == []


def test_directories_that_an_earlier_command_did_not_sync_are_synced_before_a_ref_counts(
    store: Store, tmp_path: Path
) -> None:
    failures = 0
    for at in range(1, 100):
        copy = tmp_path / f"disk{at}"
        shutil.copytree(store.worktree, copy)
        disk = Unsyncable(copy, at)
        with files.replaced_calls(disk):
            try:
                move(Store.open(copy).refs, HEADS + "p/q/r", ONE, None)
            except PersonaError:
                failures += 1
                with suppress(BusyError):  # made already: what was begun is finished first
                    move(Store.open(copy).refs, HEADS + "p/q/r", ONE, None)
            states = list(disk.states(random.Random(at)))
        for place, state in enumerate(states):
            lay_out(state, tmp_path / f"cut{at}-{place}")
            with files.replaced_calls(Quick()):
                refs = Store.open(tmp_path / f"cut{at}-{place}").refs
                assert refs.read(HEADS + "p/q/r") == ONE
                assert len(refs.log(HEADS + "p/q/r")) == 1
        if disk.count < at:
            break
    assert failures == at - 1 > 5


def test_a_journal_that_says_nothing_is_named_and_stops_writers_alone(store: Store) -> None:
    journal = store.state("refs")
    for value in ({}, [], {"steps": [["refs/heads/../x", None, ONE, None]], "renamed": None}, {"steps": 1}):
        journal.write(value)
        assert store.refs.read(MAIN) == TWO
        with pytest.raises(IntegrityError, match=r"refs\.json"):
            move(store.refs, TOPIC, ONE)
        journal.remove()
    move(store.refs, TOPIC, ONE)


# -- beside others


def _wander(worktree: Path, moves: int) -> None:
    refs, chance = Store.open(worktree).refs, random.Random(1)
    held = MAIN
    with files.replaced_calls(Quick()):
        for _ in range(moves):
            name = HEADS + chance.choice(["x", "x/y", "x/y/z", "w"])
            if name != held:
                rename(refs, held, name)
                held = name
            refs.advance(id_of(chance.randrange(9)), reason("on"), expect=ANY)


def test_readers_beside_writers_see_neither_damage_nor_a_gap(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    writer = context.Process(target=_wander, args=(store.worktree, rounds(150)))
    writer.start()
    try:
        while writer.is_alive():
            assert store.refs.head_id() is not None
            assert len(store.refs.list(HEADS)) == 4  # the one that wanders, topic, feature/a, feature/b
            assert store.refs.log("HEAD")
            assert list(survey(store.refs).problems) == []
    finally:
        writer.join()
    assert writer.exitcode == 0


def test_what_moves_between_two_looks_is_looked_at_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, todo = Store.open(store.worktree).refs, [1]
    load, value = reflog.load, RefFiles.value

    def late_load(*arguments: object, **options: object) -> object:
        if todo:
            todo.pop()
            for id in (ONE, THREE):
                other.advance(id, reason("on"), expect=ANY)
        return load(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(reflog, "load", late_load)
    assert store.refs.log(MAIN)[0].new == THREE
    assert not todo

    def late_value(ref_files: RefFiles, name: str) -> str | None:
        if ref_files is not other._files and todo:
            todo.pop()
            rename(other, MAIN, HEADS + "trunk")
        return value(ref_files, name)

    monkeypatch.setattr(RefFiles, "value", late_value)
    todo.append(1)
    assert store.refs.position() == (("ref", HEADS + "trunk"), THREE)
    assert not todo


def test_a_child_that_was_forked_meanwhile_keeps_no_lock(store: Store) -> None:
    go_on, done = os.pipe()
    with lock.refs_lock(store.root), store.worktree_lock(), lock.exclusive(store.root):
        child = os.fork()
        if not child:
            os.close(done)
            os.read(go_on, 1)
            os._exit(0)
    try:
        with (
            lock.refs_lock(store.root, wait=0),
            store.worktree_lock(),
            lock.exclusive(store.root),
        ):
            pass
    finally:
        os.close(done)
        os.close(go_on)
        os.waitpid(child, 0)


def test_a_forked_child_that_leaves_the_block_does_not_unlock_for_its_parent(store: Store) -> None:
    held = lock.refs_lock(store.root)
    held.__enter__()
    child = os.fork()
    if not child:
        held.__exit__(None, None, None)
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(BusyError):
        lock.refs_lock(store.root, wait=0).__enter__()
    held.__exit__(None, None, None)
    with lock.refs_lock(store.root, wait=0):
        pass


def test_threads_that_rename_and_attach_leave_head_on_a_branch(store: Store) -> None:
    names = [HEADS + name for name in ("t1", "t2", "t2/x")]
    faults: list[BaseException] = []

    def act(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(rounds(25)):
                one, other = chance.choice([MAIN, *names]), chance.choice([MAIN, *names])
                doing = chance.choice(
                    [
                        lambda one=one, other=other: rename(store.refs, one, other),
                        lambda one=one: delete(store.refs, one),
                        lambda one=one: attach(store.refs, one),
                        lambda one=one: attach(store.refs, one, at=ONE, created="made"),
                    ]
                )
                with suppress(BusyError, Refused, InvalidInput):
                    doing()
                assert store.refs.head_id() is not None
        except BaseException as fault:
            faults.append(fault)

    with files.replaced_calls(Quick()):
        threads = [threading.Thread(target=act, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert faults == []
    assert list(survey(store.refs).problems) == []


# -- what grows, what the disk cannot


def test_a_new_name_is_compared_with_the_directories_on_its_way_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    names_in = files.names_in
    monkeypatch.setattr(files, "names_in", lambda path: looked.append(path) or names_in(path))
    move(store.refs, "refs/tags/v1", ONE)
    assert {path.name for path in looked} == {"refs", "tags"}


def test_a_reflog_that_grows_too_large_to_read_loses_its_older_half(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflog, "MAX_REFLOG_BYTES", 4000)
    with files.replaced_calls(Quick()):
        for number in range(60):
            store.refs.advance(id_of(number), reason("on"), expect=ANY)
            assert store.refs.log("HEAD")[0].new == id_of(number)
            assert len(store.refs.log(MAIN)) >= min(number, 5)
    assert list(survey(store.refs).problems) == []


def test_a_file_system_that_cannot_sync_directories_will_do(store: Store) -> None:
    class NoDirectories(Quick):
        def fsync(self, fd: int) -> None:
            if os.path.isdir(f"/proc/self/fd/{fd}"):
                raise OSError(errno.EINVAL, "Invalid argument")

    with files.replaced_calls(NoDirectories()):
        rename(store.refs, TOPIC, HEADS + "p/q")
    assert store.refs.read(HEADS + "p/q") == THREE
