"""What the plan knows of the rows of a recipe's terms: their sources, and whether they hold steps."""

from __future__ import annotations

from collections.abc import Sequence

from persona.frozen import dataclass
from persona.merge.rows.reader import BaseChunks
from persona.merge.rows.source import NUMBER_BYTES, Source
from persona.objects.tensors import TensorSpec


@dataclass(frozen=True)
class TermSources:
    """The source of each term of a recipe, by index; terms with one vector share it.

    `rescaled`: the tensors, by name, and the terms whose trim makes numbers of steps there. `shared`: bytes
    that all threads together need for the sources.
    """

    chunks: BaseChunks
    sources: tuple[Source, ...]
    rescaled: frozenset[tuple[str, int]] = frozenset()
    shared: int = 0

    def steps(self, spec: TensorSpec, term: int) -> bool:
        """Whether the rows of a term at a tensor hold steps when they are merged, and not numbers."""
        return (spec.name, term) not in self.rescaled and self.sources[term].steps(spec)

    def elementwise(self, spec: TensorSpec, term: int) -> bool:
        """Whether the rows of a term at a tensor can be read in exponent order."""
        return (spec.name, term) not in self.rescaled and self.sources[term].elementwise(spec)

    def row_bytes(self, spec: TensorSpec, terms: Sequence[int]) -> int:
        """Bytes of one element in a row of each of these terms."""
        return sum(spec.unit if self.steps(spec, term) else NUMBER_BYTES for term in terms)

    def scratch_bytes(self, spec: TensorSpec, terms: Sequence[int]) -> int:
        """Bytes that a thread needs beside the rows of these terms."""
        if all(self.steps(spec, term) for term in terms):
            return 0
        in_order = min(spec.units, self.chunks.chunk) * spec.unit  # steps in the order of the elements
        return in_order + max(self.sources[term].scratch_bytes(spec) for term in terms)
