"""**memory budget** — how many threads merge at a time, and how much memory each has for its chunk's rows.

A thread needs a few arrays of a chunk's elements for any recipe (`_ARRAYS`), a row for each term that reaches
the tensor, and what the sources of these rows need beside them. All threads share the decoded factors of
adapters. If the budget does not hold that for every thread, fewer threads run. If it does not hold it for one
thread, that thread merges a chunk in slices.
"""

from __future__ import annotations

from typing import Final

from persona.errors import Keyword, UsageError
from persona.limits import CHUNK_MEMORY, MIB
from persona.merge.arithmetic import layout
from persona.merge.arithmetic.cpu import scratch_bytes
from persona.merge.plan import Plan, TensorPlan
from persona.merge.rows.slices import Budget

_ARRAYS: Final = 8
"""Arrays of a chunk's elements that a thread needs.

Decoded, in exponent order, a row in passing, the records and their segments, two outputs.
"""


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
        elements, row_bytes = (
            min(tensor.spec.units, plan.base.chunk),
            plan.rows.row_bytes(tensor.spec, tensor.terms),
        )
        arrays = elements * (tensor.spec.unit * _ARRAYS + layout.ORDER_BYTES)
        fixed = max(fixed, beside + arrays + plan.rows.scratch_bytes(tensor.spec, tensor.terms))
        rows = max(rows, elements * row_bytes)
        shortest = min(elements, layout.SHORTEST_SLICE) if tensor.way == "merge" else elements
        least = max(least, shortest * row_bytes)
    fixed += max((scratch_bytes(len(tensor.terms)) for tensor in tensors if tensor.way == "merge"), default=0)
    shared = plan.rows.shared
    if memory is not None and memory < shared + fixed + least:
        needed = -(-(shared + fixed + least) // MIB)
        raise UsageError(
            f"this recipe's chunks need at least {needed} MiB of memory",
            hint=("give ", Keyword(memory=needed * MIB), " or more, or set checkout.memory to that"),
        )
    if memory is None:
        memory = max(CHUNK_MEMORY, shared + fixed + least)
    memory -= shared
    affordable = max(1, min(threads, memory // max(1, fixed + rows)))
    return Budget(affordable, max(least, memory // affordable - fixed))
