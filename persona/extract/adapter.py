"""A plan's change as the tensors of a PEFT adapter: decided from manifests first, then computed.

A tensor is held in one of three ways. *exact*: its change is a sum of factors (`combination`), which are
joined. *cut*: it is decomposed, or the joined factors are, and the largest singular values stay. *whole*: the
adapter holds the tensor itself, because no factor can.

Memory: the change of one matrix for each thread, in binary32, and its factors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from persona.cores import thread_count
from persona.errors import InvalidInput, Keyword
from persona.extract import svd
from persona.extract.combination import Summand, is_dense, summands
from persona.frozen import dataclass
from persona.limits import CHUNK_MEMORY
from persona.merge.arithmetic import casts
from persona.merge.plan import Plan, TensorPlan
from persona.merge.rows.reader import ChunkReader
from persona.merge.run.merger import Merger, merger_of
from persona.merge.workers import first_run, in_order
from persona.objects.dtypes import DTYPES, uint
from persona.objects.recipe import to_binary32
from persona.objects.table import Table, decode_vector_table, factor_chunks
from persona.objects.tensors import TensorSpec, chunk_span
from persona.objects.vector import Vector
from persona.progress import EXTRACTING, Progress
from persona.weights.adapter_layout import (
    FactorEntry,
    WholeEntries,
    is_position,
    is_router,
    layout_of,
    whole_entries,
)
from persona.weights.tied import may_have_aliases

RANK: Final = 64
"""The rank of a matrix that is decomposed, if nobody gives another."""
F32: Final = "F32"


@dataclass(frozen=True)
class Part:
    """One matrix of an adapter.

    `summands`: the factors that it is joined or cut from; none for the decomposition of a change.
    """

    tensor: TensorPlan
    entry: FactorEntry
    summands: tuple[Summand, ...]
    exact: bool


@dataclass(frozen=True)
class Layout:
    """What an adapter of a plan holds: `parts` in byte order of tensor names, and the tensors held whole."""

    parts: tuple[Part, ...]
    whole: WholeEntries

    def specs(self) -> list[TensorSpec]:
        """The tensors of the file."""
        found = [spec for part in self.parts for spec in part.entry.specs()]
        for key, spec in self.whole.entries.items():
            found.append(TensorSpec(key, spec.dtype, spec.shape))
        return found


@dataclass(frozen=True)
class Made:
    """One tensor of the base in the adapter, computed: the bytes of each tensor of the file by its key.

    `how`: "exact", "cut", "whole" or "left out". `energy` of the change, and the part `kept` of it (float64).
    """

    spec: TensorSpec
    how: str
    rank: int | None
    energy: float
    kept: float
    data: Mapping[str, NDArray[Any]]


def layout(
    plan: Plan,
    vectors: Mapping[str, Vector],
    config: Mapping[str, Any],
    rank: int | None,
    dtype: str | None,
    *,
    whole: bool,
) -> Layout:
    """What an adapter holds of the change of a plan. No chunk is read.

    `vectors`: the manifests of the plan, those that expressions are made of included. `config`: the base's
    config.json. `rank`: the most that a matrix gets; None leaves exact factors as they are and cuts the
    others at `RANK`. `dtype` of factors; None: that of a lone factor, else F32. Without `whole`, tensors that
    no factor can hold are left out.
    """
    parts: list[Part] = []
    others: list[TensorSpec] = []
    for tensor in plan.tensors:
        if tensor.way == "base":
            continue
        shared = may_have_aliases(tensor.spec, plan.base.spec, plan.base.tied, config)
        part = _part(plan, vectors, tensor, layout_of(tensor.spec, config), rank, dtype, shared=shared)
        if isinstance(part, Part):
            parts.append(part)
        elif part:
            others.append(tensor.spec)
    entries = [part.entry for part in parts]
    if whole:
        return Layout(tuple(parts), whole_entries(others, entries, plan.base.tensors))
    return Layout(tuple(parts), WholeEntries({}, (), "none", tuple(spec.name for spec in others)))


def _part(
    plan: Plan,
    vectors: Mapping[str, Vector],
    tensor: TensorPlan,
    how: str | None,
    limit: int | None,
    dtype: str | None,
    *,
    shared: bool,
) -> Part | bool:
    """The factor of a tensor; True if the tensor has to be held whole, False if its change is nothing.

    `shared`: whether the model may hold it under other names too. PEFT would load a whole tensor as a copy of
    its own, and leaves the others as they are.
    """
    spec, terms = tensor.spec, summands(plan, vectors, tensor)
    if terms is not None and not terms:
        return False
    if how is None or (
        terms is None
        and (
            how == "convolution"
            or is_router(spec)
            or is_position(spec)
            or (is_dense(plan, vectors, tensor) and not shared)
        )
    ):
        return True
    joined = sum(term.factor.rank for term in terms or ())
    exact = terms is not None and (limit is None or joined <= limit)
    if exact:
        own = terms[0] if terms is not None and len(terms) == 1 else None
        entry = FactorEntry(
            spec, how, joined, own.scale if own else 1.0, dtype or (own.factor.dtype if own else F32)
        )
    else:
        most = min(limit or RANK, spec.shape[0], spec.elements // spec.shape[0])
        entry = FactorEntry(spec, how, most, 1.0, dtype or F32)
    return Part(tensor, entry, tuple(terms or ()), exact)


def compute(
    plan: Plan,
    layout: Layout,
    *,
    threads: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Made]:
    """Every part of a layout, then every tensor that is held whole or left out.

    `memory`: bytes for chunks and matrices, see `persona.merge.memory`; fewer threads run if it is short.
    Raises `InvalidInput` for weights that are not finite, `UsageError` for too little memory, and the errors
    of reading the store.
    """
    count = thread_count(threads)
    held: list[tuple[str | None, TensorPlan]] = []
    held += [(key, plan.by_name[spec.name]) for key, spec in layout.whole.entries.items()]
    held += [(None, plan.by_name[name]) for name in layout.whole.left_out]
    total = sum(part.tensor.spec.nbytes for part in layout.parts) + sum(
        tensor.spec.nbytes for _, tensor in held
    )
    done = 0

    def told(made: Made) -> Made:
        nonlocal done
        done += made.spec.nbytes
        if progress:
            progress(EXTRACTING, done, total)
        return made

    with first_run(progress) as progress:
        for group in _groups(layout.parts, count, memory):
            beside = max(map(_scratch_bytes, group))
            tensors = [part.tensor for part in group if not part.summands]
            merger = merger_of(plan, tensors, count, memory, progress, beside=beside)
            yield from map(told, in_order(_Worker(plan, merger).part, group, threads=merger.budget.threads))
        beside = max((tensor.spec.nbytes for _, tensor in held), default=0)
        merger = merger_of(plan, [tensor for _, tensor in held], count, memory, progress, beside=beside)
        whole = _Worker(plan, merger).whole
        yield from map(told, in_order(lambda item: whole(*item), held, threads=merger.budget.threads))


def _groups(parts: tuple[Part, ...], threads: int, memory: int | None) -> list[list[Part]]:
    """The parts in groups that are computed one after another: large matrices do not slow down small ones.

    A group is computed by as many threads as its largest matrix allows. The large ones come first, so that
    too little memory is refused at once.
    """
    most = (memory or CHUNK_MEMORY) // (2 * threads)
    small = [part for part in parts if _scratch_bytes(part) <= most]
    large = [part for part in parts if _scratch_bytes(part) > most]
    return [group for group in (large, small) if group]


def _scratch_bytes(part: Part) -> int:
    rows = part.tensor.spec.shape[0]
    columns = part.tensor.spec.elements // rows
    if part.summands:
        joined = sum(term.factor.rank for term in part.summands)
        return 24 * (rows + columns) * (joined + part.entry.rank)
    return svd.scratch_bytes(rows, columns, part.entry.rank)


class _Worker:
    """Computes single tensors; called by many threads."""

    def __init__(self, plan: Plan, merger: Merger) -> None:
        self.plan = plan
        self.merger = merger
        self.reader = ChunkReader(plan.store.objects, plan.base.chunk)
        # By the vector's object, which the parts keep alive. A large vector has a long table.
        self._tables: dict[int, Table] = {}

    def part(self, part: Part) -> Made:
        """The factors of one matrix."""
        spec, entry = part.tensor.spec, part.entry
        if part.summands:
            a, b, energy, kept = self._joined(part)
        else:
            matrix = self._change(part.tensor).reshape(spec.shape[0], -1)
            seed = int.from_bytes(blake3(spec.name.encode()).digest()[:8], "little")
            made = svd.truncated(matrix, entry.rank, seed)
            a, b, energy, kept = made.a, made.b, made.energy, made.kept
        if entry.transposes:
            a, b = a.T, b.T
        data = {
            file.name: _narrowed(array, entry.dtype).reshape(file.shape)
            for file, array in zip(entry.specs(), (a, b), strict=True)
        }
        if any(casts.has_not_finite(bits, entry.dtype) for bits in data.values()):
            dtype = DTYPES[entry.dtype].torch
            raise InvalidInput(
                f"tensor {spec.name}: its factors have elements that are not finite in {dtype}",
                hint=("choose another ", Keyword("dtype"), ", or a smaller strength"),
            )
        return Made(spec, "exact" if part.exact else "cut", entry.rank, energy, kept, data)

    def whole(self, key: str | None, tensor: TensorPlan) -> Made:
        """A tensor as the plan makes it; without a key, only the energy of its change."""
        if key is not None and not tensor.spec.merged:  # a counter, beside the weights of its module
            return Made(tensor.spec, "whole", None, 0.0, 0.0, {key: self._raw(tensor)})
        bits = np.empty(tensor.spec.units, tensor.spec.bits_dtype)
        energy = 0.0
        for start, new, change in self._chunks(tensor):
            bits[start : start + new.size] = new
            energy += svd.energy_of(change)
        if key is None:
            return Made(tensor.spec, "left out", None, energy, 0.0, {})
        return Made(tensor.spec, "whole", None, energy, energy, {key: bits})

    def _raw(self, tensor: TensorPlan) -> NDArray[np.uint8]:
        """The bytes of a tensor of a dtype that no vector changes."""
        chunks = self.plan.rows.chunks
        parts = [chunks.raw(tensor.spec, index) for index in range(self.plan.chunks(tensor))]
        return np.frombuffer(b"".join(parts), np.uint8)

    def _change(self, tensor: TensorPlan) -> svd.Matrix:
        """Weights − base of a whole tensor."""
        found = np.empty(tensor.spec.units, np.float32)
        for start, _, change in self._chunks(tensor):
            found[start : start + change.size] = change
        return found

    def _chunks(self, tensor: TensorPlan) -> Iterator[tuple[int, NDArray[Any], svd.Matrix]]:
        """(first element, bits of the weights, weights − base in binary32) of each chunk of a tensor.

        The difference is 0 where both have the same bits. The bits are valid until the next chunk.
        """
        spec, plan = tensor.spec, self.plan
        longest = min(spec.units, plan.base.chunk)
        new, old = np.empty((2, longest), spec.bits_dtype)
        for index in range(plan.chunks(tensor)):
            start, stop = chunk_span(spec, index, plan.base.chunk)
            after, before = new[: stop - start], old[: stop - start]
            bad = self.merger.chunk_into(tensor, index, after)
            self.merger.rows.base(spec, index, before)
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                change = casts.widen32(after, spec.dtype) - casts.widen32(before, spec.dtype)
            change[after == before] = 0.0
            if bad or not np.isfinite(change).all():
                raise InvalidInput(
                    f"tensor {spec.name}: some elements of its change are not finite, which an adapter cannot"
                    " hold; lower alpha or lambda"
                )
            yield start, after, change

    def _joined(self, part: Part) -> tuple[NDArray[Any], NDArray[Any], float, float]:
        """A, B, the energy and its kept part of a sum of factors."""
        spec, entry = part.tensor.spec, part.entry
        pairs = [self._factor(term, spec) for term in part.summands]
        if part.exact and len(pairs) == 1:
            term, (a, b) = part.summands[0], pairs[0]
            factor = term.factor
            wide = [casts.widen(bits, factor.dtype).astype(np.float64) for bits in (a, b)]
            energy = svd.of_product(wide[1], wide[0]).energy * term.scale**2
            if entry.dtype != factor.dtype:
                a, b = (casts.widen(bits, factor.dtype) for bits in (a, b))
                return a, -b if term.coefficient < 0 else b, energy, energy
            if term.coefficient < 0:
                b = b ^ b.dtype.type(1 << (8 * b.itemsize - 1))  # the sign
            return a, b, energy, energy
        many_a, many_b = [], []
        for term, (a, b) in zip(part.summands, pairs, strict=True):
            strength = term.coefficient * to_binary32(term.factor.scale)
            many_a.append(casts.widen(a, term.factor.dtype).astype(np.float64))
            many_b.append(casts.widen(b, term.factor.dtype).astype(np.float64) * strength)
        made = svd.of_product(
            np.concatenate(many_b, 1), np.concatenate(many_a), None if part.exact else entry.rank
        )
        return made.a, made.b, made.energy, made.kept

    def _factor(self, term: Summand, spec: TensorSpec) -> tuple[NDArray[Any], NDArray[Any]]:
        """The bits of A [rank, columns] and B [rows, rank] of a stored factor."""
        vector = term.vector
        assert vector.table is not None
        table = self._tables.get(id(vector))
        if table is None:
            data = self.plan.store.objects.get(vector.table, "table")
            table = self._tables[id(vector)] = decode_vector_table(data, vector)
        a, b = factor_chunks(table, vector, spec)
        return self._matrix(term.factor.a(spec), a), self._matrix(term.factor.b(spec), b)

    def _matrix(self, spec: TensorSpec, ids: list[str]) -> NDArray[Any]:
        out = np.empty(spec.units, uint(spec.unit))
        for index, id in enumerate(ids):
            start, stop = chunk_span(spec, index, self.plan.base.chunk)
            self.reader.base(spec, id, index, out[start:stop])
        return out.reshape(spec.shape[1:])


def _narrowed(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """An array as bits of a dtype, row-major. Floats are rounded, bits stay."""
    array = np.ascontiguousarray(array)
    if array.dtype.kind == "u":
        return array
    return casts.narrow32(array, dtype) if array.itemsize == 4 else casts.narrow(array, dtype)
