"""Checkpoint -> base or vector: one read of each input, on all cores, a few chunks of memory for each thread.

A base's chunk is its raw elements. A vector's chunk is the lossless difference to the base's chunk of the
same elements. So a vector gives its fine-tune back bit for bit, whatever its numbers are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from persona.codec.base import encode_base
from persona.codec.delta import delta_payload, encode_delta
from persona.codec.elements import FORM_RAW
from persona.codec.elements import of as element_of
from persona.codec.floats import in_default_environment
from persona.cores import thread_count
from persona.errors import InvalidInput, Keyword, NothingChanged, listed
from persona.frozen import dataclass
from persona.intake import rounding
from persona.intake.choices import Choices
from persona.intake.growth import GrowingBase, before_training, check_known, onto_matches
from persona.intake.pairs import Match, match_same
from persona.intake.parts import Held, Weights
from persona.intake.sizes import Sizes
from persona.limits import CHUNK_ELEMENTS
from persona.merge.arithmetic import casts, cpu
from persona.merge.memory import budget_of
from persona.merge.plan import Plan
from persona.merge.rows.growth import KnownBase
from persona.merge.rows.reader import Workspaces
from persona.merge.run.hashes import Hashes
from persona.merge.run.merger import tensor_bits
from persona.merge.trim.selection import Magnitudes
from persona.merge.workers import first_run, in_order
from persona.objects.base import Base
from persona.objects.digest import weights_digest
from persona.objects.dtypes import uint
from persona.objects.ids import NULL_ID, object_id
from persona.objects.table import encode_table
from persona.objects.tensors import TensorSpec, chunk_count, chunk_span
from persona.objects.vector import Vector
from persona.progress import STORING_BASE, STORING_VECTOR, Progress
from persona.store.records import PackedRecord, pack_record
from persona.store.store import Store
from persona.store.transaction import Transaction
from persona.weights.checkpoint import Checkpoint

_ARRAYS: Final = 10
"""Arrays of a chunk's elements that a thread holds while it encodes one.

Both sides, exponent order, z, its segments and tails, and the record.
"""
Values = tuple[NDArray[np.uint32], NDArray[np.int64]]
"""Distinct |t| of a chunk as bits, and how often each stands there."""


@dataclass(frozen=True)
class ImportedVector:
    """A vector that a transaction holds, and the facts that its import found.

    `stored_bytes`: its records, table and manifest on disk; `raw_bytes`: the base's float tensors;
    `changed_fraction` of their elements, None if nobody counted; `largest_rounding`: the largest |difference|
    between the checkpoint and the stored vector, None if nothing was rounded.
    """

    vector: Vector
    id: str
    stored_bytes: int
    raw_bytes: int
    changed_fraction: float | None
    largest_rounding: float | None
    notes: tuple[str, ...]
    magnitudes: Mapping[str, Magnitudes]
    """Of the changed tensors whose |t| have few distinct values, as in bf16 and fp16."""
    left: tuple[str, ...] = ()
    """The tensors of the base that the checkpoint lacks, or that were left out on request."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Names in the checkpoint → the base's, without numbers."""
    held: Mapping[str, Held] = field(default_factory=dict)
    """The tensors of a checkpoint by the base's names; empty for an adapter."""


@in_default_environment
def import_base(
    tx: Transaction,
    checkpoint: Checkpoint,
    files: Mapping[str, str],
    *,
    chunk: int = CHUNK_ELEMENTS,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Base, str]:
    """Stores a checkpoint as a base; returns its manifest and id.

    `files`: path → id of a blob that `tx` holds.
    """
    specs = [spec for spec, _ in checkpoint.tensors.values()]
    spans = [(spec, index) for spec in specs for index in range(chunk_count(spec, chunk))]

    hashes = Hashes()

    def encode(span: tuple[TensorSpec, int]) -> tuple[int, str, PackedRecord]:
        spec, index = span
        start, stop = chunk_span(spec, index, chunk)
        raw = np.empty((stop - start) * spec.unit, np.uint8)
        checkpoint.read_into(spec.name, start * spec.unit, raw.data)
        id = object_id("chunk", raw.data)
        if spec.merged:
            form, segments = encode_base(raw.view(uint(spec.unit)), spec.dtype)
        else:
            form, segments = FORM_RAW, [raw]
        record = pack_record("chunk", id, form, segments)
        hashes.add(spec.name, start * spec.unit, raw.data, raw)
        return raw.nbytes, id, record

    ids: list[str] = []
    total, done = sum(spec.nbytes for spec in specs), 0
    with first_run(progress) as progress:
        for nbytes, id, record in in_order(encode, spans, threads=thread_count(threads)):
            tx.append(record)
            ids.append(id)
            done += nbytes
            if progress:
                progress(STORING_BASE, done, total)
    base = Base(
        chunk=chunk,
        digest=weights_digest(
            (spec.name, spec.dtype, spec.shape, hashes.digest(spec.name)) for spec in specs
        ),
        files=dict(files),
        shards=tuple(checkpoint.shards),
        table=_put_table(tx, ids),
        tensors=tuple(specs),
        shard_of=tuple(shard for _, shard in checkpoint.tensors.values()),
        tied=dict(checkpoint.tied),
    )
    return base, tx.put("base", base.encode())


