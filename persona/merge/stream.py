"""The merge as a stream: a thread takes a chunk through all that has to be done with it, from reading to
hashing and writing, and memory is a few chunks a thread, whatever the model's size.

**piece** — the finished bytes of one chunk, for those who want them one after another. Its memory belongs to
the stream again as soon as the next piece is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from persona.codec.delta import exponent_order, restore
from persona.codec.elements import of as element_of
from persona.codec.floats import in_default_environment
from persona.errors import InvalidInput, PersonaError
from persona.merge import cpu
from persona.merge.chunks import UINT, ChunkReader, Empty, Opened, Workspaces
from persona.merge.cutoffs import Cutoffs, cutoffs
from persona.merge.device import Mixture
from persona.merge.hashes import Buffers, Hashes
from persona.merge.lanes import Lanes
from persona.merge.pipeline import Progress, first_run, in_order, worker_count
from persona.merge.place import CPU, Place, remedied
from persona.merge.plan import Plan, TensorPlan
from persona.merge.room import Room, room
from persona.merge.rules import MergeRules
from persona.objects.digest import weights_digest
from persona.objects.tensors import TensorSpec, chunk_span
from persona.store.files import Buffer

T = TypeVar("T")
NotFinite = Callable[[TensorSpec, int], None]
"""Told of a tensor and how many of its elements are not finite where no exactness rule decides."""


@dataclass(frozen=True)
class Piece:
    """`data` are the raw little-endian bytes of `spec` from byte `start` on; `last` ends the tensor."""

    spec: TensorSpec
    start: int
    data: Buffer
    last: bool


class Source(Protocol):
    """Finished tensors of an earlier checkout that may be copied instead of computed again."""

    def holds(self, tensor: TensorPlan) -> str | None:
        """The BLAKE3 of the tensor's bytes as they should be, or None where it has to be computed."""

    def read_into(self, name: str, start: int, out: memoryview) -> bool:
        """Fills `out` with the tensor's bytes from byte `start` on; False when they cannot be had."""


class Sink(Protocol):
    """Where finished bytes go, from many threads and in any order."""

    def write(self, name: str, offset: int, data: Buffer) -> None:
        """Takes the bytes of tensor `name` from byte `offset` on."""

    def restart(self, name: str) -> None:
        """Forgets what it took of tensor `name`: it comes again, whole."""


class Cast(Protocol):
    """What becomes of finished tensors before they are hashed and written. Called by many threads."""

    def spec(self, spec: TensorSpec) -> TensorSpec:
        """What a tensor is afterwards; as many storage units as before."""

    def convert(self, spec: TensorSpec, data: Buffer) -> Buffer:
        """Some elements of a tensor, as they are written."""


@dataclass
class Materialised:
    """What a run over a plan produced. `tensor_digests`: name → BLAKE3 hex of its raw bytes; `device`: where
    terms were merged.
    """

    weights: str = ""
    tensor_digests: dict[str, str] = field(default_factory=dict)
    computed: int = 0
    reused: int = 0
    bytes_written: int = 0
    not_finite: dict[str, int] = field(default_factory=dict)
    device: str = "cpu"
    remarks: list[str] = field(default_factory=list)

    def tell(self, remark: str) -> None:
        """Takes a sentence for the user, once."""
        if remark not in self.remarks:
            self.remarks.append(remark)


