"""The merge of a plan's chunks: a thread takes each chunk through all steps, from reading to writing.

**piece** — the finished bytes of one chunk, for a caller that takes them one after another.

Memory is a few chunks for each thread, whatever the model's size. The memory of a piece is reused as soon as
the next piece is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from persona.codec.delta import exponent_order, restore
from persona.codec.elements import of as element_of
from persona.codec.floats import in_default_environment
from persona.errors import InvalidInput, Keyword
from persona.merge.arithmetic import cpu
from persona.merge.arithmetic.arguments import DecodedChunk, MergeArguments
from persona.merge.chunks import ChunkReader, Empty, Workspaces
from persona.merge.cutoffs import Cutoffs, cutoffs
from persona.merge.devices.choose import CPU, DeviceChoice, remedied
from persona.merge.devices.lanes import Lanes
from persona.merge.memory import Budget, budget_of
from persona.merge.plan import Plan, TensorPlan
from persona.merge.rules import MergeRules
from persona.merge.run.hashes import Buffers
from persona.merge.workers import in_order, worker_count
from persona.objects.dtypes import uint
from persona.objects.tensors import TensorSpec, chunk_span
from persona.progress import MERGING, Progress
from persona.store.files import Buffer

T = TypeVar("T")
NotFinite = Callable[[TensorSpec, int], None]
"""Called with a tensor and the number of its elements that are not finite by no exactness rule."""


@dataclass(frozen=True)
class Piece:
    """`data` are the raw little-endian bytes of `spec` from byte `start` on; `last` ends the tensor."""

    spec: TensorSpec
    start: int
    data: Buffer
    last: bool


class Merger:
    """Computes single chunks of a plan; called by many threads."""

    def __init__(
        self,
        plan: Plan,
        cuts: Cutoffs,
        room: Budget | None = None,
        lanes: Lanes | None = None,
        empty: Empty | None = None,
    ) -> None:
        """`lanes`: where terms are merged; without them, the thread itself merges.

        `empty` makes the arrays that a device may have to copy.
        """
        self.plan = plan
        self.room = room
        self.lanes = lanes
        self.elsewhere: frozenset[str] = frozenset()
        """Names of tensors whose opened chunks somebody else keeps."""
        empty = empty or (lanes.host if lanes else np.empty)
        self.reader = ChunkReader(plan.store.objects, plan.base.chunk)
        self.workspaces = Workspaces(plan.base.tensors, plan.base.chunk, empty)
        self.buffers = Buffers(empty)
        self.cuts = cuts
        self.rules = MergeRules.of(plan.recipe.rules)

    def chunk(self, tensor: TensorPlan, index: int) -> tuple[NDArray[np.uint8], int]:
        """The finished bytes of a chunk and how many elements are not finite.

        The bytes are in a buffer that may be longer.
        """
        spec = tensor.spec
        id = self.plan.base_table.chunk(spec.name, index)
        start, stop = chunk_span(spec, index, self.plan.base.chunk)
        nbytes = (stop - start) * spec.unit
        buffer = self.buffers.take(nbytes)
        if not spec.merged:
            buffer[:nbytes] = np.frombuffer(self.reader.base_bytes(spec, id, index), np.uint8)
            return buffer, 0
        out = buffer[:nbytes].view(uint(spec.unit))
        return buffer, self.merge_into(tensor, index, id, out)

    def merge_into(self, tensor: TensorPlan, index: int, base_id: str, out: NDArray[Any]) -> int:
        """Merges one chunk of a float tensor into `out`; returns how many elements are not finite."""
        parts = self.parts(tensor, index, base_id, out.size)
        if parts is None:
            self.reader.base(tensor.spec, base_id, index, out)
            return 0
        return self._merge(tensor, parts, out)

    def parts(self, tensor: TensorPlan, index: int, base_id: str, size: int) -> Iterable[DecodedChunk] | None:
        """One chunk of a tensor, decoded whole, or in slices of exponent order if memory is short.

        Each part is valid in this thread's workspace until the next one is asked for. None if the chunk is
        the base's.
        """
        if tensor.way == "base":
            return None
        if self.room and tensor.way == "merge" and self.room.slice(tensor) < size:
            return self._slices(tensor, index, base_id, size, self.room.slice(tensor))
        opened = self.open(tensor, index, base_id, size)
        return None if opened is None else (opened,)

    def _slices(
        self, tensor: TensorPlan, index: int, base_id: str, size: int, length: int
    ) -> Iterator[DecodedChunk]:
        spec, plan, space = tensor.spec, self.plan, self.workspaces.get(tensor.spec)
        rows = space.rows(len(tensor.terms), length)
        opened: DecodedChunk | None = None
        for start in range(0, size, length):
            stop = min(start + length, size)
            present: list[int] = []
            for term in tensor.terms:
                delta = plan.tables[plan.recipe.terms[term].vector].chunk(spec.name, index)
                if self.reader.delta(spec, delta, base_id, index, space.other[:size]):
                    rows[len(present), : stop - start] = space.other[start:stop]
                    present.append(term)
            if opened is None:
                opened = self._ordered(spec, index, base_id, present, rows)
            yield DecodedChunk(
                present, opened.sorted_base[start:stop], rows[: len(present)], opened.order[start:stop]
            )

    def open(self, tensor: TensorPlan, index: int, base_id: str, size: int) -> DecodedChunk | None:
        """One chunk of a tensor that terms reach, decoded in this thread's workspace.

        It is valid until the next one is opened. None if no term changed anything in it.
        """
        spec, plan = tensor.spec, self.plan
        space = self.workspaces.get(spec)
        rows = space.rows(len(tensor.terms), size)
        present: list[int] = []
        for term_index in tensor.terms:
            vector = plan.recipe.terms[term_index].vector
            delta = plan.tables[vector].chunk(spec.name, index)
            if self.reader.delta(spec, delta, base_id, index, rows[len(present), :size]):
                present.append(term_index)
        return self._ordered(spec, index, base_id, present, rows) if present else None

    def _ordered(
        self, spec: TensorSpec, index: int, base_id: str, present: list[int], rows: NDArray[Any]
    ) -> DecodedChunk:
        space = self.workspaces.get(spec)
        base = self.reader.base(spec, base_id, index, space.base)
        order, sorted_base = space.order[: base.size], space.sorted_base[: base.size]
        exponent_order(base, spec.dtype, order, sorted_base)
        return DecodedChunk(present, sorted_base, rows[: len(present)], order)

    def merge(self, tensor: TensorPlan, opened: DecodedChunk, out: NDArray[Any]) -> int:
        """Merges an opened chunk into `out`; returns how many elements are not finite."""
        return self._merge(tensor, (opened,), out)

    def _merge(self, tensor: TensorPlan, parts: Iterable[DecodedChunk], out: NDArray[Any]) -> int:
        if tensor.way == "lone":
            for opened in parts:
                restore(opened.sorted_base, opened.z[0, : out.size], opened.order, out)
            return 0
        mixture = partial(self.mixture, tensor)
        if self.lanes is not None:
            return self.lanes.merge(parts, mixture, out)
        return sum(cpu.merge_chunk(part, mixture(part.present), out) for part in parts)

    def mixture(self, tensor: TensorPlan, present: list[int]) -> MergeArguments:
        """How these of the terms that reach a tensor are merged there."""
        terms = [self.plan.recipe.terms[index] for index in present]
        return MergeArguments(
            theta=self.cuts.theta(tensor, present),
            alpha=np.array([term.alpha32 for term in terms], np.float32),
            add=np.array([term.join == "add" for term in terms], np.bool_),
            rules=self.rules,
            dtype=element_of(tensor.spec.dtype).code,
            majority=self.cuts.majority,
        )


def pieces(
    plan: Plan,
    tensors: list[TensorPlan],
    *,
    threads: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
    not_finite: NotFinite | None = None,
    place: DeviceChoice = CPU,
    tell: Callable[[str], None] = lambda _: None,
) -> Generator[Piece, None, None]:
    """The finished bytes of these tensors, in order.

    Without `not_finite`, elements that are not finite end the stream with `InvalidInput`. `memory`: see
    `persona.merge.memory`. `place` and `tell` as for `merger_of`.
    """
    merger = merger_of(plan, tensors, threads, memory, progress, place, tell)
    with remedied(), closing(each_span(merger, tensors, merger.chunk, progress, not_finite)) as made:
        for tensor, index, buffer in made:
            spec = tensor.spec
            start, stop = chunk_span(spec, index, plan.base.chunk)
            data = buffer.data[: (stop - start) * spec.unit]
            yield Piece(spec, start * spec.unit, data, stop == spec.units)
            merger.buffers.give(buffer)


@in_default_environment
def merger_of(
    plan: Plan,
    tensors: list[TensorPlan],
    threads: int | None,
    memory: int | None,
    progress: Progress | None,
    place: DeviceChoice = CPU,
    tell: Callable[[str], None] = lambda _: None,
) -> Merger:
    """The merger of these tensors of a plan, on the CPU or a device, within the memory budget.

    Cut-offs are found first, on the CPU. `tell` is called with the reason if it is not on the device that was
    asked for.
    """
    lanes = place.lanes(plan, tensors, tell)
    found = budget_of(plan, tensors, worker_count(threads, lanes is not None), memory)
    cuts = cutoffs(plan, tensors, threads=found.threads, room=found, progress=progress)
    return Merger(plan, cuts, found, lanes)


def each_span(
    merger: Merger,
    tensors: list[TensorPlan],
    work: Callable[[TensorPlan, int], tuple[T, int]],
    progress: Progress | None,
    not_finite: NotFinite | None,
) -> Generator[tuple[TensorPlan, int, T], None, None]:
    """(tensor, chunk index, result of `work`) for every chunk, in order.

    `work` also returns how many elements are not finite.
    """
    plan = merger.plan
    spans = [(tensor, index) for tensor in tensors for index in range(plan.chunks(tensor))]
    total = sum(tensor.spec.nbytes for tensor in tensors)
    done = bad = 0
    workers = merger.room.threads if merger.room else 1
    results = in_order(
        lambda span: work(*span), spans, threads=workers, part=partial(chunk_part, plan.base.chunk)
    )
    with closing(results):
        for (tensor, index), (made, count) in zip(spans, results, strict=True):
            spec = tensor.spec
            start, stop = chunk_span(spec, index, plan.base.chunk)
            bad += count
            if stop == spec.units and bad:
                tell_not_finite(spec, bad, not_finite)
                bad = 0
            yield tensor, index, made
            done += (stop - start) * spec.unit
            if progress:
                progress(MERGING, done, total)


def chunk_part(chunk: int, span: tuple[TensorPlan, int]) -> float:
    """How much of a whole chunk a tensor's chunk is."""
    tensor, index = span
    start, stop = chunk_span(tensor.spec, index, chunk)
    return (stop - start) / chunk


