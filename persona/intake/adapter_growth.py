"""The tensors that an adapter grows: those of its revision, and matrices that the base ties to each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from persona.errors import InvalidInput, Keyword, listed
from persona.intake.adapter_config import MERGE_FIRST, UNTIE_FIRST
from persona.intake.adapter_refusals import resized
from persona.intake.heads import tied_with
from persona.intake.planned import PlannedAdapter, PlannedDense
from persona.merge.plan import Plan
from persona.objects.base import Base
from persona.objects.layers import numbered
from persona.objects.tensors import TensorSpec, sort_key
from persona.weights.adapters import Adapter
from persona.weights.tied import is_embedding, is_head, may_tie, says_tied


def refuse_trained_apart(base: Base, adapter: Adapter, planned: PlannedAdapter, changed: set[str]) -> None:
    """Refuses an output matrix or an embedding that was trained whole, if the base ties the two.

    `changed`: the tensors that it changes.
    """
    for dense in planned.dense:
        if dense.spec.name not in changed:
            continue
        if dense.alias is not None:
            raise InvalidInput(
                f"{adapter.path}: {dense.source.name} was trained apart from {dense.spec.name}, to which the"
                f" base ties {dense.alias}",
                hint=(Keyword(untie=True), f" makes {dense.alias} a tensor of the vector"),
            )
        if aliases := listed(_apart(base, dense, planned)):
            raise InvalidInput(
                f"{adapter.path}: {dense.source.name} was trained apart from {aliases}, which the base ties"
                " to it (modules_to_save makes a copy)",
                hint=(
                    Keyword(untie=True),
                    f" makes {aliases} a tensor of the vector, and leaves it as it is",
                ),
            )


def refuse_unknown_ties(
    base: Base,
    config: Mapping[str, Any] | None,
    adapter: Adapter,
    planned: PlannedAdapter,
    changed: Collection[str],
) -> None:
    """Refuses an embedding that was trained whole, if nobody knows whether the base ties a head to it.

    `config`: of the base. `changed`: the tensors that the adapter changes.
    """
    if not may_tie(config) or any(is_head(name) for name in base.spec):
        return
    for dense in planned.dense:
        own = base.spec.get(dense.spec.name)
        if own is None or not dense.apart or own.name not in changed or not is_embedding(own, config):
            continue
        others = [spec for spec in base.tensors if spec.shape == own.shape and spec != own]
        if own.name in base.tied.values() or any(numbered(spec.name) is None for spec in others):
            continue
        raise InvalidInput(
            f"{adapter.path}: {dense.source.name} was trained apart from the output matrix, if the base ties"
            f" that to {own.name}. The base holds no output matrix, and its name is not known",
            hint=MERGE_FIRST,
        )


def untied_with_heads(
    base: Base, adapter: Adapter, planned: PlannedAdapter, grown: Mapping[TensorSpec, str | None]
) -> tuple[PlannedAdapter, dict[TensorSpec, str | None]]:
    """The tensors that a model no longer ties if it has the output matrices of `grown`.

    They change as the tensors of the base do to which they were tied. Raises `InvalidInput` if they cannot.
    """
    found: dict[TensorSpec, str | None] = {}
    more: list[PlannedDense] = []
    taken = {spec.name: origin for spec, origin in grown.items() if origin is not None}
    for name, origin in tied_with(base, taken).items():
        spec = replace(base.spec[origin], name=name)
        dense = next((one for one in planned.dense if one.spec.name == origin), None)
        longer = dense is not None and dense.spec.shape != spec.shape
        if longer or any(one.spec.name == origin for one in planned.factors):
            raise InvalidInput(
                f"{adapter.path}: changes {origin}, and {listed(list(taken))} apart from it; models that"
                f" untie the two have a tensor {name} too",
                hint=UNTIE_FIRST,
            )
        found[spec] = origin
        if dense is not None and not dense.apart:
            more.append(replace(dense, spec=spec))
    dense_too = sorted([*planned.dense, *more], key=lambda one: sort_key(one.spec.name))
    return replace(planned, dense=tuple(dense_too)), found


def heads_apart(base: Base, adapter: Adapter, planned: PlannedAdapter) -> dict[TensorSpec, str | None]:
    """The output matrices that stay as they are while an embedding changes, with the embedding as the origin.

    Raises `InvalidInput` if such a matrix has new rows, which the adapter does not hold.
    """
    found: dict[TensorSpec, str | None] = {}
    for one in planned.dense:
        aliases = _apart(base, one, planned)
        if aliases and one.spec != base.spec[one.spec.name]:
            raise InvalidInput(
                f"{adapter.path}: {one.source.name} was trained apart from {listed(aliases)}, whose new rows"
                " are not in the adapter",
                hint=MERGE_FIRST,
            )
        found |= {replace(one.spec, name=alias): one.spec.name for alias in aliases}
    return found


def _apart(base: Base, dense: PlannedDense, planned: PlannedAdapter) -> list[str]:
    """The names that the base ties to a tensor, and that were not trained with it."""
    held = {one.spec.name for one in planned.dense}
    aliases = [alias for alias, name in base.tied.items() if name == dense.spec.name and alias not in held]
    return aliases if dense.apart else []


def refuse_longer_heads(
    base: Base, adapter: Adapter, planned: PlannedAdapter, grown: Mapping[TensorSpec, str | None]
) -> None:
    """Refuses an output matrix with new tokens, if the adapter does not hold those of its embedding.

    `grown`: the tensors that the adapter grows, with their origins.
    """
    held = {one.spec.name: one.spec for one in planned.dense}
    for spec, origin in grown.items():
        if origin is not None and spec.shape != (own := held.get(origin, base.spec[origin])).shape:
            raise InvalidInput(
                f"{adapter.path}: {spec.name} has {spec.shape[0]} tokens and was trained apart from {origin},"
                f" which has {own.shape[0]}: its new rows are not in the adapter",
                hint=resized(spec.shape[0]),
            )


def grown_before(
    adapter: Adapter, planned: PlannedAdapter, grown: Mapping[TensorSpec, str | None], onto: Plan
) -> dict[TensorSpec, str | None]:
    """The tensors that the revision has grown, with their origins, if the adapter changes one of the two.

    `grown`: the tensors that the adapter grows, with their origins. Raises `InvalidInput` for a factor of a
    tensor that the revision has grown, which only a dense tensor can be.
    """
    changed = {one.spec.name for one in planned.factors} | {one.spec.name for one in planned.dense}
    changed |= {origin for origin in grown.values() if origin is not None}
    if changed.isdisjoint({*onto.origins, *onto.origins.values()}):
        return {}
    if odd := sorted(one.spec.name for one in planned.factors if one.spec.name in onto.origins):
        raise InvalidInput(
            f"{adapter.path}: changes {listed(odd)} by factors, and the revision that it was trained from has"
            " grown that tensor, so the change has to be stored whole",
            hint=MERGE_FIRST,
        )
    _refuse_untied_copies(adapter, planned, onto)
    return {onto.base.spec[name]: origin for name, origin in onto.origins.items()}


def refuse_rows_of_two(
    base: Base, config: Mapping[str, Any] | None, planned: PlannedAdapter, path: Path
) -> None:
    """Refuses trained rows of an embedding if PEFT may have changed those of another matrix with them.

    PEFT changes both if the config of its model ties the two, even if they differ. `config`: of the base.
    """
    if not says_tied(config):
        return
    changed = {one.spec.name for one in planned.dense}
    for one in planned.dense:
        heads = [spec for spec in base.tensors if is_head(spec.name) and spec.shape == one.spec.shape]
        if one.tokens is not None and heads and not is_head(one.spec.name) and heads[0].name not in changed:
            raise InvalidInput(
                f"{path}: {one.source.name} has trained rows of {one.spec.name}. PEFT changes these rows of"
                f" {heads[0].name} too if the config.json of its model says that the two are tied, and here"
                " they differ",
                hint=MERGE_FIRST,
            )


def _refuse_untied_copies(adapter: Adapter, planned: PlannedAdapter, onto: Plan) -> None:
    """Refuses a dense tensor of a matrix that the revision unties from others which are still equal to it.

    Some models hold all of them as one tensor nevertheless (T5), and others do not (BART).
    """
    names: dict[str, list[str]] = {}
    for one in planned.dense:
        names.setdefault(one.source.name, []).append(one.spec.name)
    for source, changed in names.items():
        apart = [name for name in changed if onto.origins.get(name) is not None]
        if apart and len(changed) > len(apart):
            raise InvalidInput(
                f"{adapter.path}: {source} changes {next(name for name in changed if name not in apart)}. The"
                f" revision that it was trained from has {listed(apart)} apart from it, with the same values:"
                " whether these change too is not known",
                hint=MERGE_FIRST,
            )