class Merger:
    """Computes single chunks of a plan; called by many threads."""

    def __init__(
        self,
        plan: Plan,
        cuts: Cutoffs,
        room: Room | None = None,
        lanes: Lanes | None = None,
        empty: Empty | None = None,
    ) -> None:
        """`lanes`: where terms are merged; without, by the thread that has the chunk. `empty` makes the
        arrays that a device may be asked to copy.
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
        """The finished bytes of a chunk (in a buffer that may be longer) and how many elements are not
        finite.
        """
        spec = tensor.spec
        id = self.plan.base_table.chunk(spec.name, index)
        start, stop = chunk_span(spec, index, self.plan.base.chunk)
        nbytes = (stop - start) * spec.unit
        buffer = self.buffers.take(nbytes)
        if not spec.merged:
            buffer[:nbytes] = np.frombuffer(self.reader.base_bytes(spec, id, index), np.uint8)
            return buffer, 0
        out = buffer[:nbytes].view(UINT[spec.unit])
        return buffer, self.merge_into(tensor, index, id, out)

    def merge_into(self, tensor: TensorPlan, index: int, base_id: str, out: NDArray[Any]) -> int:
        """Merges one chunk of a float tensor into `out`; returns how many elements are not finite."""
        parts = self.parts(tensor, index, base_id, out.size)
        if parts is None:
            self.reader.base(tensor.spec, base_id, index, out)
            return 0
        return self._merge(tensor, parts, out)

    def parts(self, tensor: TensorPlan, index: int, base_id: str, size: int) -> Iterable[Opened] | None:
        """One chunk of a tensor, opened whole, or in slices of its exponent order where there is no room for
        that: each part lies in this thread's workspace until the next one is asked for. None where the chunk
        is the base's.
        """
        if tensor.way == "base":
            return None
        if self.room and tensor.way == "merge" and self.room.slice(tensor) < size:
            return self._slices(tensor, index, base_id, size, self.room.slice(tensor))
        opened = self.open(tensor, index, base_id, size)
        return None if opened is None else (opened,)

    def _slices(
        self, tensor: TensorPlan, index: int, base_id: str, size: int, length: int
    ) -> Iterator[Opened]:
        spec, plan, space = tensor.spec, self.plan, self.workspaces.get(tensor.spec)
        rows = space.rows(len(tensor.terms), length)
        opened: Opened | None = None
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
            yield Opened(
                present, opened.sorted_base[start:stop], rows[: len(present)], opened.order[start:stop]
            )

    def open(self, tensor: TensorPlan, index: int, base_id: str, size: int) -> Opened | None:
        """One chunk of a tensor that terms reach, in this thread's workspace until the next one is opened;
        None where none of them changed anything.
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
    ) -> Opened:
        space = self.workspaces.get(spec)
        base = self.reader.base(spec, base_id, index, space.base)
        order, sorted_base = space.order[: base.size], space.sorted_base[: base.size]
        exponent_order(base, spec.dtype, order, sorted_base)
        return Opened(present, sorted_base, rows[: len(present)], order)

    def merge(self, tensor: TensorPlan, opened: Opened, out: NDArray[Any]) -> int:
        """Merges an opened chunk into `out`; returns how many elements are not finite."""
        return self._merge(tensor, (opened,), out)

    def _merge(self, tensor: TensorPlan, parts: Iterable[Opened], out: NDArray[Any]) -> int:
        if tensor.way == "lone":
            for opened in parts:
                restore(opened.sorted_base, opened.z[0, : out.size], opened.order, out)
            return 0
        mixture = partial(self.mixture, tensor)
        if self.lanes is not None:
            return self.lanes.merge(parts, mixture, out)
        return sum(
            cpu.merge_chunk(part.sorted_base, part.z, part.order, out, **vars(mixture(part.present)))
            for part in parts
        )

    def mixture(self, tensor: TensorPlan, present: list[int]) -> Mixture:
        """How these of the terms that reach a tensor are merged there."""
        terms = [self.plan.recipe.terms[index] for index in present]
        return Mixture(
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
    place: Place = CPU,
    tell: Callable[[str], None] = lambda _: None,
) -> Generator[Piece, None, None]:
    """The finished bytes of these tensors, in order.

    Without `not_finite`, elements that are not finite end the stream with `InvalidInput`. `memory`: see
    `persona.merge.room`. `place` and `tell` as for `merger_of`.
    """
    merger = merger_of(plan, tensors, threads, memory, progress, place, tell)
    with remedied(), closing(_each(merger, tensors, merger.chunk, progress, not_finite)) as made:
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
    place: Place = CPU,
    tell: Callable[[str], None] = lambda _: None,
) -> Merger:
    """What computes these tensors of a plan at a place, in the room that there is; their cut-offs are found
    first, on the CPU. `tell` is told why it is not the place that was asked for.
    """
    lanes = place.lanes(plan, tensors, tell)
    found = room(plan, tensors, worker_count(threads, lanes is not None), memory)
    cuts = cutoffs(plan, tensors, threads=found.threads, room=found, progress=progress)
    return Merger(plan, cuts, found, lanes)


def _each(
    merger: Merger,
    tensors: list[TensorPlan],
    work: Callable[[TensorPlan, int], tuple[T, int]],
    progress: Progress | None,
    not_finite: NotFinite | None,
) -> Generator[tuple[TensorPlan, int, T], None, None]:
    """(tensor, chunk index, what `work` made of it) for every chunk, in order; `work` also tells how many
    elements are not finite.
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
                _report(spec, bad, not_finite)
                bad = 0
            yield tensor, index, made
            done += (stop - start) * spec.unit
            if progress:
                progress("merging", done, total)


def chunk_part(chunk: int, span: tuple[TensorPlan, int]) -> float:
    """How much of a whole chunk a tensor's chunk is."""
    tensor, index = span
    start, stop = chunk_span(tensor.spec, index, chunk)
    return (stop - start) / chunk


