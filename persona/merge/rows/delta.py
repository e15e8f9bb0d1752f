"""The rows of a delta: steps, stored in exponent order, one chunk for each chunk of the base."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.codec.elements import of
from persona.frozen import dataclass
from persona.merge.arithmetic import cpu
from persona.merge.rows.reader import BaseChunks
from persona.merge.rows.source import OpenedChunk, Source
from persona.objects.ids import NULL_ID
from persona.objects.table import Table
from persona.objects.tensors import TensorSpec


@dataclass(frozen=True)
class DeltaSource:
    """A `Source` of steps. `identity`: the vector's id; `table`: the ids of its chunks."""

    identity: str
    chunks: BaseChunks
    table: Table
    keep: bool = True

    def reaches(self, name: str) -> bool:
        """See `Source`."""
        return name in self.table

    def steps(self, spec: TensorSpec) -> bool:
        """See `Source`."""
        return True

    def elementwise(self, spec: TensorSpec) -> bool:
        """See `Source`."""
        return True

    def chunk_id(self, spec: TensorSpec, index: int) -> str | None:
        """See `Source`."""
        id = self.table.chunk(spec.name, index)
        return None if id == NULL_ID else id

    def scratch_bytes(self, spec: TensorSpec) -> int:
        """See `Source`."""
        return 0

    def read_steps(self, spec: TensorSpec, index: int, out: NDArray[Any]) -> None:
        """See `Source`."""
        self.chunks.delta(spec, self.table.chunk(spec.name, index), index, out)

    def read_numbers(self, chunk: OpenedChunk, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """See `Source`."""
        differences(self, chunk, start, stop, out)


def differences(source: Source, chunk: OpenedChunk, start: int, stop: int, out: NDArray[np.float32]) -> None:
    """`Source.read_numbers` of a source of steps: t = f − b."""
    if source.chunk_id(chunk.spec, chunk.index) is None:
        out[:] = 0
        return
    base, z = chunk.base[start:stop], chunk.z(source)[start:stop]
    cpu.add_differences(base, z, 1.0, of(chunk.spec.dtype).code, out, first=True)
