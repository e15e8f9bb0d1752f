"""Checkpoint -> base or vector: one read of each input, on all cores, a few chunks of memory for each thread.

A base's chunk is its raw elements. A vector's chunk is the lossless difference to the base's chunk of the
same elements. So a vector gives its fine-tune back bit for bit, whatever its numbers are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from persona.codec.base import encode_base
from persona.codec.delta import delta_payload, encode_delta
from persona.codec.elements import FORM_RAW
from persona.codec.elements import of as element_of
from persona.codec.floats import in_default_environment
from persona.errors import InvalidInput, NothingChanged, listed
from persona.frozen import dataclass
from persona.intake.match import Match, match_tensors
from persona.limits import CHUNK_ELEMENTS
from persona.merge.arithmetic import casts, cpu
from persona.merge.memory import budget_of
from persona.merge.plan import Plan
from persona.merge.rows.reader import BaseChunks, Workspaces
from persona.merge.run.hashes import Hashes
from persona.merge.run.merger import tensor_bits
from persona.merge.trim.selection import Magnitudes
from persona.merge.workers import first_run, in_order, thread_count
from persona.objects.base import Base
from persona.objects.digest import weights_digest
from persona.objects.dtypes import uint
from persona.objects.ids import NULL_ID, object_id
from persona.objects.table import encode_table
from persona.objects.tensors import TensorSpec, chunk_count, chunk_span, sort_key
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
_BLOCK: Final = 1 << 15
"""Elements that are computed with in binary64 at a time."""

Values = tuple[NDArray[np.uint32], NDArray[np.int64]]
"""Distinct |t| of a chunk as bits, and how often each stands there."""


@dataclass(frozen=True)
class ImportedVector:
    """A vector that a transaction holds, and the facts that its import found.

    `stored_bytes`: its records, table and manifest on disk; `raw_bytes`: the base's float tensors;
    `changed_fraction` of their elements; `largest_rounding`: the largest |difference| between the checkpoint
    and the stored vector, None if nothing was rounded.
    """

    vector: Vector
    id: str
    stored_bytes: int
    raw_bytes: int
    changed_fraction: float
    largest_rounding: float | None
    notes: tuple[str, ...]
    magnitudes: Mapping[str, Magnitudes]
    """Of the changed tensors whose |t| have few distinct values, as in bf16 and fp16."""


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
    """One encoded chunk of a fine-tune; `record` is None if nothing changed."""

    id: str
    record: PackedRecord | None
    changed: int
    rounding: float
    not_finite: int
    first_not_finite: int
    values: Values | None


_NO_VALUES: Values = (np.zeros(0, np.uint32), np.zeros(0, np.int64))
_UNCHANGED = _Encoded(NULL_ID, None, 0, 0.0, 0, 0, _NO_VALUES)


@in_default_environment
def import_vector(
    store: Store,
    tx: Transaction,
    base: Base,
    checkpoint: Checkpoint,
    *,
    missing: Literal["refuse", "zero"] = "refuse",
    extra: Literal["refuse", "ignore"] = "refuse",
    cast: bool = False,
    onto: Plan | None = None,
    threads: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> ImportedVector:
    """Stores the changes of a checkpoint relative to `base`, or to the materialised weights of `onto`.

    For the weights of `onto`, chunks may take `memory` bytes (`persona.merge.memory`). Raises `InvalidInput`
    for a checkpoint that does not fit, `Refused` if no element changed.
    """
    matches, notes = match_tensors(base, checkpoint, missing=missing, extra=extra, cast=cast)
    encoder = _Encoder(store, base, checkpoint, onto, thread_count(threads), memory)
    spans = [
        (match, index)
        for match in matches
        if match.source is not None
        for index in range(chunk_count(match.spec, base.chunk))
    ]
    ids: dict[str, list[str]] = {}
    values: list[Values | None] = []
    magnitudes: dict[str, Magnitudes] = {}
    bad: dict[str, tuple[int, int]] = {}
    stored = changed = 0
    rounding = 0.0
    total, done = sum(match.spec.nbytes for match, index in spans if index == 0), 0
    with first_run(progress) as progress:
        for (match, index), made in zip(
            spans, in_order(encoder, spans, threads=encoder.threads), strict=True
        ):
            name = match.spec.name
            start, stop = chunk_span(match.spec, index, base.chunk)
            if made.not_finite:
                count, first = bad.get(name, (0, start + made.first_not_finite))
                bad[name] = (count + made.not_finite, first)
            elif made.record:
                tx.append(made.record)
                stored += made.record.length
            ids.setdefault(name, []).append(made.id)
            values.append(made.values)
            if stop == match.spec.units:
                known = [part for part in values if part is not None]
                if len(known) == len(values):
                    magnitudes[name] = Magnitudes.join(match.spec.elements, known)
                values.clear()
            changed += made.changed
            rounding = max(rounding, made.rounding)
            done += (stop - start) * match.spec.unit
            if progress:
                progress(STORING_VECTOR, done, total)
    if bad:
        _refuse_not_finite(checkpoint, bad)
    tensors = tuple(
        spec
        for spec in sorted((base.spec[name] for name in ids), key=lambda spec: sort_key(spec.name))
        if any(id != NULL_ID for id in ids[spec.name])
    )
    if not tensors:
        raise NothingChanged(f"{checkpoint.path}: no element changed; there is nothing to store")
    table = [id for spec in tensors for id in ids[spec.name]]
    table_id = _put_table(tx, table)
    vector = Vector(base=base.digest, chunk=base.chunk, tensors=tensors, table=table_id)
    payload = vector.encode()
    id = tx.put("vector", payload)
    stored += pack_record("vector", id, 0, [payload], level="small").length
    stored += pack_record("table", table_id, 0, [encode_table(table)], level="small").length
    rounded = any(match.rounded for match in matches)
    if rounded:
        dtypes = sorted({match.source.dtype for match in matches if match.source and match.rounded})
        notes.append(f"rounded from {', '.join(dtypes)} to the base's dtype: by {rounding:.3g} at most")
    return ImportedVector(
        vector=vector,
        id=id,
        stored_bytes=stored,
        raw_bytes=base.merged_bytes,
        changed_fraction=changed / max(1, base.merged_elements),
        largest_rounding=rounding if rounded or onto else None,
        notes=tuple(notes),
        magnitudes={spec.name: magnitudes[spec.name] for spec in tensors if spec.name in magnitudes},
    )


class _Encoder:
    """Encodes single chunks of a fine-tune; called by many threads."""

    def __init__(
        self,
        store: Store,
        base: Base,
        checkpoint: Checkpoint,
        onto: Plan | None,
        threads: int,
        memory: int | None,
    ) -> None:
        self.base = base
        self.checkpoint = checkpoint
        self.chunks = BaseChunks.of(store.objects, base)
        self.workspaces = Workspaces(base.tensors, base.chunk)
        self.threads = threads
        self.onto: Callable[[str, int], NDArray[Any]] | None = None
        if onto is not None:
            longest = max((min(spec.nbytes, base.chunk * spec.unit) for spec in base.tensors), default=0)
            found = budget_of(onto, list(onto.tensors), threads, memory, beside=_ARRAYS * longest)
            self.threads, self.onto = found.threads, tensor_bits(onto, found)

    def __call__(self, span: tuple[Match, int]) -> _Encoded:
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
        self.checkpoint.read_into(source.name, start * given.itemsize, given.view(np.uint8).data)
        rounding = 0.0
        if match.rounded:
            rounding = _round_into(given, source.dtype, after, spec.dtype)
        if self.onto:
            rounding = _shift_into(
                base,
                self.onto(spec.name, index),
                given if match.rounded else after.copy(),
                source,
                after,
                spec,
            )
        if np.array_equal(base, after):
            return replace(_UNCHANGED, rounding=rounding)
        if casts.has_not_finite(base, spec.dtype) or casts.has_not_finite(after, spec.dtype):
            strange = casts.not_finite(base, spec.dtype) | casts.not_finite(after, spec.dtype)
            odd = np.flatnonzero(strange & (base != after))
            if odd.size:
                return _Encoded(NULL_ID, None, 0, 0.0, int(odd.size), int(odd[0]), None)
        delta = encode_delta(base, after, spec.dtype, space.scratch)
        prefix, values = delta_payload(base_id, delta.z)
        id = object_id("delta", prefix, values.data)
        record = pack_record("delta", id, delta.form, delta.segments, relative=base_id)
        magnitudes = cpu.count_values(base, delta.z, element_of(spec.dtype).code)
        return _Encoded(id, record, delta.changed, rounding, 0, 0, magnitudes)

    def _same(
        self, spec: TensorSpec, source: TensorSpec, base_id: str, index: int, start: int, stop: int
    ) -> _Encoded:
        """A tensor of a dtype that is not merged must be the base's own."""
        raw = bytearray((stop - start) * spec.unit)
        self.checkpoint.read_into(source.name, start * spec.unit, raw)
        if object_id("chunk", raw) != base_id:
            raise InvalidInput(
                f"{self.checkpoint.path}: tensor {spec.name} of dtype {spec.dtype} differs from the base's:"
                " only BF16, F16 and F32 tensors can change in a vector"
            )
        return _UNCHANGED