def materialise(
    plan: Plan,
    sink: Sink | None = None,
    *,
    source: Source | None = None,
    staying: Mapping[str, str] = MappingProxyType({}),
    cast: Cast | None = None,
    threads: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
    allow_nonfinite: bool = False,
    place: Place = CPU,
) -> Materialised:
    """Computes every tensor of a plan, writes it to `sink` and returns the weights digest, both after `cast`.
    `memory`: bytes for chunks, see `persona.merge.room`. `place`: where terms are merged.

    `staying`: name → BLAKE3 of the tensors that lie where they belong, and are neither read nor written. One
    that `source` holds is copied and hashed on the way; where the hash is not what it was, it is computed
    after all. Raises `InvalidInput` for weights that are not finite unless allowed, and what reading
    the store raises.
    """
    made = Materialised()
    kept: dict[str, str] = {}
    wanted: list[TensorPlan] = []
    for tensor in plan.tensors:
        name = tensor.spec.name
        if name in staying:
            made.tensor_digests[name] = staying[name]
            made.reused += 1
            continue
        wanted.append(tensor)
        if source and (expected := source.holds(tensor)):
            kept[name] = expected
    report = partial(_note_not_finite, made) if allow_nonfinite else None
    with first_run(progress) as progress, remedied():
        while wanted:
            fresh = [tensor for tensor in wanted if tensor.spec.name not in kept]
            merger = merger_of(plan, fresh, threads, memory, progress, place, made.tell)
            if merger.lanes is not None:
                made.device = merger.lanes.devices[0].name
            wanted = _run(merger, wanted, kept, source, sink, cast, made, progress, report)
            kept = {}
    specs = [cast.spec(spec) for spec in plan.base.tensors] if cast else plan.base.tensors
    made.weights = weights_digest(
        (spec.name, spec.dtype, spec.shape, bytes.fromhex(made.tensor_digests[spec.name])) for spec in specs
    )
    return made


def _run(
    merger: Merger,
    tensors: list[TensorPlan],
    kept: Mapping[str, str],
    source: Source | None,
    sink: Sink | None,
    cast: Cast | None,
    made: Materialised,
    progress: Progress | None,
    not_finite: NotFinite | None,
) -> list[TensorPlan]:
    """Merges tensors, or copies those that are `kept`: name → BLAKE3. A chunk is written and hashed by the
    thread that made it. Returns the tensors that were not what they should be: they have to be merged after
    all.
    """
    chunk = merger.plan.base.chunk
    hashes = Hashes(merger.buffers)
    lost: set[str] = set()

    def work(tensor: TensorPlan, index: int) -> tuple[int, int]:
        spec = tensor.spec
        start, stop = chunk_span(spec, index, chunk)
        if spec.name in kept and source is not None:
            buffer, bad = merger.buffers.take((stop - start) * spec.unit), 0
            if not _read(source, spec.name, start * spec.unit, buffer.data[: (stop - start) * spec.unit]):
                lost.add(spec.name)
        else:
            buffer, bad = merger.chunk(tensor, index)
        data: Buffer = buffer.data[: (stop - start) * spec.unit]
        written = spec
        if cast:
            data, written = cast.convert(spec, data), cast.spec(spec)
        if sink:
            sink.write(spec.name, start * written.unit, data)
        hashes.add(spec.name, index, data, buffer)
        return memoryview(data).nbytes, bad

    for _, _, nbytes in _each(merger, tensors, work, progress, not_finite):
        made.bytes_written += nbytes if sink else 0
    again: list[TensorPlan] = []
    for tensor in tensors:
        name = tensor.spec.name
        digest = hashes.hexdigest(name)
        if name in lost or kept.get(name, digest) != digest:
            again.append(tensor)
            if sink:
                sink.restart(name)
            continue
        made.tensor_digests[name] = digest
        made.reused += name in kept
        made.computed += name not in kept
    return again


def _read(source: Source, name: str, start: int, out: memoryview) -> bool:
    try:
        return source.read_into(name, start, out)
    except PersonaError:
        return False


@in_default_environment
def tensor_bits(plan: Plan, room: Room) -> Callable[[str, int], NDArray[Any]]:
    """A function of (tensor name, chunk index) that gives its materialised bits; for as many threads as the
    room is for.
    """
    cuts = cutoffs(plan, list(plan.tensors), threads=room.threads, room=room)
    merger = Merger(plan, cuts, room)

    def chunk(name: str, index: int) -> NDArray[Any]:
        tensor = plan.by_name[name]
        start, stop = chunk_span(tensor.spec, index, plan.base.chunk)
        out = np.empty(stop - start, UINT[tensor.spec.unit])
        if merger.merge_into(tensor, index, plan.base_table.chunk(name, index), out):
            raise InvalidInput(f"tensor {name} of the revision to build on is not finite")
        return out

    return chunk


def _report(spec: TensorSpec, count: int, not_finite: NotFinite | None) -> None:
    if not_finite is None:
        raise InvalidInput(
            f"tensor {spec.name}: {count} merged element{'s are' if count > 1 else ' is'} not finite;"
            " lower alpha or lambda, or pass --allow-nonfinite to write NaN there"
        )
    not_finite(spec, count)


def _note_not_finite(made: Materialised, spec: TensorSpec, count: int) -> None:
    made.not_finite[spec.name] = count
