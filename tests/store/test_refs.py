"""Refs, HEAD and reflogs."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from persona.errors import BusyError, IntegrityError, InvalidInput, NotARepository, PersonaError, Refused
from persona.objects.ids import object_id
from persona.store import lock, reflog
from persona.store.check_refs import survey
from persona.store.refs import ANY, Reason, Refs
from persona.store.store import Store
from tests.store.samples import id_of, reason

ONE, TWO, THREE = id_of(1), id_of(2), id_of(3)
MAIN, OTHER = "refs/heads/main", "refs/heads/other"


def move(refs: Refs, name: str, new: str | None, expect: object = ANY) -> None:
    refs.update(name, new, reason("test"), expect=expect)  # type: ignore[arg-type]


def advance(refs: Refs, new: str, expect: object = ANY) -> None:
    refs.advance(new, reason("test"), expect=expect)  # type: ignore[arg-type]


def set_head(refs: Refs, kind: str, value: str) -> None:
    refs.set_head((kind, value), reason("test"))  # type: ignore[arg-type]


def test_a_new_store_is_on_a_branch_without_a_commit(store: Store) -> None:
    assert store.refs.head() == ("ref", MAIN)
    assert store.refs.head_id() is None
    assert store.refs.list() == {}
    assert store.refs.log("HEAD") == ()
    with pytest.raises(Refused, match="exists"):
        Store.create(store.worktree)
    with pytest.raises(NotARepository):
        Store.open(store.worktree / "elsewhere")


def test_a_ref_moves_only_from_what_was_expected(store: Store) -> None:
    refs = store.refs
    move(refs, OTHER, ONE, expect=None)
    for wrong in (None, TWO):
        with pytest.raises(BusyError, match="moved"):
            move(refs, OTHER, THREE, expect=wrong)
    move(refs, OTHER, TWO, expect=ONE)
    assert refs.read(OTHER) == TWO
    move(refs, OTHER, None, expect=TWO)
    assert refs.read(OTHER) is None
    with pytest.raises(BusyError):
        move(refs, OTHER, ONE, expect=TWO)


def test_head_moves_with_its_branch_or_alone(store: Store) -> None:
    refs = store.refs
    advance(refs, ONE, expect=None)
    assert (refs.head(), refs.head_id(), refs.read(MAIN)) == (("ref", MAIN), ONE, ONE)
    set_head(refs, "id", ONE)
    advance(refs, TWO, expect=ONE)
    assert (refs.head(), refs.head_id(), refs.read(MAIN)) == (("id", TWO), TWO, ONE)
    set_head(refs, "ref", MAIN)
    assert refs.head_id() == ONE
    with pytest.raises(BusyError):
        refs.set_head(("id", TWO), reason("test"), expect=("id", ONE))
    assert [entry.new for entry in refs.log("HEAD")] == [ONE, TWO, ONE, ONE]
    assert [entry.old for entry in refs.log("HEAD")] == [TWO, ONE, ONE, None]


def test_the_reflog_says_who_when_and_why_newest_first(store: Store) -> None:
    refs = store.refs
    for number in range(1, 4):
        why = Reason("Ada\n <a@b>\t", (number, 60 - 90 * number), f"a\nb{number}")
        refs.advance(id_of(number), why, expect=ANY)
    for name in ("HEAD", MAIN):
        log = refs.log(name)
        assert [entry.new for entry in log] == [THREE, TWO, ONE]
        assert [entry.old for entry in log] == [TWO, ONE, None]
        assert [(entry.time, entry.offset) for entry in log] == [(3, -210), (2, -120), (1, -30)]
        assert {(entry.who, entry.why[:3]) for entry in log} == {("Ada  <a@b> ", "a b")}


def test_a_move_of_the_branch_under_head_is_in_heads_reflog_too(store: Store) -> None:
    advance(store.refs, ONE)
    move(store.refs, MAIN, TWO)
    assert [entry.new for entry in store.refs.log("HEAD")] == [TWO, ONE]
    assert list(survey(store.refs).problems) == []


def test_a_removed_ref_keeps_its_reflog(store: Store) -> None:
    refs = store.refs
    move(refs, "refs/heads/a/b", ONE)
    move(refs, "refs/heads/a/b", None)
    assert [entry.new for entry in refs.log("refs/heads/a/b")] == [None, ONE]
    assert not (store.root / "refs/heads/a").exists()
    move(refs, "refs/heads/a/b", TWO)
    assert [entry.old for entry in refs.log("refs/heads/a/b")] == [None, ONE, None]


def test_a_name_may_become_a_directory_of_names_and_back_again(store: Store) -> None:
    refs = store.refs
    for name in ("refs/heads/a", "refs/heads/a/b/c", "refs/heads/a/b", "refs/heads/a"):
        move(refs, name, ONE, expect=None)
        assert refs.list() == {name: ONE}
        for other in ("refs/heads/a/b/c/d", "refs/heads/a/b", "refs/heads/a"):
            if other != name and (other.startswith(name) or name.startswith(other)):
                with pytest.raises(InvalidInput, match="directory"):
                    move(refs, other, ONE)
        move(refs, name, None)


def test_renaming_takes_head_along(store: Store) -> None:
    advance(store.refs, ONE)
    store.refs.move(MAIN, "refs/heads/trunk", reason("rename"))
    assert store.refs.head() == ("ref", "refs/heads/trunk")
    assert store.refs.list() == {"refs/heads/trunk": ONE}
    assert list(survey(store.refs).problems) == []


@pytest.mark.parametrize("name", ["refs/heads/Main", "refs/heads/MAIN", "refs/Heads/x", "refs/heads/main/x"])
def test_names_that_differ_by_case_alone_or_nest_are_refused(store: Store, name: str) -> None:
    move(store.refs, MAIN, ONE)
    with pytest.raises(InvalidInput):
        move(store.refs, name, ONE)
    assert store.refs.list() == {MAIN: ONE}


@pytest.mark.parametrize(
    "name",
    [
        "main",
        "refs/../HEAD",
        "refs/heads/../../x",
        "refs/heads/.x",
        "refs/heads/a.lock",
        "refs//x",
        "/refs/x",
    ],
)
def test_names_that_cannot_be_are_refused_everywhere(store: Store, name: str) -> None:
    for call in (store.refs.read, store.refs.log, lambda name: move(store.refs, name, ONE)):
        with pytest.raises(InvalidInput):
            call(name)
    with pytest.raises(PersonaError):
        set_head(store.refs, "ref", name)


def test_listing_is_by_prefix_and_in_order(store: Store) -> None:
    for name in ("refs/tags/v1", "refs/heads/b", "refs/heads/a/x", "refs/heads/ab"):
        move(store.refs, name, ONE)
    assert list(store.refs.list("refs/heads/")) == ["refs/heads/a/x", "refs/heads/ab", "refs/heads/b"]
    assert list(store.refs.list("refs/heads/a")) == ["refs/heads/a/x", "refs/heads/ab"]
    assert len(store.refs.list()) == 4
    assert store.refs.list("refs/stash") == {}


@pytest.mark.parametrize(
    "text", ["", ONE, f"{ONE}\n", f"{ONE}\n{'0' * 16}\n", f"ref: {MAIN}\n", "x" * 5000, "\xff"]
)
def test_a_damaged_ref_or_head_is_refused(store: Store, text: str) -> None:
    advance(store.refs, ONE)
    for name in (MAIN, "HEAD"):
        path = store.root / name
        good = path.read_bytes()
        path.write_text(text, encoding="latin-1")
        with pytest.raises(IntegrityError, match=name):
            store.refs.head_id()
        assert str(path) in {file for _, file, _ in survey(store.refs).problems}
        path.write_bytes(good)


def test_head_on_a_branch_that_went_missing_is_damage_and_can_be_attached_again(store: Store) -> None:
    advance(store.refs, ONE)
    move(store.refs, "refs/heads/other", ONE)
    (store.root / MAIN).unlink()
    with pytest.raises(IntegrityError, match="does not exist"):
        store.refs.head_id()
    set_head(store.refs, "ref", "refs/heads/other")
    assert store.refs.head_id() == ONE


@pytest.mark.parametrize(
    "place", [MAIN, "HEAD", "logs/HEAD", f"logs/{MAIN}", "lock", "refs/heads", "logs/refs"]
)
@pytest.mark.parametrize("plant", ["link", "pipe"])
def test_nothing_planted_is_followed(store: Store, tmp_path: Path, place: str, plant: str) -> None:
    advance(store.refs, ONE)
    path, outside = store.root / place, tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside) if plant == "link" else os.mkfifo(path)
    before = sorted((str(p), p.read_bytes()) for p in (outside, *outside.rglob("*")) if p.is_file())

    def use() -> None:
        with lock.shared(store.root):
            advance(store.refs, TWO)

    with pytest.raises(IntegrityError, match="is not a"):
        use()
    after = sorted((str(p), p.read_bytes()) for p in (outside, *outside.rglob("*")) if p.is_file())
    assert after == before


def test_a_reflog_with_another_hard_link_is_copied_before_it_grows(store: Store, tmp_path: Path) -> None:
    advance(store.refs, ONE)
    twin = tmp_path / "twin"
    twin.hardlink_to(store.root / "logs" / "HEAD")
    before = twin.read_bytes()
    advance(store.refs, TWO)
    assert twin.read_bytes() == before
    assert len(store.refs.log("HEAD")) == 2


def planned(store: Store, old: str | None, new: str) -> None:
    """A reflog line whose move is yet to happen."""
    reflog.append(store.root, MAIN, old, reflog.Entry(old, new, "Ada <a@b>", 1, 0, "planned"))


def test_a_line_whose_move_never_happened_is_ignored_and_dropped(store: Store) -> None:
    path = store.root / "logs" / MAIN
    planned(store, None, THREE)
    assert store.refs.log(MAIN) == ()
    advance(store.refs, ONE)
    planned(store, ONE, THREE)
    assert [entry.new for entry in store.refs.log(MAIN)] == [ONE]
    assert list(survey(store.refs).problems) == []
    planned(store, ONE, THREE)
    assert path.read_bytes().count(b"\n") == 2
    advance(store.refs, TWO)
    assert [entry.new for entry in store.refs.log(MAIN)] == [TWO, ONE]


def test_a_torn_line_is_ignored_and_dropped(store: Store) -> None:
    path = store.root / "logs" / MAIN
    advance(store.refs, ONE)
    good = path.read_bytes()
    planned(store, ONE, TWO)
    line = path.read_bytes()[len(good) :]
    for cut in (1, 16, 17, 100, len(line) - 2):
        for torn in (line[:cut], line[:cut] + bytes(len(line) - cut), bytes(cut)):
            path.write_bytes(good + torn)
            assert [entry.new for entry in store.refs.log(MAIN)] == [ONE]
            move(store.refs, MAIN, THREE)
            assert [entry.new for entry in store.refs.log(MAIN)] == [THREE, ONE]
            move(store.refs, MAIN, ONE)
            path.write_bytes(good)


def test_a_changed_line_is_named_and_does_not_stop_the_next_move(store: Store) -> None:
    for number in range(1, 6):
        advance(store.refs, id_of(number))
    path = store.root / "logs" / MAIN
    lines = path.read_bytes().splitlines(keepends=True)
    for number in range(5):
        bad = bytearray(lines[number])
        bad[60] ^= 1
        path.write_bytes(b"".join([*lines[:number], bytes(bad), *lines[number + 1 :]]))
        with pytest.raises(IntegrityError, match=f"line {number + 1} is damaged"):
            store.refs.log(MAIN)
        advance(store.refs, id_of(5))
        with pytest.raises(IntegrityError, match=f"line {number + 1} is damaged"):
            store.refs.log(MAIN)
    for lost in range(5):
        path.write_bytes(b"".join([*lines[:lost], *lines[lost + 1 :]]))
        with pytest.raises(IntegrityError, match=r"damaged|lost"):
            store.refs.log(MAIN)


def _race(worktree: Path, name: str, rounds: int, wins: multiprocessing.SimpleQueue[int]) -> None:
    refs = Store.open(worktree).refs
    won = 0
    for number in range(rounds):
        while True:
            held = refs.read(name)
            try:
                move(refs, name, object_id("commit", b"%d %d" % (os.getpid(), number)), expect=held)
                won += 1
                break
            except BusyError:
                continue
    wins.put(won)


def test_no_update_is_lost_between_processes(store: Store) -> None:
    context = multiprocessing.get_context("fork")
    wins = context.SimpleQueue()
    racers = [context.Process(target=_race, args=(store.worktree, MAIN, 40, wins)) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [wins.get() for _ in racers] == [40] * 4
    log = store.refs.log(MAIN)
    assert len(log) == 160
    assert [entry.old for entry in log[:-1]] == [entry.new for entry in log[1:]]


def test_of_many_threads_that_expect_the_same_one_wins(store: Store) -> None:
    won: list[int] = []

    def attempt(number: int) -> None:
        try:
            move(store.refs, MAIN, id_of(number), expect=None)
            won.append(number)
        except BusyError:
            pass

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.refs.read(MAIN) == id_of(won[0])


def test_locks_exclude_each_other_and_die_with_their_holder(store: Store) -> None:
    with lock.shared(store.root), lock.shared(store.root), pytest.raises(BusyError, match="in use"):
        lock.exclusive(store.root).__enter__()
    with lock.exclusive(store.root), pytest.raises(BusyError, match="cleaned up"):
        lock.shared(store.root, wait=0).__enter__()
    with store.worktree_lock(), pytest.raises(BusyError, match="work tree"):
        store.worktree_lock().__enter__()
    child = os.fork()
    if not child:
        lock.exclusive(store.root).__enter__()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with lock.exclusive(store.root):
        pass
