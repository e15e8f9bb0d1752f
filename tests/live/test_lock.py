"""Who gets a live model's weights, and when: nobody in the middle of a merge, nobody never."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import torch

import persona
from persona.errors import BusyError, UsageError
from persona.live.lock import ModelLock


class Model(torch.nn.Module):
    """A model whose forward pass is a function."""

    def forward(self, inside: Callable[[], object] = lambda: None) -> None:
        inside()


class Watched(threading.Condition):
    """A condition that tells when a thread is about to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: SimpleQueue[str] = SimpleQueue()

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.put(threading.current_thread().name)
        return super().wait(timeout)


class Harness:
    """A model with its lock, and threads that use it."""

    def __init__(self) -> None:
        self.model = Model()
        self.lock = ModelLock(self.model, self)
        self.lock._condition = self.condition = Watched()
        self.order: list[str] = []
        self.entries: SimpleQueue[str] = SimpleQueue()
        self.threads: list[threading.Thread] = []

    def start(self, name: str, run: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=run, name=name, daemon=True)
        self.threads.append(thread)
        thread.start()
        return thread

    def waits(self, name: str) -> None:
        """Returns when the thread of that name waits."""
        while self.condition.waits.get(timeout=30) != name:
            pass

    def enter(self, name: str) -> None:
        self.order.append(name)
        self.entries.put(name)

    def entered(self, name: str) -> None:
        """Returns when the thread of that name has the model."""
        while self.entries.get(timeout=30) != name:
            pass

    def use(self, name: str, until: threading.Event | None = None) -> threading.Thread:
        def run() -> None:
            with self.lock.using():
                self.enter(name)
                if until:
                    until.wait()

        return self.start(name, run)

    def merge(self, name: str, until: threading.Event | None = None) -> threading.Thread:
        def run() -> None:
            with self.lock.merging():
                self.enter(name)
                if until:
                    until.wait()

        return self.start(name, run)

    def is_used(self) -> bool:
        """Whether a merge of another thread finds the model in use."""
        found: list[bool] = []

        def run() -> None:
            try:
                with self.lock.merging(timeout=0):
                    found.append(False)
            except BusyError:
                found.append(True)

        self.start("look", run).join(30)
        return found[0]

    def join(self) -> None:
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def users() -> Harness:
    return Harness()


@contextmanager
def released(*events: threading.Event) -> Iterator[None]:
    """Sets the events at the end, so that no thread of a failed test waits for ever."""
    try:
        yield
    finally:
        for event in events:
            event.set()


# -- turns


def test_a_merge_that_waits_goes_before_users_that_come_later(users: Harness) -> None:
    leave = threading.Event()
    with released(leave), users.lock.using():
        users.merge("merge")
        users.waits("merge")
        for name in ("one", "two"):
            users.use(name)
            users.waits(name)
        users.order.append("first")
    users.join()
    assert users.order[:2] == ["first", "merge"]
    assert sorted(users.order[2:]) == ["one", "two"]


def test_users_that_waited_for_a_merge_go_before_the_next(users: Harness) -> None:
    done = threading.Event()
    with released(done):
        users.merge("first merge", done)
        users.entered("first merge")
        users.merge("second merge")
        users.waits("second merge")
        for name in ("one", "two"):
            users.use(name)
            users.waits(name)
    users.join()
    assert users.order[0] == "first merge"
    assert sorted(users.order[1:3]) == ["one", "two"]
    assert users.order[3] == "second merge"


def test_merges_go_in_order_of_arrival(users: Harness) -> None:
    with users.lock.using():
        for name in ("one", "two", "three"):
            users.merge(name)
            users.waits(name)
    users.join()
    assert users.order == ["one", "two", "three"]


def test_who_uses_the_model_goes_on_while_a_merge_waits(users: Harness) -> None:
    with users.lock.using():
        users.merge("merge")
        users.waits("merge")
        users.model(lambda: users.model(lambda: users.order.append("a pass in a pass")))
        with users.lock.using():
            users.order.append("a block in a block")
    users.join()
    assert users.order == ["a pass in a pass", "a block in a block", "merge"]


def test_another_thread_may_compute_the_answer_that_a_block_waits_for(users: Harness) -> None:
    with users.lock.using():
        users.merge("merge")
        users.waits("merge")
        users.start("generate", lambda: users.model(lambda: users.order.append("token"))).join(30)
    users.join()
    assert users.order == ["token", "merge"]


# -- what counts as use


