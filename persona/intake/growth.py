"""The rows that a fine-tune adds to its base: which are taken, and the chunks that they are relative to.

A fine-tune may have more tokens than its base (`extend_vocab`), or an output matrix of its own where the base
has one that is tied to its embedding (`untie`). See `persona.objects.growth`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from persona.codec.base import encode_base
from persona.errors import Hint, InvalidInput, Keyword, listed
from persona.frozen import dataclass
from persona.intake.adapter_config import MERGE_FIRST, OWN_MATRICES
from persona.intake.pairs import Match
from persona.intake.parts import View
from persona.merge.plan import Plan
from persona.merge.rows.growth import KnownBase
from persona.merge.rows.reader import BaseChunks
from persona.objects import growth
from persona.objects.base import Base
from persona.objects.ids import NULL_ID, object_id
from persona.objects.table import encode_table
from persona.objects.tensors import TensorSpec, chunk_count
from persona.objects.vector import Vector
from persona.store.records import pack_record
from persona.store.transaction import Transaction
from persona.weights.tied import is_head

_VOCABULARY: Final = (
    "embed",
    "wte",
    "shared.weight",
    "lm_head",
    "output.weight",
    "predictions.bias",
    "predictions.decoder",
    "final_logits_bias",
    "proj_out",
)
"""Parts of the names of tensors that have one row, or one element, for each token."""
_OTHERS: Final = ("position", "wpe", "token_type", "patch")
"""Parts of the names of other embeddings."""


def vocabulary(pairs: Iterable[tuple[TensorSpec, TensorSpec | None]]) -> growth.Sizes | None:
    """The sizes of two vocabularies, from tensors of the base and what a fine-tune has in their place."""
    for before, after in pairs:
        if after is None or not _is_of_tokens(before.name):
            continue
        if (found := growth.sizes(before, after)) is not None:
            return found
    return None


def grown(spec: TensorSpec, source: TensorSpec, found: growth.Sizes | None) -> TensorSpec | None:
    """A tensor of the base with the tokens that a fine-tune adds; `found`: the vocabularies' sizes.

    None if the tensor does not grow as the vocabulary does.
    """
    if not spec.merged or growth.sizes(spec, source) != found or not growth.extends(spec.shape, source.shape):
        return None
    return replace(spec, shape=source.shape)


def refuse_size(where: str, spec: TensorSpec, source: TensorSpec, found: growth.Sizes | None) -> None:
    """`InvalidInput` if a tensor has as many rows as the vocabulary of the fine-tune, not of the base."""
    if found is None or growth.sizes(spec, source) != found:
        return
    before, after = found
    back = f"resize_token_embeddings({before})"
    if growth.extends(spec.shape, source.shape):
        raise InvalidInput(
            f"{where} has a vocabulary of {after}, but the base has {before}",
            hint=(Keyword(extend_vocab=True), f" takes the new tokens too; {back} drops them"),
        )
    raise InvalidInput(
        f"{where} has a vocabulary of {after}, but the base has {before}: resize it back ({back}) or start"
        " from a base of that size"
    )


def refuse_another(path: object, name: str, found: growth.Sizes) -> NoReturn:
    """`InvalidInput` for a fine-tune of a revision with new tokens that has more or fewer tokens than it."""
    after = (
        "import it as a fine-tune of the base, and leave the vector with the other new tokens out of the"
        " recipe; or train it without more tokens"
    )
    raise InvalidInput(
        f"{path}: {name} has a vocabulary of {found[1]}, and the revision that it was trained from has"
        f" {found[0]}; one recipe cannot hold both",
        hint=after if found[1] > found[0] else "name the revision that it was trained from",
    )


def check_alike(
    path: object, pairs: Iterable[tuple[TensorSpec, TensorSpec | None]], found: growth.Sizes
) -> None:
    """`InvalidInput` if tensors of the vocabulary of a fine-tune have different sizes.

    `pairs`: tensors of the base, and what the fine-tune has in their place.
    """
    for before, after in pairs:
        other = vocabulary([(before, after)])
        if other is not None and other[0] == found[0] and other[1] != found[1]:
            raise InvalidInput(
                f"{path}: {before.name} has {other[1]} tokens, and another tensor of the vocabulary has"
                f" {found[1]}; give them one size (resize_token_embeddings), and save the fine-tune again"
            )


def check_together(
    path: object, others: Iterable[TensorSpec], found: growth.Sizes, hint: Hint | None = None
) -> None:
    """`InvalidInput` if a tensor of the vocabulary does not grow with it.

    `others`: the tensors that do not grow. `found`: the vocabularies' sizes. `hint`: of the error.
    """
    rows = {spec.name: next((size for size in spec.shape if size != 1), 1) for spec in others}
    if left := [name for name, size in rows.items() if _is_of_tokens(name) and size == found[0]]:
        raise InvalidInput(
            f"{path}: the vocabulary grows to {found[1]} tokens, but {listed(left)} would keep {found[0]}: no"
            " model has both; take all of them from a fine-tune that holds them",
            hint=hint,
        )


def _is_of_tokens(name: str) -> bool:
    return any(part in name for part in _VOCABULARY) and not any(part in name for part in _OTHERS)


def longer(spec: TensorSpec, source: TensorSpec, path: object, *, take: bool) -> TensorSpec:
    """A tensor of the base as a tensor of an adapter has it: with new tokens, or as it is.

    `take`: whether new tokens are taken. Raises `InvalidInput` if they are not.
    """
    found = vocabulary([(spec, source)])
    if found is not None and take and (larger := grown(spec, source, found)) is not None:
        return larger
    refuse_size(f"{path}: tensor {spec.name}", spec, source, found)
    return spec


def holding(spec: TensorSpec, tokens: Sequence[int], where: str, *, take: bool) -> TensorSpec:
    """An embedding of the base with the rows of some tokens, which an adapter trained.

    `take`: whether new tokens are taken. Raises `InvalidInput` if they are not, or if some rows are unknown.
    """
    rows, last = spec.shape[0], max(tokens, default=0)
    if (
        len(set(tokens)) != len(tokens)
        or min(tokens, default=0) < 0
        or not {*range(rows, last + 1)} <= {*tokens}
    ):
        larger = f"if the training began with more tokens than the base has, load that model, {MERGE_FIRST}"
        raise InvalidInput(
            f"{where}: the trained tokens must be different numbers from 0 to {rows - 1}, the vocabulary of"
            f" {spec.name}, or all numbers from {rows} on",
            hint=larger if last >= rows else None,
        )
    if last >= rows and not take:
        raise InvalidInput(
            f"{where}: the trained tokens go to {last}, but the vocabulary of {spec.name} has {rows}",
            hint=(Keyword(extend_vocab=True), " takes the new tokens"),
        )
    return replace(spec, shape=(max(rows, last + 1), *spec.shape[1:]))


# -- the chunks of the base


@dataclass(frozen=True)
class _GrowingChunks(BaseChunks):
    """The chunks of an extended base that no store holds yet. `own`: of its base, `known`: what that has."""

    own: BaseChunks
    known: Mapping[str, TensorSpec]

    def read(self, spec: TensorSpec, index: int, out: NDArray[Any]) -> NDArray[Any]:
        """See `BaseChunks.read`."""
        if spec.name not in self.known:
            return self.own.read(spec, index, out)
        own, part = self.known[spec.name], out[: self.size(spec, index)]
        size = self.own.size(own, index) if index < chunk_count(own, self.chunk) else 0
        if size:
            self.own.read(own, index, part[:size])
        part[size:] = 0
        return part


@dataclass(frozen=True)
class GrowingBase:
    """A base as a fine-tune grows it: its manifest and chunks, and the grown tensors with their origins."""

    base: Base
    chunks: BaseChunks
    grown: tuple[tuple[str, str | None], ...] = ()

    @classmethod
    def of(cls, tx: Transaction, known: KnownBase, specs: Mapping[TensorSpec, str | None]) -> GrowingBase:
        """Stores the chunks that the base lacks. `specs`: the grown tensors with their origins."""
        if not specs:
            return cls(known.base, known.chunks)
        alone = growth.growing(known.base, specs)
        base = growth.extended(known.base, [("the fine-tune", alone)])
        own = {name: known.base.spec[origin or name] for name, origin in alone.grown}
        chunks = _GrowingChunks(known.chunks.reader, known.chunks.table, known.chunks, own)
        ids = {name: _stored(tx, base.spec[name], spec, chunks) for name, spec in own.items()}
        table = known.chunks.table.extended(base.tensors, base.chunk, ids)
        return cls(base, replace(chunks, table=table), alone.grown)

    def with_unchanged(self, ids: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """The ids of chunks by tensor, also of grown tensors in which nothing changed."""
        counts = {name: chunk_count(self.base.spec[name], self.base.chunk) for name, _ in self.grown}
        return {name: [NULL_ID] * count for name, count in counts.items()} | dict(ids)

    def vector(self, tx: Transaction, base: Base, tensors: tuple[TensorSpec, ...]) -> Vector:
        """A delta of `base` that changes these tensors, still without its table; stores what it grows."""
        if not self.grown:
            return Vector(base.digest, chunk=base.chunk, tensors=tensors)
        ids = [id for name, _ in self.grown for id in self.chunks.table.chunks(name)]
        table = tx.put_bulk("table", encode_table(ids))
        return Vector(base.digest, chunk=base.chunk, tensors=tensors, grown=self.grown, grown_table=table)


def _stored(tx: Transaction, spec: TensorSpec, own: TensorSpec, chunks: _GrowingChunks) -> list[str]:
    """The ids of the chunks of a grown tensor, of which the new ones are stored."""
    ids: list[str] = []
    shared = own.units // chunks.chunk if own.shape != spec.shape else chunk_count(own, chunks.chunk)
    for index in range(chunk_count(spec, chunks.chunk)):
        if index < shared:
            ids.append(chunks.own.id(own, index))
            continue
        bits = np.empty(chunks.size(spec, index), spec.bits_dtype)
        chunks.read(spec, index, bits)
        ids.append(object_id("chunk", bits.view(np.uint8).data))
        form, segments = encode_base(bits, spec.dtype)
        tx.append(pack_record("chunk", ids[-1], form, segments))
    return ids


# -- on top of a revision


def check_known(
    matches: Iterable[Match], changed: Collection[str], view: View, onto: Mapping[str, str | None]
) -> None:
    """`InvalidInput` if a fine-tune left an output matrix as it was, and it is not known what went with it.

    A file holds memory once that several tensors share. If the embedding changed and the output matrix did
    not, the tensors that a model ties to both and that the file lacks may have been either. `changed`: the
    tensors that differ from those before the training. `onto`: the origins of the tensors that its revision
    has grown.
    """
    taken = {match.spec.name: match.origin for match in matches if match.grown and match.origin is not None}
    for head, origin in taken.items():
        lost = [name for name, other in taken.items() if other == origin and name not in view.held]
        if lost and is_head(head) and head not in onto and origin in changed and head not in changed:
            raise InvalidInput(
                f"{view.path}: {origin} differs from what it was before the training, and {head} does not."
                f" {listed(lost)} {'are' if len(lost) > 1 else 'is'} missing: which of the two the model had"
                " there is not known",
                hint=OWN_MATRICES,
            )


def onto_matches(matches: Sequence[Match], origins: Mapping[str, str | None]) -> list[Match]:
    """Matches with the extended base of a revision, as matches with its base that grow it.

    `origins`: of the tensors that the revision has grown. If none of them is matched, and none of their
    origins, the fine-tune need not grow the base.
    """
    given = {match.spec.name for match in matches if match.source is not None}
    if given.isdisjoint({*origins, *origins.values()}):
        return [match for match in matches if match.spec.name not in origins]
    return [
        replace(match, grown=True, origin=origins[match.spec.name]) if match.spec.name in origins else match
        for match in matches
    ]


def before_training(
    plan: Plan, base: GrowingBase, bits: Callable[[str, int], NDArray[Any]]
) -> Callable[[str, int], NDArray[Any]]:
    """The weights of `plan` at the tensors of `base`: a function like `bits`, which has those of the plan.

    At each tensor that is read, `base` has all rows of the plan.
    """
    known: dict[str, TensorSpec] = {}
    origins = dict(base.grown)
    for spec in base.base.tensors:
        own = plan.base.spec.get(spec.name) or plan.base.spec[origins[spec.name] or spec.name]
        if own != spec:
            known[spec.name] = own

    def chunk(name: str, index: int) -> NDArray[Any]:
        own = known.get(name)
        if own is None:
            return bits(name, index)
        found = np.zeros(base.chunks.size(base.base.spec[name], index), own.bits_dtype)
        if index < chunk_count(own, plan.base.chunk):
            part = bits(own.name, index)
            found[: part.size] = part
        return found

    return chunk if known else bits
