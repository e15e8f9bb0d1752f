"""Results in order, in bounded number, and errors in their turn."""

from __future__ import annotations

import threading

import pytest

from persona.codec.native import watch
from persona.merge.workers import first_run, in_order


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(in_order(lambda n: n * n, range(200), threads=7)) == [n * n for n in range(200)]


def test_no_more_results_than_the_window_are_under_way() -> None:
    lock = threading.Lock()
    ahead = most = 0

    def work(item: int) -> int:
        nonlocal ahead, most
        with lock:
            ahead += 1
            most = max(most, ahead)
        return item

    for _ in in_order(work, range(100), threads=3, ahead=2):
        with lock:
            ahead -= 1
    assert 0 < most <= 6


def test_of_small_results_more_may_wait() -> None:
    begun: list[int] = []
    held = threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item == 0:
            held.wait(20)
        elif item == 10:
            held.set()  # reached only where ten small ones may wait for the first
        return item

    assert list(in_order(work, range(20), threads=2, part=lambda _: 0.1)) == list(range(20))
    assert held.is_set()
    assert sorted(begun) == list(range(20))


def test_an_error_is_raised_when_its_turn_comes() -> None:
    def work(item: int) -> int:
        if item == 5:
            raise ValueError("five")
        return item

    results = in_order(work, range(100), threads=2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(results)


def test_closing_early_drops_what_is_queued() -> None:
    done = []
    results = in_order(done.append, range(1000), threads=2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(done) < 20


def test_progress_is_told_from_one_thread_at_a_time_that_kernels_are_compiled_too() -> None:
    inside = threading.Lock()
    told: list[str] = []

    def progress(label: str, done: int, total: int) -> None:
        assert inside.acquire(blocking=False), "told by two threads at once"
        told.append(label)
        if label == "merging":
            compiling.start()
            compiling.join(0.05)
            assert compiling.is_alive()
        inside.release()

    compiling = threading.Thread(target=watch.tell_of_compilation)
    with first_run(progress) as tell:
        assert tell is not None
        tell("merging", 1, 2)
        compiling.join()
    assert told == ["merging", watch.COMPILING]


def test_who_is_told_may_wait_for_a_kernel_that_is_being_compiled() -> None:
    told: list[str] = []

    def progress(label: str, done: int, total: int) -> None:
        told.append(label)
        compiling = threading.Thread(target=watch.tell_of_compilation)
        compiling.start()
        compiling.join()

    with first_run(progress) as tell:
        assert tell is not None
        tell("merging", 1, 2)
    assert told == ["merging"]
