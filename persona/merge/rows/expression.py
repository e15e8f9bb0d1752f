"""The rows of an expression: numbers, the sum of coefficients times the t of other vectors.

t = c_1 · τ_1 + c_2 · τ_2 + … in binary32: each product is rounded, then added, in order of the vectors' ids.
The vectors are read once, from their own sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from persona.codec.elements import of
from persona.frozen import dataclass
from persona.merge.arithmetic import cpu
from persona.merge.rows.source import NUMBER_BYTES, OpenedChunk, Source
from persona.objects import canonical
from persona.objects.recipe import to_binary32
from persona.objects.tensors import TensorSpec


def source_of(id: str, terms: Sequence[tuple[str, Source]], chunk: int) -> Source:
    """The source of an expression.

    `id`: its own; `terms`: canonical decimals and sources, in order of the vectors' ids; `chunk`: elements of
    a chunk. One vector with the coefficient 1 is that vector itself.
    """
    parts = tuple((to_binary32(coefficient), source) for coefficient, source in terms)
    if len(parts) == 1 and parts[0][0] == 1.0:
        return parts[0][1]
    return ExpressionSource(id, parts, chunk)


@dataclass(frozen=True)
class ExpressionSource:
    """A `Source` of numbers over other sources, each with its coefficient, a binary32.

    `identity`: the id of the expression.
    """

    identity: str
    parts: tuple[tuple[float, Source], ...]
    chunk: int
    keep: bool = True

    def reaches(self, name: str) -> bool:
        """See `Source`."""
        return any(source.reaches(name) for _, source in self.parts)

    def steps(self, spec: TensorSpec) -> bool:
        """See `Source`."""
        return False

    def elementwise(self, spec: TensorSpec) -> bool:
        """See `Source`."""
        return all(source.elementwise(spec) for _, source in self.parts if source.reaches(spec.name))

    def chunk_id(self, spec: TensorSpec, index: int) -> str | None:
        """See `Source`."""
        terms = [[coefficient.hex(), id] for coefficient, _, id in self._changes(spec, index)]
        return blake3(canonical.encode(terms)).hexdigest() if terms else None

    def scratch_bytes(self, spec: TensorSpec) -> int:
        """See `Source`."""
        sources = [source for _, source in self.parts if source.reaches(spec.name)]
        product = 0 if all(source.steps(spec) for source in sources) else NUMBER_BYTES
        most = max(source.scratch_bytes(spec) for source in sources)
        return most + product * min(spec.units, self.chunk)

    def read_steps(self, spec: TensorSpec, index: int, out: NDArray[Any]) -> None:
        """See `Source`: an expression has no steps."""
        raise AssertionError("an expression has no steps")

    def read_numbers(self, chunk: OpenedChunk, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """See `Source`."""
        spec, first = chunk.spec, True
        code = of(spec.dtype).code
        for coefficient, source, _ in self._changes(spec, chunk.index):
            if source.steps(spec):
                base, z = chunk.base[start:stop], chunk.z(source)[start:stop]
                cpu.add_differences(base, z, coefficient, code, out, first=first)
            else:
                t = out if first else chunk.space.products(stop - start)
                source.read_numbers(chunk, start, stop, t)
                with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                    np.multiply(t, np.float32(coefficient), out=t)
                    if not first:
                        np.add(out, t, out=out)
            first = False
        if first:
            out[:] = 0

    def _changes(self, spec: TensorSpec, index: int) -> list[tuple[float, Source, str]]:
        """The parts that changed a chunk, each with what decides its row there."""
        found: list[tuple[float, Source, str]] = []
        for coefficient, source in self.parts:
            id = source.chunk_id(spec, index) if source.reaches(spec.name) else None
            if id is not None:
                found.append((coefficient, source, id))
        return found
