"""**memory budget** — how many threads merge at a time, and how much memory each has for its chunk's vectors.

A thread needs a few arrays of a chunk's elements for any recipe (`_ARRAYS`), and a row for each vector that
reaches the tensor. If the budget does not hold that for every thread, fewer threads run. If it does not hold
it for one thread, that thread merges a chunk in slices.

**slice** — a part of a chunk in exponent order that is merged separately, to save memory.

The vectors are decoded again for each slice. That is slower, but takes the same memory for any number of
vectors.
"""

from __future__ import annotations

from typing import Final

from persona.errors import Keyword, UsageError
from persona.frozen import dataclass
from persona.limits import CHUNK_MEMORY, MIB
from persona.merge.arithmetic import layout
from persona.merge.arithmetic.cpu import scratch_bytes
from persona.merge.plan import Plan, TensorPlan

_ARRAYS: Final = 8
"""Arrays of a chunk's elements that a thread needs.

Decoded, in exponent order, a row in passing, the records and their segments, two outputs.
"""


@dataclass(frozen=True)
class Budget:
    """`threads`, and for each of them `rows` bytes for the rows of a chunk's vectors."""

    threads: int
    rows: int

    def slice(self, size: int, unit: int, rows: int) -> int:
        """Elements of a chunk that are merged at a time: all, or as many shortest slices as fit.

        `size`: elements of the chunk; `unit`: bytes of one; `rows`: vectors.
        """
        length = self.rows // (unit * max(1, rows))
        shortest = layout.SHORTEST_SLICE
        return size if length >= size else min(size, max(shortest, length // shortest * shortest))


def budget_of(
    plan: Plan, tensors: list[TensorPlan], threads: int, memory: int | None = None, *, beside: int = 0
) -> Budget:
    """The memory budget for merging these tensors on at most `threads` threads.

    `memory` is in bytes, by default `CHUNK_MEMORY`, or more if one thread needs that for its slices.
    `beside`: bytes that each thread takes for other work with a chunk. Raises `UsageError` for a memory in
    which not even slices fit.
    """
    rows = least = 0
    fixed = beside
    for tensor in tensors:
        elements = min(tensor.spec.units, plan.base.chunk)
        fixed = max(fixed, beside + elements * (tensor.spec.unit * _ARRAYS + layout.ORDER_BYTES))
        rows = max(rows, elements * tensor.spec.unit * len(tensor.terms))
        shortest = min(elements, layout.SHORTEST_SLICE) if tensor.way == "merge" else elements
        least = max(least, shortest * tensor.spec.unit * len(tensor.terms))
    fixed += max((scratch_bytes(len(tensor.terms)) for tensor in tensors if tensor.way == "merge"), default=0)
    if memory is not None and memory < fixed + least:
        needed = -(-(fixed + least) // MIB)
        raise UsageError(
            f"this recipe's chunks need at least {needed} MiB of memory",
            hint=("give ", Keyword(memory=needed * MIB), " or more, or set checkout.memory to that"),
        )
    if memory is None:
        memory = max(CHUNK_MEMORY, fixed + least)
    affordable = max(1, min(threads, memory // max(1, fixed + rows)))
    return Budget(affordable, max(least, memory // affordable - fixed))
