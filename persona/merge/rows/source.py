"""**source** — an object that gives a merge the rows of one vector, whatever the vector's kind.

A source belongs to one base. Plans, memory budgets, keys and cut-offs ask the source, and know no kind. Rows
of steps give the fine-tuned elements f. Rows of numbers have no f, so the exactness rules 2 and 3 of
docs/numerics.md never apply to them.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from persona.codec.delta import element_order, exponent_order, exponent_starts
from persona.merge.arithmetic import cpu
from persona.merge.rows.reader import BaseChunks, Workspace
from persona.objects.tensors import TensorSpec

NUMBER_BYTES: Final = 4
"""Bytes of an element of a row of numbers."""


class Source(Protocol):
    """The rows of one vector relative to one base. Thread-safe."""

    @property
    def identity(self) -> str:
        """Decides every row: 64 hex digits, equal for sources that give equal rows. Keys hold it."""

    @property
    def keep(self) -> bool:
        """Whether rows of numbers are worth memory: they take longer to compute than to read there."""

    def reaches(self, name: str) -> bool:
        """Whether the vector changes a tensor."""

    def steps(self, spec: TensorSpec) -> bool:
        """Whether its rows at this tensor hold steps."""

    def elementwise(self, spec: TensorSpec) -> bool:
        """Whether t of an element follows from the base and from steps at this element.

        Then `read_numbers` also takes a chunk in exponent order.
        """

    def chunk_id(self, spec: TensorSpec, index: int) -> str | None:
        """Decides the row of this chunk; None if nothing changed there. The tensor is one that it reaches."""

    def scratch_bytes(self, spec: TensorSpec) -> int:
        """Bytes that a thread needs beside the row."""

    def read_steps(self, spec: TensorSpec, index: int, out: NDArray[Any]) -> None:
        """z of a chunk in exponent order into all of out: uint[n]. Only where `steps` says so."""

    def read_numbers(self, chunk: OpenedChunk, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """t of the elements [start, stop) of a chunk, in its order, into out: float32[stop − start].

        A source of steps gives t = f − b. 0 where nothing changed.
        """


class OpenedChunk:
    """One chunk of a base in the order of its elements, opened by one thread in its workspace.

    base: uint[n].
    """

    def __init__(
        self, spec: TensorSpec, index: int, base: NDArray[Any], space: Workspace, chunk: int
    ) -> None:
        """`chunk`: elements of the base's chunks. `base` may be an array of the workspace."""
        self.spec = spec
        self.index = index
        self.first = index * chunk
        """The index in its tensor of the chunk's first element."""
        self.base = base
        self.space = space
        self._ordered = False

    @classmethod
    def open(cls, chunks: BaseChunks, spec: TensorSpec, index: int, space: Workspace) -> OpenedChunk:
        """Reads a chunk into `space.base`."""
        return cls(spec, index, chunks.read(spec, index, space.base), space, chunks.chunk)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(self.base.size)

    @property
    def order(self) -> NDArray[np.uint32]:
        """The exponent order: uint32[n]."""
        order = self.space.order[: self.size]
        if not self._ordered:
            exponent_order(self.base, self.spec.dtype, order, self.space.sorted_base[: self.size])
            self._ordered = True
        return order

    @property
    def sorted_base(self) -> NDArray[Any]:
        """The base in exponent order: uint[n]."""
        return self.space.sorted_base[: self.order.size]

    def sorted(self) -> SortedChunk:
        """The chunk in exponent order."""
        return SortedChunk(self)

    def z(self, source: Source, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """The steps of a source in the order of the elements, into out: uint[n].

        Without `out` into an array that is valid until the next call.
        """
        space, size = self.space, self.size
        source.read_steps(self.spec, self.index, space.other[:size])
        if out is None:
            out = space.plain(size)
        if self._ordered:
            cpu.scatter(space.other[:size], self.order, out)
        else:
            element_order(self.base, self.spec.dtype, self._starts, space.other[:size], out[:size])
        return out

    @cached_property
    def _starts(self) -> NDArray[np.uint32]:
        return exponent_starts(self.base, self.spec.dtype)


class SortedChunk(OpenedChunk):
    """An opened chunk in exponent order, in which steps are stored. `base` is in this order: uint[n]."""

    def __init__(self, chunk: OpenedChunk) -> None:
        super().__init__(chunk.spec, chunk.index, chunk.sorted_base, chunk.space, 0)

    def z(self, source: Source, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """The steps of a source in exponent order, into out: uint[n]."""
        out = self.space.other[: self.size] if out is None else out
        source.read_steps(self.spec, self.index, out)
        return out
