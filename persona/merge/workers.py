"""Threads that run compiled kernels: their floating-point environment, and the wait for a compilation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager

from persona.codec.floats import in_default_environment
from persona.codec.native import watch_compilation
from persona.cores import MAX_THREADS, Item, Result, thread_count
from persona.cores import in_order as in_order_in_any_environment
from persona.progress import Compiling, Phase, Progress

WAITING_THREADS = 3
"""Threads that may wait for a device while the others work: as many as copy, compute and copy back."""


@contextmanager
def first_run(progress: Progress | None) -> Iterator[Progress | None]:
    """Tells `progress` if a first run has to compile the kernels, which takes some seconds.

    The block uses the yielded function instead of `progress`, so that one thread at a time calls it.
    """
    if progress is None:
        yield None
        return
    busy = threading.Lock()

    def tell(phase: Phase, done: int, total: int) -> None:
        with busy:
            progress(phase, done, total)

    def compiling(text: str) -> None:
        if busy.acquire(timeout=1):  # not for ever: the callback may wait for a kernel
            try:
                progress(Compiling(text, ""), 0, 0)
            finally:
                busy.release()

    with watch_compilation(compiling):
        yield tell


def worker_count(threads: int | None, waiting: bool) -> int:
    """Like `thread_count`, with a few more by default if the work waits for a device.

    So no core is idle.
    """
    return min(MAX_THREADS, thread_count(threads) + (WAITING_THREADS if waiting and threads is None else 0))


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int,
    ahead: int = 2,
    part: Callable[[Item], float] = lambda _: 1.0,
) -> Generator[Result, None, None]:
    """`persona.cores.in_order`; `work` runs in the default floating-point environment."""
    work = in_default_environment(work)
    return in_order_in_any_environment(work, items, threads=threads, ahead=ahead, part=part)