def _round_into(given: NDArray[Any], dtype: str, out: NDArray[Any], to: str) -> float:
    """Rounds `given` into `out`; returns the largest |difference| over finite elements."""
    largest = 0.0
    for start in range(0, out.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        values = casts.widen(given[part], dtype)
        out[part] = casts.narrow(values, to)
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.abs(casts.widen(out[part], to) - values)
        largest = max(largest, _largest(difference))
    return largest


def _shift_into(
    base: NDArray[Any],
    materialised: NDArray[Any],
    trained: NDArray[Any],
    source: TensorSpec,
    out: NDArray[Any],
    spec: TensorSpec,
) -> float:
    """f = round(b + (a − w)) into `out`, b's bits if a and w are equal (docs/numerics.md).

    Returns the largest rounding.
    """
    dtype, largest = spec.dtype, 0.0
    for start in range(0, out.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        b, w, a = base[part], materialised[part], trained[part]
        if source.dtype != dtype:
            a = casts.narrow(casts.widen(a, source.dtype), dtype)
        with np.errstate(invalid="ignore", over="ignore"):
            change = casts.widen32(a, dtype) - casts.widen32(w, dtype)
            shifted = casts.narrow32(casts.widen32(b, dtype) + change, dtype)
            out[part] = np.where(a == w, b, shifted)
            exact = casts.widen(b, dtype) + (casts.widen(a, dtype) - casts.widen(w, dtype))
            difference = np.abs(casts.widen(out[part], dtype) - exact)
        largest = max(largest, _largest(difference))
    return largest


def _largest(values: NDArray[np.float64]) -> float:
    """The largest of the finite ones, at least 0."""
    return float(np.max(values, initial=0.0, where=np.isfinite(values)))


def _put_table(tx: Transaction, ids: list[str]) -> str:
    return tx.put_bulk("table", encode_table(ids))


def _refuse_not_finite(checkpoint: Checkpoint, bad: Mapping[str, tuple[int, int]]) -> None:
    count, first = next(iter(bad.values()))
    raise InvalidInput(
        f"{checkpoint.path}: tensor {listed(list(bad), 1)}: {count} element{'s' if count > 1 else ''} where"
        f" base or fine-tune is not finite and they differ, the first at index {first}: training diverged"
        " there; use an earlier checkpoint"
    )
