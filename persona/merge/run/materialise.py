"""A plan to all its bytes: tensors are read, reused or merged, hashed, and written in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Protocol

from persona.errors import PersonaError
from persona.merge.devices.choose import CPU, DeviceChoice, remedied
from persona.merge.plan import Plan, TensorPlan
from persona.merge.run.hashes import Hashes
from persona.merge.run.merger import Merger, NotFinite, each_span, merger_of
from persona.merge.workers import first_run
from persona.objects.digest import weights_digest
from persona.objects.tensors import TensorSpec, chunk_span
from persona.progress import Progress
from persona.store.files import Buffer


class Source(Protocol):
    """Finished tensors of an earlier checkout that may be copied instead of computed again."""

    def holds(self, tensor: TensorPlan) -> str | None:
        """The expected digest of the tensor, in hex, or None if it has to be computed."""

    def read_into(self, name: str, start: int, out: memoryview) -> bool:
        """Fills `out` with the tensor's bytes from byte `start` on; False when they cannot be had."""


class Sink(Protocol):
    """The destination of finished bytes, which come from many threads and in any order."""

    def write(self, name: str, offset: int, data: Buffer) -> None:
        """Takes the bytes of tensor `name` from byte `offset` on."""

    def restart(self, name: str) -> None:
        """Forgets the bytes of tensor `name`: all of them come again."""


class Cast(Protocol):
    """A conversion of finished tensors before they are hashed and written. Called by many threads."""

    def spec(self, spec: TensorSpec) -> TensorSpec:
        """The tensor spec after the conversion; the number of storage units does not change."""

    def convert(self, spec: TensorSpec, data: Buffer) -> Buffer:
        """Some elements of a tensor, as they are written."""


@dataclass
class Materialised:
    """The result of a run over a plan.

    `tensor_digests`: name → its digest in hex (`persona.objects.digest`); `device`: where terms were merged.
    """

    weights: str = ""
    tensor_digests: dict[str, str] = field(default_factory=dict)
    computed: int = 0
    reused: int = 0
    bytes_written: int = 0
    not_finite: dict[str, int] = field(default_factory=dict)
    device: str = "cpu"
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Takes a sentence for the user, once."""
        if text not in self.notes:
            self.notes.append(text)


def materialise(
    plan: Plan,
    sink: Sink | None = None,
    *,
    source: Source | None = None,
    unchanged: Mapping[str, str] = MappingProxyType({}),
    cast: Cast | None = None,
    threads: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
    allow_nonfinite: bool = False,
    device: DeviceChoice = CPU,
) -> Materialised:
    """Computes every tensor of a plan, writes it to `sink` and returns the weights digest.

    Both are after `cast`. `memory`: bytes for chunks, see `persona.merge.memory`. `device`: where terms are
    merged. `unchanged`: name → digest of tensors that are in their place already and are neither read nor
    written. A tensor that `source` holds is copied and hashed on the way; if its hash is wrong, it is
    computed. Raises `InvalidInput` for weights that are not finite unless they are allowed, and the errors of
    reading the store.
    """
    made = Materialised()
    reusable: dict[str, str] = {}
    wanted: list[TensorPlan] = []
    for tensor in plan.tensors:
        name = tensor.spec.name
        if name in unchanged:
            made.tensor_digests[name] = unchanged[name]
            made.reused += 1
            continue
        wanted.append(tensor)
        if source and (expected := source.holds(tensor)):
            reusable[name] = expected
    report = partial(_note_not_finite, made) if allow_nonfinite else None
    with first_run(progress) as progress, remedied():
        while wanted:
            fresh = [tensor for tensor in wanted if tensor.spec.name not in reusable]
            merger = merger_of(plan, fresh, threads, memory, progress, device, made.note)
            if merger.lanes is not None:
                made.device = merger.lanes.devices[0].name
            wanted = _run(merger, wanted, reusable, source, sink, cast, made, progress, report)
            reusable = {}
    specs = [cast.spec(spec) for spec in plan.base.tensors] if cast else plan.base.tensors
    made.weights = weights_digest(
        (spec.name, spec.dtype, spec.shape, bytes.fromhex(made.tensor_digests[spec.name])) for spec in specs
    )
    return made


def tensor_digests(
    plan: Plan,
    tensors: list[TensorPlan],
    *,
    cast: Cast | None = None,
    threads: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
    device: DeviceChoice = CPU,
) -> dict[str, str]:
    """The digests of some tensors of a plan, after `cast`: name → hex. Options as for `materialise`.

    Elements may be infinite or NaN.
    """
    made = Materialised()
    with first_run(progress) as progress, remedied():
        merger = merger_of(plan, tensors, threads, memory, progress, device, made.note)
        _run(merger, tensors, {}, None, None, cast, made, progress, partial(_note_not_finite, made))
    return made.tensor_digests


def _run(
    merger: Merger,
    tensors: list[TensorPlan],
    reusable: Mapping[str, str],
    source: Source | None,
    sink: Sink | None,
    cast: Cast | None,
    made: Materialised,
    progress: Progress | None,
    not_finite: NotFinite | None,
) -> list[TensorPlan]:
    """Merges tensors, or copies those that are `reusable`: name → digest.

    The thread that made a chunk writes and hashes it. Returns tensors whose stored bytes did not match their
    digest; they must be computed.
    """
    chunk = merger.plan.base.chunk
    hashes = Hashes(merger.buffers.give)
    lost: set[str] = set()

    def work(tensor: TensorPlan, index: int) -> tuple[int, int]:
        spec = tensor.spec
        start, stop = chunk_span(spec, index, chunk)
        if spec.name in reusable and source is not None:
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
        hashes.add(spec.name, start * written.unit, data, buffer)
        return memoryview(data).nbytes, bad

    for _, _, nbytes in each_span(merger, tensors, work, progress, not_finite):
        made.bytes_written += nbytes if sink else 0
    again: list[TensorPlan] = []
    for tensor in tensors:
        name = tensor.spec.name
        digest = hashes.digest(name).hex()
        if name in lost or reusable.get(name, digest) != digest:
            again.append(tensor)
            if sink:
                sink.restart(name)
            continue
        made.tensor_digests[name] = digest
        made.reused += name in reusable
        made.computed += name not in reusable
    return again


def _read(source: Source, name: str, start: int, out: memoryview) -> bool:
    try:
        return source.read_into(name, start, out)
    except PersonaError:
        return False


def _note_not_finite(made: Materialised, spec: TensorSpec, count: int) -> None:
    made.not_finite[spec.name] = count