def test_a_pass_in_a_pass_does_not_end_the_outer_one(users: Harness) -> None:
    seen: list[bool] = []

    def inside() -> None:
        users.model()
        seen.append(users.is_used())

    users.model(inside)
    assert seen == [True]
    assert not users.is_used()


def test_a_pass_that_its_hooks_refuse_does_not_end_the_outer_one(users: Harness) -> None:
    seen: list[bool] = []

    def refuse(*_: object) -> None:
        raise ValueError("no")

    def inside() -> None:
        hook = users.model.register_forward_pre_hook(refuse, prepend=True)
        with pytest.raises(ValueError, match="no"):
            users.model()
        hook.remove()
        seen.append(users.is_used())

    users.model(inside)
    assert seen == [True]
    assert not users.is_used()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_pass_that_an_error_ended_is_over_whatever_its_thread_does_next(
    users: Harness, error: type[BaseException]
) -> None:
    ended, leave = threading.Event(), threading.Event()

    def fail() -> None:
        raise error

    def run() -> None:
        with pytest.raises(error):
            users.model(fail)
        ended.set()
        leave.wait()

    with released(leave):
        users.start("fails", run)
        assert ended.wait(30)
        assert not users.is_used()
    users.join()


def test_a_pass_that_was_interrupted_in_an_outer_one_leaves_that_in_use(users: Harness) -> None:
    seen: list[bool] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    def inside() -> None:
        with pytest.raises(KeyboardInterrupt):
            users.model(interrupt)
        seen.append(users.is_used())

    users.model(inside)
    assert seen == [True]
    assert not users.is_used()


def test_a_pass_counts_while_its_thread_is_in_a_generator_or_has_left_one(users: Harness) -> None:
    seen: list[bool] = []

    def steps() -> Iterator[None]:
        seen.append(users.is_used())
        yield
        seen.append(users.is_used())

    def inside() -> None:
        for _ in steps():
            seen.append(users.is_used())

    users.model(inside)
    assert seen == [True, True, True]


def test_a_block_that_another_thread_leaves_is_left(users: Harness) -> None:
    block = users.lock.using()
    users.start("enters", block.__enter__).join(30)
    assert users.is_used()
    block.__exit__(None, None, None)
    assert not users.is_used()


def test_a_thread_that_would_wait_for_itself_is_told(users: Harness) -> None:
    def merge() -> None:
        with pytest.raises(BusyError, match="this thread itself"), users.lock.merging():
            pass

    with users.lock.using():
        merge()
    users.model(merge)
    with users.lock.merging():
        merge()
        with pytest.raises(BusyError, match="this thread is merging"):
            users.model()
        with pytest.raises(BusyError, match="this thread is merging"), users.lock.using():
            pass
    assert not users.is_used()


def test_nothing_reads_the_local_variables_of_a_frame() -> None:
    """Of another thread's frame that crashes CPython 3.11."""
    assert persona.__file__
    sources = [path.read_text() for path in Path(persona.__file__).parent.rglob("*.py")]
    assert len(sources) > 100
    assert not [text for text in sources if "f_locals" in text]


# -- timeouts


def test_a_merge_gives_up_in_time_and_says_who_uses_the_model(users: Harness) -> None:
    leave = threading.Event()
    with released(leave):
        users.use("reader", leave)
        users.entered("reader")
        expected = pytest.raises(BusyError, match=r"0 s, .*1 `using` block.*reader.*timeout=")
        with expected as refused, users.lock.merging(timeout=0):
            pass
    users.join()
    assert refused.value.exit_code == 6
    with users.lock.merging(timeout=None):
        pass


def test_a_merge_that_gave_up_keeps_nobody_out(users: Harness) -> None:
    gave_up = threading.Event()

    def run() -> None:
        try:
            with users.lock.merging(timeout=0.05):
                pass
        except BusyError:
            gave_up.set()

    with users.lock.using():
        users.start("merge", run)
        users.waits("merge")
        newcomer = users.use("newcomer")
        newcomer.join(30)
        assert gave_up.is_set()
        assert users.order == ["newcomer"]
    users.join()


@pytest.mark.parametrize("timeout", [-1, "2", True, float("nan")])
def test_a_timeout_is_a_number_of_seconds(users: Harness, timeout: Any) -> None:
    with pytest.raises(UsageError, match="timeout"), users.lock.merging(timeout=timeout):
        pass


@pytest.mark.parametrize("timeout", [0, Decimal("0.5"), Fraction(1, 2), np.float32(0.5), np.int64(1), None])
def test_a_timeout_is_any_number(users: Harness, timeout: Any) -> None:
    with users.lock.merging(timeout=timeout):
        pass
