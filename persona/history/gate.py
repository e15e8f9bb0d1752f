"""**gate** — who may have a model's weights: any number of users, or one merge, and nobody once a merge was
cut short.

A user is a forward pass of the model, known from its hooks, or a thread inside `using`. A merge waits until
there are none; users wait while one merges. A thread never waits for itself: that is `BusyError`.

An interrupt (Ctrl-C) ends a forward pass without telling the hooks. So a pass counts only while it stands on
its thread's stack.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from persona.errors import BusyError, Refused

_LOOK_AGAIN_SECONDS: Final = 0.1
"""How long a merge waits before it looks whether a forward pass was interrupted."""


class Gate:
    """The gate of one model; a copy of the model, or an unpickled one, has none.

    `shut` is None, or the sentence that says why nobody may use the model.
    """

    def __init__(self, model: Any, owner: object) -> None:
        self.shut: str | None = None
        self.owner: Callable[[], object | None] = weakref.ref(owner)
        self._model = weakref.ref(model)
        self._condition = threading.Condition()
        self._held: Counter[int] = Counter()
        self._passing: set[int] = set()
        self._merging: int | None = None
        self._waiting = 0
        self._hooks = [
            model.register_forward_pre_hook(self),
            model.register_forward_hook(self, always_call=True),
        ]

    @staticmethod
    def of(model: Any) -> Gate | None:
        """The gate that a model has."""
        return next((hook for hook in model._forward_pre_hooks.values() if isinstance(hook, Gate)), None)

    def remove(self) -> None:
        """Takes the gate away from its model."""
        for hook in self._hooks:
            hook.remove()

    def __call__(self, model: Any, inputs: Any, *result: Any) -> None:
        """The hook before a forward pass and, with its result, after it."""
        me = threading.get_ident()
        with self._condition:
            if result:
                self._passing.discard(me)
                self._condition.notify_all()
            else:
                self._admit(me)
                self._passing.add(me)

    def __reduce__(self) -> Any:
        return _no_gate, ()

    @contextmanager
    def using(self) -> Iterator[None]:
        """Holds the model against merges. Raises `Refused` while it is shut."""
        me = threading.get_ident()
        with self._condition:
            self._admit(me)
            self._held[me] += 1
        try:
            yield
        finally:
            with self._condition:
                self._held[me] -= 1
                self._held += Counter()  # without those at 0
                self._condition.notify_all()

    @contextmanager
    def merging(self) -> Iterator[None]:
        """Holds the model for a merge, shut or not, once its users have gone."""
        me = threading.get_ident()
        with self._condition:
            self._waiting += 1
            try:
                while True:
                    self._forget_interrupted()
                    if self._merging == me or self._is_user(me):
                        raise BusyError(
                            "this thread itself is using the model, or merging into it: leave `with"
                            " live.using()`, the forward pass or the progress callback first"
                        )
                    if self._merging is None and not self._users():
                        break
                    self._condition.wait(_LOOK_AGAIN_SECONDS)
                self._merging = me
            finally:
                self._waiting -= 1
                self._condition.notify_all()
        try:
            yield
        finally:
            with self._condition:
                self._merging = None
                self._condition.notify_all()

    def _admit(self, me: int) -> None:
        """Waits until the model may be used; where others use it already, a merge that waits goes on
        waiting.
        """
        if self._merging == me:
            raise BusyError("the model is being merged into by this very thread: use it when that is done")
        while self._merging is not None or (self._waiting and not self._users()):
            self._condition.wait()
        if self.shut is not None:
            raise Refused(self.shut)

    def _is_user(self, ident: int) -> bool:
        return self._held[ident] > 0 or ident in self._passing

    def _users(self) -> bool:
        return bool(self._passing) or any(count > 0 for count in self._held.values())

    def _forget_interrupted(self) -> None:
        model, stacks = self._model(), sys._current_frames()
        for ident in list(self._passing):
            frame = stacks.get(ident)
            while frame is not None and frame.f_locals.get("self") is not model:
                frame = frame.f_back
            if frame is None:
                self._passing.discard(ident)


def _no_gate() -> Callable[..., None]:
    return _pass


def _pass(*_: Any) -> None:
    """The hook of a model without a gate."""
