"""Copies of tied tensors in a base's file, for changes that name one of them.

A trainer lists a shared tensor once, and so do an adapter and a sparse patch. The model has one tensor, so
its copies change with it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np

from persona.cores import thread_count
from persona.errors import InvalidInput
from persona.intake.adapter_config import UNTIE_FIRST
from persona.intake.naming import joined
from persona.intake.planned import PlannedAdapter, PlannedDense, PlannedFactor
from persona.intake.twins import Copies, Twins
from persona.merge.memory import budget_of
from persona.merge.plan import Plan
from persona.merge.rows.growth import KnownBase
from persona.merge.run.merger import tensor_bits
from persona.objects.base import Base
from persona.objects.tensors import chunk_count, sort_key
from persona.store.objects import ObjectStore
from persona.weights.checkpoint import Checkpoint
from persona.weights.patches import Patched
from persona.weights.tied import says_untied


def config_of(objects: ObjectStore, base: Base) -> dict[str, Any] | None:
    """The config.json of a base."""
    id = base.files.get("config.json")
    try:
        found = None if id is None else json.loads(objects.get(id, "blob"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def copies_of(
    objects: ObjectStore, known: KnownBase, onto: Plan | None, threads: int | None, memory: int | None
) -> Copies:
    """The copies in a base, or in the revision `onto`: equal tensors, unless the config denies a tie."""
    if says_untied(config_of(objects, known.base)):
        return lambda name: []
    if onto is None:
        return Twins(known.base, known.chunks).shared
    twins = Twins(onto.base, onto.rows.chunks)
    budget = budget_of(onto, list(onto.tensors), thread_count(threads), memory)
    bits = tensor_bits(onto, budget)

    def equal(one: str, other: str) -> bool:
        spec = onto.base.spec[one]
        chunks = range(chunk_count(spec, onto.base.chunk))
        return all(np.array_equal(bits(one, index), bits(other, index)) for index in chunks)

    return lambda name: [other for other in twins.shared(name) if equal(name, other)]


def copies_of_patch(
    checkpoint: Checkpoint,
    objects: ObjectStore,
    known: KnownBase,
    onto: Plan | None,
    threads: int | None,
    memory: int | None,
) -> Copies:
    """The copies that a checkpoint changes without naming them: none, unless it is a patch of a trainer."""
    if isinstance(checkpoint, Patched) and not checkpoint.has_copies:
        return copies_of(objects, known, onto, threads, memory)
    return lambda name: []


def with_copies(planned: PlannedAdapter, copies: Copies, path: object) -> PlannedAdapter:
    """An adapter that changes the copies of each tensor that it changes.

    A module that PEFT trained as a copy of its own is no shared tensor any more. Raises `InvalidInput` for
    two factors of one tensor.
    """
    own = {one.spec.name for one in planned.factors} | {one.spec.name for one in planned.dense}
    factored = {one.spec.name: one for one in planned.factors}
    factors: list[PlannedFactor] = []
    dense: list[PlannedDense] = []
    notes: list[str] = []
    for factor in planned.factors:
        others = copies(factor.spec.name)
        for other in others:
            if other in factored:
                raise InvalidInput(
                    f"{path}: {factor.b} and {factored[other].b} both change one tensor, which the base holds"
                    f" as {factor.spec.name} and {other}",
                    hint=UNTIE_FIRST,
                )
        new = [other for other in others if other not in own]
        factors += [replace(factor, spec=replace(factor.spec, name=other)) for other in new]
        notes += _said(factor.spec.name, new)
    for whole in planned.dense:
        if whole.apart or whole.alias is not None:
            continue
        others = copies(whole.spec.name)
        if odd := [other for other in others if other in factored]:
            raise InvalidInput(
                f"{path}: {whole.source.name} and {factored[odd[0]].b} both change one tensor, which the base"
                f" holds as {whole.spec.name} and {odd[0]}",
                hint=UNTIE_FIRST,
            )
        new = [other for other in others if other not in own]
        dense += [replace(whole, spec=replace(whole.spec, name=other)) for other in new]
        notes += _said(whole.spec.name, new)
    return PlannedAdapter(
        tuple(sorted([*planned.factors, *factors], key=lambda one: sort_key(one.spec.name))),
        tuple(sorted([*planned.dense, *dense], key=lambda one: sort_key(one.spec.name))),
        planned.frozen,
        (*planned.notes, *notes),
    )


def _said(name: str, others: list[str]) -> list[str]:
    if not others:
        return []
    return [f"the base holds {name} also as {joined(others)}, so the adapter changes all of them"]
