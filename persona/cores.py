"""Work on all cores whose results arrive in order, in bounded memory.

At most `window` results are under way or waiting at a time, so that many buffers exist for any number of
items. The work itself (zstd, BLAKE3, compiled kernels, reads and writes) runs without the interpreter's lock,
so plain threads overlap.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from math import fsum
from typing import Final, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_THREADS: Final = 64
_MOST: Final = 8
"""Times as many small results may be under way as whole ones."""


def thread_count(threads: int | None) -> int:
    """`threads`, or one for each core that this process may use."""
    if threads is None:
        affinity = getattr(os, "sched_getaffinity", None)
        threads = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(threads, MAX_THREADS))


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    threads: int,
    ahead: int = 2,
    part: Callable[[Item], float] = lambda _: 1.0,
) -> Generator[Result, None, None]:
    """The results of `work` on each item, in the order of the items, computed by `threads` threads.

    At most `threads + ahead` results are under way or waiting. `part`: how much of a whole result's memory an
    item's result takes, above 0 and at most 1. More small results may wait, so that no thread is idle behind
    a large one. An error of an item is raised when its turn comes, and items that are still queued are
    dropped. Closing the generator early does the same.
    """
    window = threads + ahead
    waiting: deque[tuple[Future[Result], float]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="persona") as pool:
        try:
            for item in items:
                waiting.append((pool.submit(work, item), part(item)))
                while len(waiting) >= window and (
                    len(waiting) >= _MOST * window or fsum(share for _, share in waiting) > window - 1
                ):
                    yield waiting.popleft()[0].result()
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            for future, _ in waiting:
                future.cancel()