@in_default_environment
def tensor_bits(plan: Plan, room: Budget) -> Callable[[str, int], NDArray[Any]]:
    """A function of (tensor name, chunk index) that returns its materialised bits.

    It may run on as many threads as the memory budget has.
    """
    cuts = cutoffs(plan, list(plan.tensors), threads=room.threads, room=room)
    merger = Merger(plan, cuts, room)

    def chunk(name: str, index: int) -> NDArray[Any]:
        tensor = plan.by_name[name]
        start, stop = chunk_span(tensor.spec, index, plan.base.chunk)
        out = np.empty(stop - start, uint(tensor.spec.unit))
        if merger.merge_into(tensor, index, plan.base_table.chunk(name, index), out):
            raise InvalidInput(f"tensor {name} of the weights that the fine-tune started from is not finite")
        return out

    return chunk


def tell_not_finite(spec: TensorSpec, count: int, not_finite: NotFinite | None) -> None:
    """Tells `not_finite` of a tensor. Raises `InvalidInput` if there is none."""
    if not_finite is None:
        raise InvalidInput(
            f"tensor {spec.name}: {count} merged element{'s are' if count > 1 else ' is'} not finite",
            hint=("lower alpha or lambda, or give ", Keyword(allow_nonfinite=True), " to write NaN there"),
        )
    not_finite(spec, count)
