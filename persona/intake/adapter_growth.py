"""The tensors that an adapter grows: those of its revision, and matrices that the base ties to each other."""

from __future__ import annotations

from dataclasses import replace

from persona.errors import InvalidInput, Keyword, listed
from persona.intake.adapter_config import MERGE_FIRST
from persona.intake.factors import PlannedAdapter, PlannedDense
from persona.merge.plan import Plan
from persona.objects.base import Base
from persona.objects.tensors import TensorSpec
from persona.weights.adapters import Adapter


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


def grown_before(adapter: Adapter, planned: PlannedAdapter, onto: Plan) -> dict[TensorSpec, str | None]:
    """The tensors that the revision has grown, with their origins, if the adapter changes one of the two.

    Raises `InvalidInput` for a factor of such a tensor, which only a dense tensor can be.
    """
    changed = {one.spec.name for one in planned.factors} | {one.spec.name for one in planned.dense}
    if changed.isdisjoint({*onto.origins, *onto.origins.values()}):
        return {}
    if odd := sorted(one.spec.name for one in planned.factors if one.spec.name in onto.origins):
        raise InvalidInput(
            f"{adapter.path}: changes {listed(odd)} by factors, and the revision that it was trained from has"
            " grown that tensor, so the change has to be stored whole",
            hint=MERGE_FIRST,
        )
    return {onto.base.spec[name]: origin for name, origin in onto.origins.items()}
