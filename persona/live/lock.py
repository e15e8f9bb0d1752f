"""**model lock** — who may use a model's weights: any number of users, or one merge.

A user is a forward pass of the model, known from its hooks, or a `using` block. A merge waits until there are
no users, and users wait during a merge. If a merge was cut short, nobody may use the model. Neither side
starves the other:

- While a merge waits, new users wait too. Two are let in: the thread that already uses the model, and, while
  a `using` block holds the model, forward passes of any thread. An answer is often computed by another
  thread, and the block waits for it.
- When a merge ends, the users that waited for it go before the next merge. Merges go in order of arrival.

A thread never waits for itself: that is `BusyError`.

An interrupt (Ctrl-C) ends a forward pass without calling the hooks. So each pass is known by a frame that
runs as long as the pass does. When that frame has ended, the pass has ended too.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from persona.errors import BusyError, Refused, UsageError
from persona.history.recipes.checked import number
from persona.limits import LIVE_TIMEOUT_SECONDS

_LOOK_AGAIN_SECONDS: Final = 0.1
"""How long a merge waits before it looks whether a forward pass was interrupted."""


class ModelLock:
    """The lock of one model; a copy of the model, or an unpickled one, has none.

    `shut` is None, or the reason why nobody may use the model.
    """

    def __init__(self, model: Any, owner: object) -> None:
        self.shut: str | None = None
        self.owner: Callable[[], object | None] = weakref.ref(owner)
        self._condition = threading.Condition()
        self._passes: dict[FrameType, threading.Thread] = {}
        self._holds: dict[object, threading.Thread] = {}
        self._merging: threading.Thread | None = None
        self._merges: list[object] = []
        """The merges that wait, in order of arrival."""
        self._waiting: set[object] = set()
        """The users that wait."""
        self._first: set[object] = set()
        """The waiting users that go before the next merge."""
        self._hooks = [
            model.register_forward_pre_hook(self),
            model.register_forward_hook(self, always_call=True),
        ]

    @staticmethod
    def of(model: Any) -> ModelLock | None:
        """The lock that a model has."""
        return next((hook for hook in model._forward_pre_hooks.values() if isinstance(hook, ModelLock)), None)

    def remove(self) -> None:
        """Takes the lock away from its model."""
        for hook in self._hooks:
            hook.remove()

    def __call__(self, model: Any, inputs: Any, *result: Any) -> None:
        """The hook before a forward pass and, with its result, after it."""
        # The frame that calls the hooks runs as long as the pass does, and no other pass has it.
        caller = sys._getframe(1)
        with self._condition:
            if result:
                self._passes.pop(caller, None)
                self._forget_ended()
                self._condition.notify_all()
            else:
                self._admit(holds=False)
                self._passes[caller] = threading.current_thread()

    def __reduce__(self) -> Any:
        return _no_lock, ()

    @contextmanager
    def using(self) -> Iterator[None]:
        """Holds the model against merges. Raises `Refused` while it is shut."""
        hold = object()
        try:
            with self._condition:
                self._admit(holds=True)
                self._holds[hold] = threading.current_thread()
            yield
        finally:
            with self._condition:
                self._holds.pop(hold, None)
                self._condition.notify_all()

    @contextmanager
    def merging(self, timeout: float | None = LIVE_TIMEOUT_SECONDS) -> Iterator[None]:
        """Holds the model for a merge, shut or not, once its users have gone.

        Raises `BusyError` after `timeout` seconds (None: waits for ever), and at once inside a user or a
        merge of this thread.
        """
        deadline = None if timeout is None else time.monotonic() + _checked(timeout)
        me, turn = threading.current_thread(), object()
        with self._condition:
            self._merges.append(turn)
            try:
                while not self._may_merge(me, turn):
                    left = _LOOK_AGAIN_SECONDS
                    if deadline is not None:
                        left = min(left, deadline - time.monotonic())
                    if left <= 0:
                        raise BusyError(
                            f"the model was in use for {timeout:g} s, by {self._users()}; its weights are"
                            " unchanged. Try again, or wait longer with timeout=SECONDS (None: for ever)"
                        )
                    self._condition.wait(left)
                self._merging = me
            finally:
                self._merges.remove(turn)
                self._condition.notify_all()
        try:
            yield
        finally:
            with self._condition:
                self._merging = None
                self._first = set(self._waiting)
                self._condition.notify_all()

    def _may_merge(self, me: threading.Thread, turn: object) -> bool:
        """Whether it is a merge's turn. Raises `BusyError` if it would wait for its own thread."""
        self._forget_ended()
        if self._merging is me or self._is_user(me):
            raise BusyError(
                "this thread itself is using the model, or merging into it: leave `with"
                " live.using()`, the forward pass or the progress callback first"
            )
        busy = self._merging is not None or self._passes or self._holds or self._first
        return not busy and self._merges[0] is turn

    def _admit(self, *, holds: bool) -> None:
        """Waits until this thread may use the model. `holds`: for a `using` block."""
        me, turn = threading.current_thread(), object()
        self._forget_ended()
        if self._merging is me:
            raise BusyError("this thread is merging into the model: use the model when that is done")
        self._waiting.add(turn)
        try:
            while not self._may_use(me, turn, holds):
                self._condition.wait()
        finally:
            self._waiting.discard(turn)
            self._first.discard(turn)
            self._condition.notify_all()
        if self.shut is not None:
            raise Refused(self.shut)

    def _may_use(self, me: threading.Thread, turn: object, holds: bool) -> bool:
        if self._merging is not None:
            return False
        if not self._merges or turn in self._first or self._is_user(me):
            return True
        return bool(self._holds) and not holds

    def _is_user(self, thread: threading.Thread) -> bool:
        return thread in self._passes.values() or thread in self._holds.values()

    def _users(self) -> str:
        """The users that a merge waits for, in words."""
        if self._merging is not None:
            return "another merge"
        names = sorted({thread.name for thread in (*self._passes.values(), *self._holds.values())})
        return (
            f"{len(self._passes)} forward passes and {len(self._holds)} `using` blocks ({', '.join(names)})"
        )

    def _forget_ended(self) -> None:
        """Drops the passes whose frames have ended."""
        for frame in list(self._passes):
            if not _is_executing(frame):
                del self._passes[frame]


def _is_executing(frame: FrameType) -> bool:
    """Whether a frame, of any thread, still runs.

    `frame.clear` refuses a frame that runs, and decides that in one step. A walk along `f_back` from a
    thread's top frame takes many steps: the thread goes on meanwhile, and a generator that it leaves has no
    `f_back` any more. For a frame that has ended, `clear` drops local variables, which nobody uses.
    """
    try:
        frame.clear()
    except RuntimeError:
        return True
    return False


def _checked(timeout: object) -> float:
    seconds = number(timeout)
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and seconds >= 0:
        return float(seconds)
    raise UsageError(f"timeout must be a number of seconds or None, not {timeout!r:.60}")


def _no_lock() -> Callable[..., None]:
    return _pass


def _pass(*_: Any) -> None:
    """The hook of a model without a lock."""