@dataclass(frozen=True)
class _Encoded:
    """One encoded chunk of a fine-tune; `record` is None if nothing changed.

    `not_finite`: how many elements differ and are not finite in the base, and in the fine-tune.
    """

    id: str
    record: PackedRecord | None
    changed: int
    rounding: float
    not_finite: tuple[int, int]
    first_not_finite: int
    values: Values | None


_NO_VALUES: Values = (np.zeros(0, np.uint32), np.zeros(0, np.int64))
_UNCHANGED = _Encoded(NULL_ID, None, 0, 0.0, (0, 0), 0, _NO_VALUES)


@in_default_environment
def import_vector(
    store: Store,
    tx: Transaction,
    base: Base,
    checkpoint: Checkpoint,
    *,
    missing: str | Sequence[str] = "refuse",
    extra: str | Sequence[str] = "refuse",
    leave: str | Sequence[str] = (),
    rename: bool = False,
    cast: bool = False,
    extend_vocab: bool = False,
    untie: bool = False,
    onto: Plan | None = None,
    threads: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> ImportedVector:
    """Stores the changes of a checkpoint relative to `base`, or to the materialised weights of `onto`.

    `missing`, `extra`, `leave`, `rename`, `cast`: see `Choices`. For the weights of `onto`, chunks may take
    `memory` bytes (`persona.merge.memory`). Raises `InvalidInput` for a checkpoint that does not fit,
    `Refused` if no element changed.
    """
    choices = Choices(
        missing=missing,
        extra=extra,
        leave=leave,
        rename=rename,
        cast=cast,
        extend_vocab=extend_vocab,
        untie=untie,
        grown={} if onto is None else onto.origins,
    )
    known = KnownBase.of(store.objects, base)
    before = base if onto is None else onto.base  # whose tensors have the names and shapes of the revision
    matched = match_same(before, checkpoint, choices)
    if matched is None:
        from persona.intake.copies import copies_of_patch
        from persona.intake.match import match_tensors

        chunks = known.chunks if onto is None else onto.rows.chunks
        copies = copies_of_patch(checkpoint, store.objects, known, onto, threads, memory)
        matched = match_tensors(before, chunks, checkpoint, choices, copies)
    matches = matched.matches if onto is None else onto_matches(matched.matches, onto.origins)
    own = GrowingBase.of(tx, known, {match.spec: match.origin for match in matches if match.grown})
    encoder = Encoder(own, matched.view, onto, thread_count(threads), memory)
    given = [match for match in matches if match.source is not None]
    with first_run(progress) as progress:
        deltas = encode_deltas(tx, encoder, given, progress)
    check_known(given, deltas.ids, matched.view, choices.grown)
    ids = own.with_unchanged(deltas.ids)
    tensors = tuple(spec for spec in own.base.tensors if spec.name in ids)
    has_grown = any(onto is None or name not in onto.origins for name, _ in own.grown)
    if not deltas.ids and not has_grown:
        raise NothingChanged(f"{checkpoint.path}: no element changed; there is nothing to store")
    vector, id, stored = put_vector(tx, own.vector(tx, base, tensors), ids)
    return ImportedVector(
        vector=vector,
        id=id,
        stored_bytes=stored + deltas.stored,
        raw_bytes=base.merged_bytes,
        changed_fraction=deltas.changed / max(1, own.base.merged_elements),
        largest_rounding=deltas.rounding if deltas.rounded or onto else None,
        notes=(*matched.notes, *deltas.notes(), *encoder.sizes.remarks()),
        magnitudes=deltas.magnitudes,
        left=matched.left,
        renamed=matched.renamed,
        held={
            match.spec.name: matched.view.held[match.source.name]
            for match in given
            if match.source is not None
        },
    )


@dataclass
class Deltas:
    """The chunks of some tensors relative to the base's, stored.

    `ids`: of the chunks of each tensor that changed; `stored`: bytes on disk; `changed`: elements; `rounded`:
    the dtypes from which elements were rounded, `rounding`: by how much at most. `narrowed`: those of them
    that cannot hold the base's numbers.
    """

    ids: dict[str, list[str]] = field(default_factory=dict)
    magnitudes: dict[str, Magnitudes] = field(default_factory=dict)
    stored: int = 0
    changed: int = 0
    rounded: tuple[str, ...] = ()
    narrowed: tuple[str, ...] = ()
    rounding: float = 0.0

    def notes(self) -> list[str]:
        """Sentences worth telling."""
        said: list[str] = []
        if self.rounded and (self.rounding or len(self.rounded) > len(self.narrowed)):
            dtypes = ", ".join(self.rounded)
            said.append(f"rounded from {dtypes} to the base's dtype: by {self.rounding:.3g} at most")
        if self.narrowed:
            dtypes = " or ".join(self.narrowed)
            said.append(
                f"{dtypes} cannot hold the base's numbers: an element that is the base's, rounded to it,"
                " counts as unchanged"
            )
        return said


def encode_deltas(
    tx: Transaction,
    encoder: Encoder,
    matches: Sequence[Match],
    progress: Progress | None,
    *,
    more_bytes: int = 0,
) -> Deltas:
    """Stores the differences of some tensors, whose matches have a source.

    `more_bytes`: of other work of the same import, which follows. Raises `InvalidInput` for elements that
    are not finite.
    """
    base, found = encoder.base, Deltas()
    spans = [(match, index) for match in matches for index in range(chunk_count(match.spec, base.chunk))]
    ids: dict[str, list[str]] = {}
    values: list[Values | None] = []
    bad: dict[str, tuple[int, int, int]] = {}
    total, done = more_bytes + sum(match.spec.nbytes for match in matches), 0
    for (match, index), made in zip(spans, in_order(encoder, spans, threads=encoder.threads), strict=True):
        name = match.spec.name
        start, stop = chunk_span(match.spec, index, base.chunk)
        if any(made.not_finite):
            own, given, first = bad.get(name, (0, 0, start + made.first_not_finite))
            bad[name] = (own + made.not_finite[0], given + made.not_finite[1], first)
        elif made.record:
            tx.append(made.record)
            found.stored += made.record.length
        ids.setdefault(name, []).append(made.id)
        values.append(made.values)
        if stop == match.spec.units:
            known = [part for part in values if part is not None]
            if any(id != NULL_ID for id in ids[name]):
                found.ids[name] = ids[name]
                if len(known) == len(values):
                    found.magnitudes[name] = Magnitudes.join(match.spec.elements, known)
            values.clear()
        found.changed += made.changed
        found.rounding = max(found.rounding, made.rounding)
        done += (stop - start) * match.spec.unit
        if progress:
            progress(STORING_VECTOR, done, total)
    if bad:
        _refuse_not_finite(encoder.weights, bad)
    found.rounded = tuple(sorted({match.source.dtype for match in matches if match.source and match.rounded}))
    found.narrowed = tuple(
        sorted({match.source.dtype for match in matches if match.source and match.narrowed})
    )
    return found


def put_vector(tx: Transaction, vector: Vector, ids: Mapping[str, Sequence[str]]) -> tuple[Vector, str, int]:
    """Stores a manifest and its table, of which `ids` has each tensor's chunks.

    Returns the manifest with its table, its id, and the bytes of both on disk.
    """
    table = [id for spec in vector.tensors for id in ids[spec.name]]
    table_id = _put_table(tx, table)
    vector = replace(vector, table=table_id)
    payload = vector.encode()
    id = tx.put("vector", payload)
    stored = pack_record("vector", id, 0, [payload], level="small").length
    stored += pack_record("table", table_id, 0, [encode_table(table)], level="small").length
    return vector, id, stored


class Encoder:
    """Encodes single chunks of a fine-tune; called by many threads."""

    def __init__(
        self,
        base: GrowingBase,
        weights: Weights,
        onto: Plan | None,
        threads: int,
        memory: int | None,
    ) -> None:
        self.base = base.base
        self.weights = weights
        self.chunks = base.chunks
        self.workspaces = Workspaces(self.base.tensors, self.base.chunk)
        self.threads = threads
        self.sizes = Sizes()
        self.onto: Callable[[str, int], NDArray[Any]] | None = None
        if onto is not None:
            longest = max(
                (min(spec.nbytes, self.base.chunk * spec.unit) for spec in self.base.tensors), default=0
            )
            found = budget_of(onto, list(onto.tensors), threads, memory, beside=_ARRAYS * longest)
            self.threads, self.onto = found.threads, before_training(onto, base, tensor_bits(onto, found))

    def __call__(self, span: tuple[Match, int]) -> _Encoded:
        """One chunk of the tensor of a match that has a source."""
        match, index = span
        spec, source = match.spec, match.source
        assert source is not None
        base_id = self.chunks.id(spec, index)
        start, stop = chunk_span(spec, index, self.base.chunk)
        if not spec.merged:
            return self._same(spec, source, base_id, index, start, stop)
        space = self.workspaces.get(spec)
        base = self.chunks.read(spec, index, space.base)
        after = space.other[: stop - start]
        if match.rounded:
            given: NDArray[Any] = np.empty(stop - start, uint(source.unit))
        else:
            given = after
        self.weights.read_into(source.name, start * given.itemsize, given.view(np.uint8).data)
        rounded_by = 0.0
        if match.rounded:
            before = base if match.narrowed else None
            rounded_by = rounding.round_into(given, source.dtype, after, spec.dtype, before)
        if self.onto:
            rounded_by = rounding.shift_into(
                base,
                self.onto(spec.name, index),
                given if match.rounded else after.copy(),
                source,
                after,
                spec,
            )
        self.sizes.add(spec, base, after)
        if casts.same_bits(base, after):
            return replace(_UNCHANGED, rounding=rounded_by)
        if casts.has_not_finite(base, spec.dtype) or casts.has_not_finite(after, spec.dtype):
            differs = base != after
            own = casts.not_finite(base, spec.dtype) & differs
            now = casts.not_finite(after, spec.dtype) & differs
            odd = np.flatnonzero(own | now)
            if odd.size:
                counts = int(own.sum()), int(now.sum())
                return _Encoded(NULL_ID, None, 0, 0.0, counts, int(odd[0]), None)
        delta = encode_delta(base, after, spec.dtype, space.scratch)
        prefix, values = delta_payload(base_id, delta.z)
        id = object_id("delta", prefix, values.data)
        record = pack_record("delta", id, delta.form, delta.segments, relative=base_id)
        magnitudes = cpu.count_values(base, delta.z, element_of(spec.dtype).code)
        return _Encoded(id, record, delta.changed, rounded_by, (0, 0), 0, magnitudes)

    def _same(
        self, spec: TensorSpec, source: TensorSpec, base_id: str, index: int, start: int, stop: int
    ) -> _Encoded:
        """A tensor of a dtype that is not merged must be the base's own."""
        raw = bytearray((stop - start) * spec.unit)
        self.weights.read_into(source.name, start * spec.unit, raw)
        if object_id("chunk", raw) != base_id:
            raise InvalidInput(
                f"{self.weights.path}: tensor {spec.name} of dtype {spec.dtype} differs from the base's:"
                " only BF16, F16 and F32 tensors can change in a vector",
                hint=(Keyword(leave=spec.name), " leaves it as it is in the base"),
            )
        return _UNCHANGED


def _put_table(tx: Transaction, ids: list[str]) -> str:
    return tx.put_bulk("table", encode_table(ids))


def _refuse_not_finite(weights: Weights, bad: Mapping[str, tuple[int, int, int]]) -> None:
    """`InvalidInput` for elements that differ and are not finite in the base, or in the fine-tune."""
    own, given, first = next(iter(bad.values()))
    where = f"{weights.path}: tensor {listed(list(bad), 1)}"
    if given:
        said = f"{_count(given)} not finite here and {'differs' if given == 1 else 'differ'} from the base's"
        advice = ": training diverged there; use an earlier checkpoint"
    else:
        said = f"{_count(own)} not finite in the base and {'differs' if own == 1 else 'differ'} here"
        advice = ": no vector can hold such a change; mend the base, and start from that"
    raise InvalidInput(
        f"{where}: {said}, the first at index {first}{advice}",
        hint=(Keyword(leave=next(iter(bad))), " leaves all elements of the tensor as they are in the base"),
    )


def _count(elements: int) -> str:
    return f"{elements} element{' is' if elements == 1 else 's are'}"
