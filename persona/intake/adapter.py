"""Adapter -> vector: its factors as they are, and deltas of the tensors that it holds whole."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from persona.codec.base import encode_base
from persona.codec.floats import in_default_environment
from persona.cores import thread_count
from persona.errors import InvalidInput, Keyword, NothingChanged, listed
from persona.frozen import dataclass
from persona.intake.adapter_config import MERGE_FIRST, AdapterConfig, read_config
from persona.intake.adapter_growth import (
    grown_before,
    heads_apart,
    refuse_longer_heads,
    refuse_rows_of_two,
    refuse_trained_apart,
    refuse_unknown_ties,
    untied_with_heads,
)
from persona.intake.adapter_refusals import resized
from persona.intake.choices import Choices, check_globs, matches
from persona.intake.copies import config_of, copies_of, with_copies
from persona.intake.encode import Deltas, Encoder, ImportedVector, encode_deltas, put_vector
from persona.intake.factors import plan_adapter
from persona.intake.growth import GrowingBase, check_together, refuse_another
from persona.intake.naming import described
from persona.intake.pairs import Match
from persona.intake.planned import PlannedAdapter, PlannedDense, PlannedFactor
from persona.merge.arithmetic import casts
from persona.merge.plan import Plan
from persona.merge.rows.growth import KnownBase
from persona.merge.workers import first_run, in_order
from persona.objects.base import Base
from persona.objects.growth import sizes
from persona.objects.ids import object_id
from persona.objects.tensors import TensorSpec, chunk_count, chunk_span
from persona.progress import STORING_VECTOR, Progress
from persona.store.files import Buffer
from persona.store.records import PackedRecord, pack_record
from persona.store.store import Store
from persona.store.transaction import Transaction
from persona.weights.adapters import Adapter

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Bits = NDArray[Any]


@in_default_environment
def import_adapter(
    store: Store,
    tx: Transaction,
    base: Base,
    adapter: Adapter,
    *,
    base_names: Collection[str] = (),
    cast: bool = False,
    extend_vocab: bool = False,
    untie: bool = False,
    leave: str | Sequence[str] = (),
    onto: Plan | None = None,
    threads: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> ImportedVector:
    """Stores an adapter as a vector of `base`: low rank, or a delta if it has no factor.

    Factors are stored as they are. Tensors that it holds whole are relative to `base`, or to the materialised
    weights of `onto`, whose chunks may take `memory` bytes.

    `extend_vocab`, `untie`: tensors that it holds whole may have new tokens, or be an output matrix that
    the base ties. `leave`: globs of tensors that stay as they are in the base. `base_names`: what the
    base is called here; a note says if the adapter names another. Raises `InvalidInput` for an adapter
    that is not linear or does not fit (docs/adapters.md), and `NothingChanged` if it changes no element.
    """
    config = read_config(adapter.config, adapter.path)
    whole = base if onto is None else onto.base
    check_globs(leave, whole.spec, "leave", words=())
    choices = Choices(cast=cast, extend_vocab=extend_vocab, untie=untie)
    known = KnownBase.of(store.objects, base)
    planned, left = _without(plan_adapter(whole, adapter, config, choices), leave)
    of_base, copies = config_of(store.objects, base), copies_of(store.objects, known, onto, threads, memory)
    planned, also = _without(with_copies(planned, copies, adapter.path), leave)
    left = tuple(sorted({*left, *also}))
    refuse_rows_of_two(whole, of_base, planned, adapter.path)
    factor_bytes = sum(part.nbytes for part in _parts(planned))
    dense = [one.spec for one in planned.dense]
    grown = {spec: whole.tied.get(spec.name) for spec in dense if spec != whole.spec.get(spec.name)}
    if untie:
        grown |= heads_apart(whole, adapter, planned)
        planned, untied = untied_with_heads(whole, adapter, planned, grown)
        grown |= untied
    if odd := [one.source.name for one in planned.frozen if one.spec != whole.spec.get(one.spec.name)]:
        raise InvalidInput(
            f"{adapter.path}: {listed(odd)} with new tokens, and beside it a change of some of its rows",
            hint=MERGE_FIRST,
        )
    refuse_longer_heads(whole, adapter, planned, grown)
    longer = [spec for spec, origin in grown.items() if origin is None]
    if longer and (found := sizes(whole.spec[longer[0].name], longer[0])) is not None:
        larger = {spec.name for spec in longer}
        shorter = (spec for spec in whole.tensors if spec.name not in larger)
        check_together(adapter.path, shorter, found, hint=resized(found[1]))
        if onto is not None and (
            more := larger & {name for name, origin in onto.origins.items() if not origin}
        ):
            refuse_another(adapter.path, min(more), found)
    before = {} if onto is None else grown_before(adapter, planned, grown, onto)
    own = GrowingBase.of(tx, known, {**before, **grown})
    encoder = Encoder(own, adapter, onto, thread_count(threads), memory)
    with first_run(progress) as progress:
        _check_frozen(encoder, adapter, planned)
        deltas = _dense(tx, encoder, adapter, planned, progress, factor_bytes)
        refuse_unknown_ties(whole, of_base, adapter, planned, set(deltas.ids))
        if not untie:
            refuse_trained_apart(whole, adapter, planned, set(deltas.ids))
        ids, stored = _factors(tx, base, adapter, planned, threads, progress)
    factors = {one.spec.name: one.factor for one in planned.factors}
    is_changed = bool(ids or deltas.ids or grown)
    ids |= own.with_unchanged(deltas.ids)
    tensors = tuple(spec for spec in own.base.tensors if spec.name in ids)
    if not is_changed:
        raise NothingChanged(f"{adapter.path}: no element changed; there is nothing to store")
    names = () if onto else base_names
    vector = own.vector(tx, base, tensors)
    if factors:
        vector = replace(vector, kind="lowrank", factors=tuple(factors.get(spec.name) for spec in tensors))
    vector, id, manifest = put_vector(tx, vector, ids)
    return ImportedVector(
        vector=vector,
        id=id,
        stored_bytes=stored + deltas.stored + manifest,
        raw_bytes=base.merged_bytes,
        changed_fraction=None if factors else deltas.changed / max(1, base.merged_elements),
        largest_rounding=deltas.rounding if deltas.rounded or (onto and dense) else None,
        notes=(*planned.notes, *deltas.notes(), *_told(adapter, config, names, grown)),
        magnitudes=deltas.magnitudes,
        left=left,
    )


def _without(planned: PlannedAdapter, leave: str | Sequence[str]) -> tuple[PlannedAdapter, tuple[str, ...]]:
    """An adapter without the tensors that globs name, and their names."""

    def stays(one: PlannedFactor | PlannedDense) -> bool:
        return not matches(leave, one.spec.name)

    parts: list[PlannedFactor | PlannedDense] = [*planned.factors, *planned.dense]
    left = tuple(sorted(one.spec.name for one in parts if not stays(one)))
    if not left:
        return planned, left
    note = f"left as in the base: {described(left, [one.spec.name for one in parts])}"
    return PlannedAdapter(
        tuple(filter(stays, planned.factors)),
        tuple(filter(stays, planned.dense)),
        tuple(filter(stays, planned.frozen)),
        (*planned.notes, note),
    ), left


class _Discarding(Transaction):
    """Takes objects for their ids, and stores none."""

    def append(self, record: PackedRecord) -> bool:
        """See `Transaction.append`."""
        return False

    def put(self, kind: str, payload: Buffer, *, version: int = 1) -> str:
        """See `Transaction.put`."""
        return object_id(kind, payload, version=version)


def adapter_id(
    store: Store,
    base: Base,
    adapter: Adapter,
    *,
    untie: bool,
    onto: Plan | None = None,
    threads: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> str:
    """The id of the vector that `import_adapter` would store. Stores nothing. Raises as `import_adapter`."""
    return import_adapter(
        store,
        _Discarding(store.objects),
        base,
        adapter,
        cast=True,
        extend_vocab=True,
        untie=untie,
        onto=onto,
        threads=threads,
        memory=memory,
        progress=progress,
    ).id


def reached(base: Base, adapter: Adapter) -> tuple[frozenset[str], frozenset[str]]:
    """The tensors that an adapter reaches by factors, and those that it holds whole, by the base's names.

    Only the latter depend on the weights that it was trained from. Raises as `import_adapter` for names and
    shapes that do not fit.
    """
    choices = Choices(cast=True, extend_vocab=True, untie=True)
    planned = plan_adapter(base, adapter, read_config(adapter.config, adapter.path), choices)
    whole = (one.spec.name for one in (*planned.dense, *planned.frozen))
    return frozenset(one.spec.name for one in planned.factors), frozenset(whole)


def _told(
    adapter: Adapter,
    config: AdapterConfig,
    base_names: Collection[str],
    grown: Mapping[TensorSpec, str | None],
) -> list[str]:
    said = [
        f"{spec.name} is a tensor of the vector; the base has {origin} in its place"
        for spec, origin in grown.items()
        if origin is not None
    ]
    if longer := [spec.name for spec, origin in grown.items() if origin is None]:
        said.append(
            f"{listed(longer)} with new tokens; no tokenizer is imported with an"
            f" adapter: copy that of {adapter.path.name} into the work tree"
        )
    if config.trained_on is not None and base_names:
        name = config.trained_on.rstrip("/").rpartition("/")[2].lower()
        if name not in {one.lower() for one in base_names}:
            names = " or ".join(sorted(base_names))
            said.append(f"the adapter says that it was trained on {config.trained_on}, not on {names}")
    if adapter.beside:
        others = ", ".join(adapter.beside)
        said.append(f"other adapters below {adapter.path.name}, not imported: {others}")
    return said


# -- dense tensors


@dataclass(frozen=True)
class _DenseWeights:
    """The dense tensors of an adapter as an encoder reads them, by the names of the base.

    Of some, the adapter has only some rows; the others are those before the training.
    """

    adapter: Adapter
    dense: dict[str, PlannedDense]
    encoder: Encoder

    @property
    def path(self) -> Path:
        """See `Weights`."""
        return self.adapter.path

    def read_into(self, name: str, start_byte: int, out: WriteableBuffer) -> None:
        """See `Weights`."""
        planned = self.dense[name]
        if planned.tokens is None:
            self.adapter.read_into(planned.source.name, planned.first_byte + start_byte, out)
        else:
            bits = np.asarray(memoryview(out)).view(planned.spec.bits_dtype)
            self._chunk_into(planned, start_byte // planned.spec.unit, bits)

    def _chunk_into(self, planned: PlannedDense, start: int, out: Bits) -> None:
        """A chunk of the weights before the training, with the rows of the adapter in their places."""
        spec, source = planned.spec, planned.source
        _read_before(self.encoder, spec, start // self.encoder.base.chunk, out)
        columns = spec.shape[1]
        given = np.empty(columns, source.bits_dtype)
        for place, token in enumerate(planned.tokens or ()):
            first, last = max(token * columns, start), min((token + 1) * columns, start + out.size)
            if first < last:
                self.adapter.read_into(source.name, place * given.nbytes, given.data)
                row = given
                if source.dtype != spec.dtype:
                    row = casts.narrow(casts.widen(given, source.dtype), spec.dtype)
                out[first - start : last - start] = row[first - token * columns : last - token * columns]


def _dense(
    tx: Transaction,
    encoder: Encoder,
    adapter: Adapter,
    planned: PlannedAdapter,
    progress: Progress | None,
    more_bytes: int,
) -> Deltas:
    if not planned.dense:
        return Deltas()
    encoder.weights = _DenseWeights(adapter, {one.spec.name: one for one in planned.dense}, encoder)
    matches = [
        Match(one.spec, one.spec if one.tokens is not None else replace(one.spec, dtype=one.source.dtype))
        for one in planned.dense
    ]
    return encode_deltas(tx, encoder, matches, progress, more_bytes=more_bytes)


def _read_before(encoder: Encoder, spec: TensorSpec, index: int, out: Bits) -> None:
    """Fills `out` with a chunk of a tensor as it was before the training."""
    if encoder.onto is None:
        encoder.chunks.read(spec, index, out)
    else:
        out[:] = encoder.onto(spec.name, index)


def _check_frozen(encoder: Encoder, adapter: Adapter, planned: PlannedAdapter) -> None:
    """`InvalidInput` if a tensor that PEFT saved beside a factor is not that before the training.

    It may have any dtype.
    """
    length = encoder.base.chunk
    biases = {one.spec.name for one in planned.factors if one.a is None}
    for frozen in planned.frozen:
        spec, source = frozen.spec, frozen.source
        for index in range(chunk_count(spec, length)):
            start, stop = chunk_span(spec, index, length)
            own, given = np.empty(stop - start, spec.bits_dtype), np.empty(stop - start, source.bits_dtype)
            _read_before(encoder, spec, index, own)
            adapter.read_into(source.name, frozen.first_byte + start * source.unit, given.data)
            if _equal_as_held(own, spec.dtype, given, source.dtype):
                continue
            if spec.name in biases:
                raise InvalidInput(
                    f"{adapter.path}: trains the bias {spec.name} whole and also by a factor (lora_bias)",
                    hint=MERGE_FIRST,
                )
            if frozen.alias is not None:
                raise InvalidInput(
                    f"{adapter.path}: changes {spec.name}, to which the base ties {frozen.alias}, and"
                    f" {source.name} was trained apart from it",
                    hint=(Keyword(untie=True), f" makes {frozen.alias} a tensor of the vector"),
                )
            raise InvalidInput(
                f"{adapter.path}: changes {spec.name}, and {source.name} has other weights for it than the"
                " base; use the base that the adapter was trained on"
            )


def _equal_as_held(own: Bits, dtype: str, given: Bits, given_dtype: str) -> bool:
    """Whether two chunks are equal once one of them is rounded to the dtype of the other."""
    if dtype == given_dtype:
        return np.array_equal(own, given)
    return np.array_equal(casts.narrow(casts.widen(own, dtype), given_dtype), given) or np.array_equal(
        casts.narrow(casts.widen(given, given_dtype), dtype), own
    )


# -- factors


def _parts(planned: PlannedAdapter) -> list[TensorSpec]:
    """A and B of all factors."""
    return [part for one in planned.factors for part in (one.factor.a(one.spec), one.factor.b(one.spec))]


def _factors(
    tx: Transaction,
    base: Base,
    adapter: Adapter,
    planned: PlannedAdapter,
    threads: int | None,
    progress: Progress | None,
) -> tuple[dict[str, list[str]], int]:
    """Stores the factors; returns the ids of their chunks by tensor, and their bytes on disk."""
    total = done = sum(one.spec.nbytes for one in planned.dense)
    total += sum(part.nbytes for part in _parts(planned))
    ids: dict[str, list[str]] = {}
    stored, held = 0, set[str]()

    def encode(group: list[PlannedFactor]) -> list[list[PackedRecord]]:
        return _encoded(adapter, group, base.chunk)

    groups: defaultdict[str, list[PlannedFactor]] = defaultdict(list)
    for one in planned.factors:
        groups[one.b].append(one)  # tensors that the adapter stacks: read them once
    made = in_order(encode, list(groups.values()), threads=thread_count(threads))
    for group, encoded in zip(groups.values(), made, strict=True):
        for one, records in zip(group, encoded, strict=True):
            for record in records:
                if record.id not in held:  # experts share A
                    tx.append(record)
                    held.add(record.id)
                    stored += record.length
            ids[one.spec.name] = [record.id for record in records]
            done += one.factor.a(one.spec).nbytes + one.factor.b(one.spec).nbytes
        if progress:
            progress(STORING_VECTOR, done, total)
    return ids, stored


def _encoded(adapter: Adapter, group: list[PlannedFactor], length: int) -> list[list[PackedRecord]]:
    """For each factor of one A and one B, the records of the chunks of its A, then of its B."""
    first = group[0]
    b = _read(adapter, first.b, first.factor.dtype)
    a = _ones(first.factor.dtype) if first.a is None else _read(adapter, first.a, first.factor.dtype)
    a, b = first.turn(a, b)
    return [_records(one, a, b, length) for one in group]


def _records(one: PlannedFactor, a: Bits, b: Bits, length: int) -> list[PackedRecord]:
    if one.piece is not None:
        block, start, stop = one.piece
        a, b = a[block : block + 1], b[block : block + 1, start:stop]
    records: list[PackedRecord] = []
    for part, bits in ((one.factor.a(one.spec), a), (one.factor.b(one.spec), b)):
        assert bits.shape == part.shape
        flat = np.ascontiguousarray(bits).reshape(-1)
        for index in range(chunk_count(part, length)):
            start, stop = chunk_span(part, index, length)
            chunk = flat[start:stop]
            form, segments = encode_base(chunk, part.dtype)
            records.append(
                pack_record("chunk", object_id("chunk", chunk.view(np.uint8).data), form, segments)
            )
    return records


def _read(adapter: Adapter, name: str, dtype: str) -> Bits:
    """A tensor of the adapter in `dtype`, which holds its values. `InvalidInput` if one is not finite."""
    spec = adapter.tensors[name]
    bits = np.empty(spec.shape, spec.bits_dtype)
    adapter.read_into(name, 0, bits.data)
    if casts.has_not_finite(bits.reshape(-1), spec.dtype):
        odd = np.flatnonzero(casts.not_finite(bits.reshape(-1), spec.dtype))
        raise InvalidInput(
            f"{adapter.path}: {name}: {odd.size} element{'s are' if odd.size > 1 else ' is'} not finite, the"
            f" first at index {odd[0]}: training diverged there; use an earlier checkpoint"
        )
    if spec.dtype == dtype:
        return bits
    return casts.widen32(bits.reshape(-1), spec.dtype).view(np.uint32).reshape(spec.shape)


def _ones(dtype: str) -> Bits:
    return casts.narrow32(np.ones(1, np.float32), dtype)
