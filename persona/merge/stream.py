"""The merge as a stream: chunks are read, verified, decoded and merged by all cores, and arrive in order.

**piece** — the finished bytes of one chunk. Its memory belongs to the stream again as soon as the next piece
is asked for, so memory is a few chunks a thread, whatever the model's size.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from persona.codec.delta import exponent_order, restore
from persona.codec.elements import of as element_of
from persona.errors import InvalidInput, PersonaError
from persona.limits import CHUNK_MEMORY
from persona.merge import cpu
from persona.merge.chunks import UINT, ChunkReader, Workspaces
from persona.merge.cutoffs import Cutoffs, cutoffs
from persona.merge.pipeline import Progress, first_run, in_order, thread_count
from persona.merge.plan import Plan, TensorPlan
from persona.merge.rules import MergeRules
from persona.objects.digest import weights_digest
from persona.objects.tensors import TensorSpec, chunk_span
from persona.store.files import Buffer


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
    """Where finished bytes go."""

    def write(self, name: str, offset: int, data: Buffer) -> None:
        """Takes the bytes of tensor `name` from byte `offset` on."""

    def restart(self, name: str) -> None:
        """Forgets what it took of tensor `name`: it comes again, whole."""


@dataclass
class Materialised:
    """What a run over a plan produced. `tensor_digests`: name → BLAKE3 hex of its raw bytes."""

    weights: str = ""
    tensor_digests: dict[str, str] = field(default_factory=dict)
    computed: int = 0
    reused: int = 0
    bytes_written: int = 0
    not_finite: dict[str, int] = field(default_factory=dict)


_SMALL_BYTES: Final = 1 << 18


class _Buffers:
    """Output arrays that go round between the threads and the consumer; small ones are made anew."""

    def __init__(self) -> None:
        self._free: SimpleQueue[NDArray[np.uint8]] = SimpleQueue()

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        if nbytes < _SMALL_BYTES:
            return np.empty(nbytes, np.uint8)
        try:
            while (buffer := self._free.get_nowait()).nbytes < nbytes:
                pass
        except Empty:
            return np.empty(nbytes, np.uint8)
        return buffer

    def give(self, buffer: NDArray[np.uint8]) -> None:
        if buffer.nbytes >= _SMALL_BYTES:
            self._free.put(buffer)


@dataclass(frozen=True)
class Opened:
    """One chunk of n elements with the changes of `present`, the indices of the terms that changed it.

    sorted_base: uint[n] and z: uint[present, ≥ n] in exponent order; order: uint32[n].
    """

    present: list[int]
    sorted_base: NDArray[Any]
    z: NDArray[Any]
    order: NDArray[np.uint32]


class Merger:
    """Computes single chunks of a plan; called by many threads."""

    def __init__(self, plan: Plan, cuts: Cutoffs) -> None:
        self.plan = plan
        self.reader = ChunkReader(plan.store.objects, plan.base.chunk)
        self.workspaces = Workspaces(plan.base.tensors, plan.base.chunk)
        self.buffers = _Buffers()
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
        spec = tensor.spec
        if tensor.way == "base":
            self.reader.base(spec, base_id, index, out)
            return 0
        opened = self.open(tensor, index, base_id, out.size)
        if opened is None:
            self.reader.base(spec, base_id, index, out)
            return 0
        return self.merge(tensor, opened, out)

    def open(self, tensor: TensorPlan, index: int, base_id: str, size: int) -> Opened | None:
        """One chunk of a tensor that terms reach, in this thread's workspace until the next one is opened;
        None where none of them changed anything.
        """
        spec, plan = tensor.spec, self.plan
        space = self.workspaces.get(spec)
        rows = space.rows(len(tensor.terms))
        present: list[int] = []
        for term_index in tensor.terms:
            vector = plan.recipe.terms[term_index].vector
            delta = plan.tables[vector].chunk(spec.name, index)
            if self.reader.delta(spec, delta, base_id, index, rows[len(present), :size]):
                present.append(term_index)
        if not present:
            return None
        base = self.reader.base(spec, base_id, index, space.base)
        order, sorted_base = space.order[:size], space.sorted_base[:size]
        exponent_order(base, spec.dtype, order, sorted_base)
        return Opened(present, sorted_base, rows[: len(present)], order)

    def merge(self, tensor: TensorPlan, opened: Opened, out: NDArray[Any]) -> int:
        """Merges an opened chunk into `out`; returns how many elements are not finite."""
        if tensor.way == "lone":
            restore(opened.sorted_base, opened.z[0, : out.size], opened.order, out)
            return 0
        terms = [self.plan.recipe.terms[i] for i in opened.present]
        return cpu.merge_chunk(
            opened.sorted_base,
            opened.z,
            opened.order,
            out,
            theta=self.cuts.theta(tensor, opened.present),
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
    progress: Progress | None = None,
    not_finite: Callable[[TensorSpec, int], None] | None = None,
) -> Generator[Piece, None, None]:
    """The finished bytes of these tensors, in order.

    `not_finite(spec, count)` is told of tensors with elements that are not finite where no exactness rule
    decides; without it they end the stream with `InvalidInput`.
    """
    workers = affordable(plan, tensors, thread_count(threads))
    merger = Merger(plan, cutoffs(plan, tensors, threads=workers, progress=progress))
    spans = [(tensor, index) for tensor in tensors for index in range(plan.chunks(tensor))]
    total = sum(tensor.spec.nbytes for tensor in tensors)
    done = bad = 0
    results = in_order(
        lambda span: merger.chunk(*span), spans, threads=workers, part=partial(chunk_part, plan.base.chunk)
    )
    for (tensor, index), (buffer, count) in zip(spans, results, strict=True):
        spec = tensor.spec
        start, stop = chunk_span(spec, index, plan.base.chunk)
        nbytes = (stop - start) * spec.unit
        bad += count
        last = stop == spec.units
        if last and bad:
            _report(spec, bad, not_finite)
            bad = 0
        yield Piece(spec, start * spec.unit, buffer.data[:nbytes], last)
        merger.buffers.give(buffer)
        done += nbytes
        if progress:
            progress("merging", done, total)


def chunk_part(chunk: int, span: tuple[TensorPlan, int]) -> float:
    """How much of a whole chunk a tensor's chunk is."""
    tensor, index = span
    start, stop = chunk_span(tensor.spec, index, chunk)
    return (stop - start) / chunk


