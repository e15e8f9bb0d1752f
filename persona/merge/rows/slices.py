"""**slice** — a part of a chunk that is merged separately, to save memory.

The rows are read again for each slice. That is slower, but takes the same memory for any number of vectors.
"""

from __future__ import annotations

from persona.frozen import dataclass
from persona.merge.arithmetic import layout


@dataclass(frozen=True)
class Budget:
    """`threads`, and for each of them `rows` bytes for the rows of a chunk's terms."""

    threads: int
    rows: int

    def slice(self, size: int, row_bytes: int) -> int:
        """Elements of a chunk that are merged at a time: all, or as many shortest slices as fit.

        `size`: elements of the chunk; `row_bytes`: of one element in all rows.
        """
        length = self.rows // max(1, row_bytes)
        shortest = layout.SHORTEST_SLICE
        return size if length >= size else min(size, max(shortest, length // shortest * shortest))
