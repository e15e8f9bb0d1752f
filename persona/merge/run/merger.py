"""The merge of a plan's chunks: a thread takes each chunk through all steps, from reading to writing.

**piece** — the finished bytes of one chunk, for a caller that takes them one after another.

Memory is a few chunks for each thread, whatever the model's size. The memory of a piece is reused as soon as
the next piece is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from persona.codec.delta import restore
from persona.codec.elements import of as element_of
from persona.codec.floats import in_default_environment
from persona.errors import InvalidInput, Keyword
from persona.frozen import dataclass
from persona.merge.arithmetic import cpu
from persona.merge.arithmetic.arguments import DecodedChunk, MergeArguments
from persona.merge.devices.choose import CPU, DeviceChoice, remedied
from persona.merge.devices.lanes import Lanes
from persona.merge.memory import budget_of
from persona.merge.plan import Plan, TensorPlan
from persona.merge.rows.reader import Empty, Workspaces
from persona.merge.rows.slices import Budget
from persona.merge.rows.stored import RowSource, StoredRows
from persona.merge.rules import MergeRules
from persona.merge.run.hashes import Buffers
from persona.merge.trim.cutoffs import Cutoffs, cutoffs
from persona.merge.workers import in_order, worker_count
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
        rows: RowSource,
        budget: Budget,
        lanes: Lanes | None = None,
        empty: Empty = np.empty,
    ) -> None:
        """`lanes`: where terms are merged; without them, the thread itself merges.

        `rows`: the source of the vectors' rows. `empty` makes the arrays of finished bytes, into which a
        device may copy.
        """
        self.plan = plan
        self.cuts = cuts
        self.rows = rows
        self.budget = budget
        self.lanes = lanes
        self.buffers = Buffers(empty)
        self.rules = MergeRules.of(plan.recipe.rules)

    def chunk(self, tensor: TensorPlan, index: int) -> tuple[NDArray[np.uint8], int]:
        """The finished bytes of a chunk and how many elements are not finite.

        The bytes are in a buffer that may be longer.
        """
        spec = tensor.spec
        start, stop = chunk_span(spec, index, self.plan.base.chunk)
        nbytes = (stop - start) * spec.unit
        buffer = self.buffers.take(nbytes)
        return buffer, self.chunk_into(tensor, index, buffer[:nbytes].view(spec.bits_dtype))

    def chunk_into(self, tensor: TensorPlan, index: int, out: NDArray[Any]) -> int:
        """Puts the finished elements of a chunk into `out`; returns how many are not finite.

        `out` is of the tensor's `bits_dtype`.
        """
        spec = tensor.spec
        if not spec.merged:
            out[:] = np.frombuffer(self.plan.rows.chunks.raw(spec, index), np.uint8)
            return 0
        parts = self.parts(tensor, index)
        if parts is None:
            self.rows.base(spec, index, out)
            return 0
        return self.merge(tensor, parts, out)

    def parts(self, tensor: TensorPlan, index: int, *, cache: bool = True) -> Iterable[DecodedChunk] | None:
        """One chunk of a tensor as `RowSource.parts` gives it; None if the chunk is the base's."""
        return self.rows.parts(tensor.spec, tensor.terms, index, cache=cache)

    def merge(self, tensor: TensorPlan, parts: Iterable[DecodedChunk], out: NDArray[Any]) -> int:
        """Merges the parts of a chunk into `out`; returns how many elements are not finite."""
        if tensor.way == "lone":
            for part in parts:
                restore(part.sorted_base, part.z[0, : out.size], part.order, out)
            return 0
        if self.lanes is not None:
            return self.lanes.merge(parts, partial(self.arguments, tensor), out)
        return sum(cpu.merge_chunk(part, self.arguments(tensor, part.present), out) for part in parts)

    def arguments(self, tensor: TensorPlan, present: list[int]) -> MergeArguments:
        """How these of the terms that reach a tensor are merged there."""
        terms = self.plan.recipe.terms
        return MergeArguments(
            theta=self.cuts.theta(tensor, present),
            alpha=np.array([tensor.alpha_of[index] for index in present], np.float32),
            add=np.array([terms[index].join == "add" for index in present], np.bool_),
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
    device: DeviceChoice = CPU,
    note: Callable[[str], None] = lambda _: None,
) -> Generator[Piece, None, None]:
    """The finished bytes of these tensors, in order.

    Without `not_finite`, elements that are not finite end the stream with `InvalidInput`. `memory`: see
    `persona.merge.memory`. `device` and `note` as for `merger_of`.
    """
    merger = merger_of(plan, tensors, threads, memory, progress, device, note)
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
    device: DeviceChoice = CPU,
    note: Callable[[str], None] = lambda _: None,
    *,
    beside: int = 0,
) -> Merger:
    """The merger of these tensors of a plan, on the CPU or a device, within the memory budget.

    Cut-offs are found first, on the CPU. `note` is called with the reason if it is not on the device that was
    asked for. `beside`: bytes that each thread takes for other work.
    """
    lanes = device.lanes(plan, tensors, note)
    budget = budget_of(plan, tensors, worker_count(threads, lanes is not None), memory, beside=beside)
    cuts = cutoffs(plan, tensors, budget, progress)
    empty = lanes.host if lanes else np.empty
    rows = StoredRows(plan.rows, budget, Workspaces(plan.base.tensors, plan.base.chunk, empty), cuts.filter)
    return Merger(plan, cuts, rows, budget, lanes, empty)


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
    results = in_order(
        lambda span: work(*span),
        spans,
        threads=merger.budget.threads,
        part=partial(chunk_part, plan.base.chunk),
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
def tensor_bits(plan: Plan, budget: Budget) -> Callable[[str, int], NDArray[Any]]:
    """A function of (tensor name, chunk index) that returns its materialised bits.

    It may run on as many threads as the memory budget has.
    """
    cuts = cutoffs(plan, plan.tensors, budget)
    workspaces = Workspaces(plan.base.tensors, plan.base.chunk)
    merger = Merger(plan, cuts, StoredRows(plan.rows, budget, workspaces, cuts.filter), budget)

    def chunk(name: str, index: int) -> NDArray[Any]:
        tensor = plan.by_name[name]
        start, stop = chunk_span(tensor.spec, index, plan.base.chunk)
        out = np.empty(stop - start, tensor.spec.bits_dtype)
        if merger.chunk_into(tensor, index, out):
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