def affordable(plan: Plan, tensors: list[TensorPlan], threads: int) -> int:
    """As many of these threads as have room for their chunks, at least one: fewer for much fp32."""
    most = 0
    for tensor in tensors:
        elements = min(tensor.spec.units, plan.base.chunk)
        arrays = tensor.spec.unit * (len(tensor.terms) + 5) + 4
        most = max(most, elements * arrays)
    return max(1, min(threads, CHUNK_MEMORY // max(1, most)))


def materialise(
    plan: Plan,
    sink: Sink | None = None,
    *,
    source: Source | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    allow_nonfinite: bool = False,
) -> Materialised:
    """Computes every tensor of a plan, writes it to `sink` and returns the weights digest.

    A tensor that `source` holds is copied and hashed on the way; where the hash is not what it was, it is
    computed after all. Raises `InvalidInput` for weights that are not finite unless allowed, and what reading
    the store raises.
    """
    made = Materialised()
    kept: list[tuple[TensorPlan, str]] = []
    fresh: list[TensorPlan] = []
    for tensor in plan.tensors:
        expected = source.holds(tensor) if source else None
        if expected is None:
            fresh.append(tensor)
        else:
            kept.append((tensor, expected))
    if source:
        fresh.extend(_copy(plan, kept, source, sink, made, threads, progress))
    report = partial(_note_not_finite, made) if allow_nonfinite else None
    empty = blake3().hexdigest()
    for tensor in fresh:
        made.tensor_digests[tensor.spec.name] = empty
    hasher = blake3()
    with first_run(progress):
        for piece in pieces(plan, fresh, threads=threads, progress=progress, not_finite=report):
            hasher.update(piece.data)
            if sink:
                sink.write(piece.spec.name, piece.start, piece.data)
                made.bytes_written += len(piece.data)
            if piece.last:
                made.tensor_digests[piece.spec.name] = hasher.hexdigest()
                hasher = blake3()
    made.computed = len(fresh)
    made.weights = weights_digest(
        (spec.name, spec.dtype, spec.shape, bytes.fromhex(made.tensor_digests[spec.name]))
        for spec in plan.base.tensors
    )
    return made


def tensor_bits(plan: Plan, threads: int | None = None) -> Callable[[str, int], NDArray[Any]]:
    """A function of (tensor name, chunk index) that gives its materialised bits; thread-safe."""
    merger = Merger(plan, cutoffs(plan, list(plan.tensors), threads=thread_count(threads)))

    def chunk(name: str, index: int) -> NDArray[Any]:
        tensor = plan.by_name[name]
        start, stop = chunk_span(tensor.spec, index, plan.base.chunk)
        out = np.empty(stop - start, UINT[tensor.spec.unit])
        if merger.merge_into(tensor, index, plan.base_table.chunk(name, index), out):
            raise InvalidInput(f"tensor {name} of the revision to build on is not finite")
        return out

    return chunk


def _copy(
    plan: Plan,
    kept: list[tuple[TensorPlan, str]],
    source: Source,
    sink: Sink | None,
    made: Materialised,
    threads: int | None,
    progress: Progress | None,
) -> list[TensorPlan]:
    """Copies finished tensors, hashing them on the way; returns those that turned out not to be what they
    were.
    """
    spans = [
        (tensor, start)
        for tensor, _ in kept
        for start in range(0, tensor.spec.nbytes, plan.base.chunk * tensor.spec.unit)
    ]
    buffers = _Buffers()

    def read(span: tuple[TensorPlan, int]) -> tuple[NDArray[np.uint8], int, bool]:
        tensor, start = span
        nbytes = min(plan.base.chunk * tensor.spec.unit, tensor.spec.nbytes - start)
        buffer = buffers.take(nbytes)
        try:
            return buffer, nbytes, source.read_into(tensor.spec.name, start, buffer.data[:nbytes])
        except PersonaError:
            return buffer, nbytes, False

    hashers = {tensor.spec.name: blake3() for tensor, _ in kept}
    total = sum(tensor.spec.nbytes for tensor, _ in kept)
    done = 0
    lost: set[str] = set()
    results = in_order(read, spans, threads=thread_count(threads))
    for (tensor, start), (buffer, nbytes, good) in zip(spans, results, strict=True):
        name = tensor.spec.name
        data = buffer.data[:nbytes]
        if good:
            hashers[name].update(data)
            if sink:
                sink.write(name, start, data)
                made.bytes_written += nbytes
        else:
            lost.add(name)
        buffers.give(buffer)
        done += nbytes
        if progress:
            progress("copying unchanged tensors", done, total)
    again: list[TensorPlan] = []
    for tensor, expected in kept:
        name = tensor.spec.name
        if name in lost or hashers[name].hexdigest() != expected:
            again.append(tensor)
            if sink:
                sink.restart(name)
        else:
            made.tensor_digests[name] = expected
            made.reused += 1
    return again


def _report(spec: TensorSpec, count: int, not_finite: Callable[[TensorSpec, int], None] | None) -> None:
    if not_finite is None:
        raise InvalidInput(
            f"tensor {spec.name}: {count} merged element{'s are' if count > 1 else ' is'} not finite;"
            " lower alpha or lambda, or pass --allow-nonfinite to write NaN there"
        )
    not_finite(spec, count)


def _note_not_finite(made: Materialised, spec: TensorSpec, count: int) -> None:
    made.not_finite[spec.name] = count
