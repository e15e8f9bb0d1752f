"""**table** — the ids of a manifest's chunks, 32 bytes each, without a header.

The ids stand tensor by tensor, in the manifest's order. The manifest says how many chunks each tensor has.
The code that joins the two refuses a table of another length. In a vector's table the null id stands for a
chunk in which nothing changed. For a tensor with a factor, a vector's table holds the chunks of A, then of B.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from persona.errors import IntegrityError
from persona.frozen import dataclass
from persona.objects.tensors import TensorSpec, chunk_count

if TYPE_CHECKING:
    from persona.objects.vector import Vector

ID_BYTES: Final = 32


@dataclass(frozen=True)
class Table:
    """Chunk ids by position, and the position of each tensor's first one."""

    data: bytes
    starts: dict[str, int]
    counts: dict[str, int]

    def chunks(self, tensor: str) -> list[str]:
        """The chunk ids of a tensor, in element order; empty for a tensor that the table does not hold."""
        if tensor not in self.starts:
            return []
        start = self.starts[tensor]
        return [self._id(index) for index in range(start, start + self.counts[tensor])]

    def chunk(self, tensor: str, index: int) -> str:
        """The id of chunk `index` of `tensor`."""
        return self._id(self.starts[tensor] + index)

    def without(self, tensors: Iterable[str]) -> Table:
        """The table as if it did not hold some tensors."""
        left_out = set(tensors)
        return Table(
            self.data, {name: at for name, at in self.starts.items() if name not in left_out}, self.counts
        )

    def extended(
        self, specs: Iterable[TensorSpec], chunk_elements: int, grown: Mapping[str, Sequence[str]]
    ) -> Table:
        """The table of an extended base (`persona.objects.growth`) with these tensors, from that of its base.

        `grown`: the ids of the chunks of its grown tensors.
        """
        data: list[bytes] = []
        counts: dict[str, int] = {}
        for spec in specs:
            name = spec.name
            counts[name] = chunk_count(spec, chunk_elements)
            start = ID_BYTES * self.starts.get(name, 0)
            own = self.data[start : start + ID_BYTES * counts[name]]
            data.append(encode_table(grown[name]) if name in grown else own)
        return _join(b"".join(data), counts, "the extended base's table")

    def __contains__(self, tensor: object) -> bool:
        return tensor in self.starts

    def __len__(self) -> int:
        return len(self.data) // ID_BYTES

    def _id(self, index: int) -> str:
        return self.data[index * ID_BYTES : (index + 1) * ID_BYTES].hex()


def encode_table(ids: Iterable[str]) -> bytes:
    """The payload of a table object."""
    return bytes.fromhex("".join(ids))


def decode_table(
    data: bytes, specs: Sequence[TensorSpec], chunk_elements: int, where: str = "table"
) -> Table:
    """Joins a table's payload with the tensors of its manifest; `IntegrityError` when the lengths differ."""
    return _join(data, {spec.name: chunk_count(spec, chunk_elements) for spec in specs}, where)


def decode_vector_table(data: bytes, vector: Vector, where: str = "table") -> Table:
    """Joins the payload of a vector's table with its tensors; `IntegrityError` when the lengths differ.

    The chunks of a dense tensor are deltas, one for each chunk of the base. The chunks of a tensor with a
    factor are those of A, then those of B; `factor_chunks` divides them.
    """
    counts: dict[str, int] = {}
    for spec in vector.tensors:
        parts = vector.parts.get(spec.name, (spec,))
        counts[spec.name] = sum(chunk_count(part, vector.chunk) for part in parts)
    return _join(data, counts, where)


def decode_grown_table(data: bytes, vector: Vector) -> Table:
    """Joins the payload of the table of a vector's grown tensors: the chunks that its deltas are relative to.

    `IntegrityError` when the lengths differ.
    """
    specs = [vector.spec[name] for name, _ in vector.grown]
    return decode_table(data, specs, vector.chunk, "the table of grown tensors")


def factor_chunks(table: Table, vector: Vector, spec: TensorSpec) -> tuple[list[str], list[str]]:
    """The ids of the chunks of A and of B of a tensor that has a factor."""
    ids = table.chunks(spec.name)
    of_a = chunk_count(vector.parts[spec.name][0], vector.chunk)
    return ids[:of_a], ids[of_a:]


def _join(data: bytes, counts: Mapping[str, int], where: str) -> Table:
    starts: dict[str, int] = {}
    total = 0
    for name, count in counts.items():
        starts[name] = total
        total += count
    if len(data) != total * ID_BYTES:
        raise IntegrityError(f"{where}: {len(data)} bytes where its manifest implies {total * ID_BYTES}")
    return Table(bytes(data), starts, dict(counts))
