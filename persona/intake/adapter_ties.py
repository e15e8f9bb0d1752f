"""What is said of an adapter that changes a tensor which several layers of the model share."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from persona.errors import Hint, InvalidInput, Keyword, Note
from persona.intake.adapter_config import UNTIE_FIRST
from persona.objects.base import Base


def changed_twice(base: Base, said: str, name: str, *, alias: str | None, one_change: bool) -> InvalidInput:
    """The error for two changes of the tensor `name`, which a sentence names.

    `alias`: a name that the base ties to it, and that `untie` makes a tensor. `one_change`: the layers were
    trained as one (`ensure_weight_tying`), so no merge gives the model that was trained.
    """
    aliases = [other for other, target in base.tied.items() if target == name]
    tied = f", to which the base ties {' and '.join(aliases)}" if aliases else ""
    hint: Hint | None = UNTIE_FIRST if aliases and not one_change else None
    if one_change:
        hint = "adapt one of the two"
    if alias is not None:
        hint = (Keyword(untie=True), f" makes {alias} a tensor of the vector")
    return InvalidInput(f"{said} {name}{tied}", hint=hint)


def changing_both(
    ties: Mapping[str, str], factors: Collection[str], dense: Collection[str]
) -> Iterator[Note]:
    """The sentences on tensors that change under all names that the base ties to them.

    `ties`: these names. `factors` and `dense`: the tensors that an adapter changes, and did not train apart.
    """
    for alias, name in sorted(ties.items()):
        said = f"the base ties {alias} to {name}, so the adapter changes both"
        if name in factors:
            yield Note(said, f"if only one of them was adapted, {UNTIE_FIRST}")
        elif name in dense:
            yield Note(said)
