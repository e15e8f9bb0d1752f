"""A vector on another base of the same tensors: f' = round(b' + (f − b)), and b' where f is b.

The fine-tune f is read from the store, chunk by chunk. The arithmetic is that of a fine-tune that was trained
on top of a revision (docs/numerics.md). The factors of an adapter are changes, so they stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from persona.codec.floats import in_default_environment
from persona.cores import thread_count
from persona.errors import InvalidInput, NothingChanged
from persona.frozen import dataclass
from persona.intake.encode import Deltas, Encoder, encode_deltas, put_vector
from persona.intake.growth import GrowingBase, vocabulary
from persona.intake.pairs import Match
from persona.merge.memory import budget_of
from persona.merge.plan import Plan
from persona.merge.rows.growth import KnownBase
from persona.merge.run.merger import tensor_bits
from persona.merge.workers import first_run
from persona.objects.base import Base
from persona.objects.table import decode_vector_table
from persona.objects.tensors import TensorSpec
from persona.objects.vector import Vector
from persona.progress import Progress
from persona.store.store import Store
from persona.store.transaction import Transaction
from persona.weights.scan import shorten

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


@dataclass(frozen=True)
class RebasedVector:
    """A vector on another base. `largest_rounding`: the largest |f' − (b' + (f − b))|.

    `changed_fraction` is None if its factors hold the changes.
    """

    id: str
    kind: str
    largest_rounding: float
    changed_fraction: float | None


@dataclass(frozen=True)
class _FineTune:
    """The fine-tune of a vector as `Weights`. `bits` gives a chunk of a tensor."""

    path: Path
    plan: Plan
    bits: Callable[[str, int], NDArray[Any]]

    def read_into(self, name: str, start_byte: int, out: WriteableBuffer) -> None:
        """Fills `out` with one chunk of a tensor, from its first byte on."""
        spec, view = self.plan.base.spec[name], memoryview(out).cast("B")
        index = start_byte // (spec.unit * self.plan.base.chunk)
        view[:] = self.bits(name, index).view(np.uint8).data


def check_same_specs(old: Mapping[str, TensorSpec], new: Mapping[str, TensorSpec], name: str) -> None:
    """`InvalidInput` unless a base has the tensors of an old one. `name`: of the base, for the message."""
    for tensor, spec in old.items():
        other = new.get(tensor)
        if other is None:
            raise InvalidInput(f"{name} has no tensor {shorten(tensor)}, which this recipe's base has")
        if other != spec:
            raise InvalidInput(
                f"{name}: tensor {shorten(tensor)} is {other.dtype} {list(other.shape)}, and"
                f" {spec.dtype} {list(spec.shape)} in this recipe's base; both must have the same tensors",
                hint=_as_many_tokens(spec, other),
            )
    more = next((tensor for tensor in new if tensor not in old), None)
    if more is not None:
        raise InvalidInput(f"{name} has a tensor {shorten(more)}, which this recipe's base has not")


def _as_many_tokens(spec: TensorSpec, other: TensorSpec) -> str | None:
    """How a base gets as many tokens as an old one has, if two tensors differ in that alone."""
    found = vocabulary([(spec, other)])
    if found is None or spec.dtype != other.dtype:
        return None
    cut = "; tokens of the recipe's vectors come with these" if found[1] > found[0] else ""
    return (
        f"give that base as many tokens as the old one has (resize_token_embeddings({found[0]})), save it"
        f" with save_pretrained, and move to that{cut}"
    )


@in_default_environment
def rebase_vector(
    store: Store,
    tx: Transaction,
    vector: Vector,
    name: str,
    tuned: Plan,
    before: Plan,
    base: Base,
    *,
    threads: int | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> RebasedVector:
    """Stores a delta or an adapter as a vector of another base.

    `tuned`: the plan of its fine-tune; `before`: that of its base alone. `base`: the new base, which the
    store holds. `memory`: bytes for chunks. Raises `InvalidInput` for elements that are not finite there, and
    `NothingChanged` if rounding leaves nothing of a delta.
    """
    dense = [spec for spec in vector.tensors if spec.name not in vector.factor]
    origins = dict(vector.grown)
    matches = [Match(spec, spec, spec.name in origins, origins.get(spec.name)) for spec in dense]
    known = KnownBase.of(store.objects, base)
    own = GrowingBase.of(tx, known, {match.spec: match.origin for match in matches if match.grown})
    deltas = Deltas()
    if matches:
        share = None if memory is None else memory // 2
        budget = budget_of(tuned, list(tuned.tensors), thread_count(threads), share)
        fine = _FineTune(Path(name), tuned, tensor_bits(tuned, budget))
        encoder = Encoder(own, fine, before, budget.threads, share)
        with first_run(progress) as progress:
            deltas = encode_deltas(tx, encoder, matches, progress)
    ids = own.with_unchanged(deltas.ids)
    if vector.factors:
        assert vector.table is not None
        table = decode_vector_table(store.objects.get(vector.table, "table"), vector)
        ids |= {spec.name: table.chunks(spec.name) for spec in vector.tensors if spec.name in vector.factor}
    tensors = tuple(spec for spec in own.base.tensors if spec.name in ids)
    if not tensors:
        raise NothingChanged(f"{name}: nothing of it is left on the new base: every change is rounded away")
    made = own.vector(tx, base, tensors)
    if vector.factors:
        made = replace(made, kind="lowrank", factors=tuple(vector.factor.get(spec.name) for spec in tensors))
    _, id, _ = put_vector(tx, made, ids)
    counted = None if vector.factors else deltas.changed / max(1, own.base.merged_elements)
    return RebasedVector(id, made.kind, deltas.rounding, counted)
