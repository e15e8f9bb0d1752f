"""How much a vector changes. Counts over all chunks are made once and kept in `cache/`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from persona.codec.floats import in_default_environment
from persona.frozen import dataclass
from persona.history.history import History
from persona.history.planning import plan_of
from persona.history.vectors.cache import known_counts, remember
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import Rules
from persona.progress import Progress

if TYPE_CHECKING:
    from persona.measure.compare import Comparison, Tally


@dataclass(frozen=True)
class Size:
    """How much of some weights changes.

    Elements, how many have other bits, the norm of the change, and that norm relative to the norm of the
    weights before (None if those were all 0).
    """

    tensors: int
    elements: int
    changed: int
    changed_fraction: float
    l2: float
    relative_size: float | None


@in_default_environment
def size_of(history: History, id: str, base_id: str) -> Size:
    """How much a vector changes of all that its base merges."""
    from persona.measure.compare import Tally

    tally, found = Tally(), measured(history, id, base_id, None, None)
    for one in found:
        tally.add(one.tally)
    return size_from(tally, len(found))


def measured(
    history: History, id: str, base_id: str, threads: int | None, progress: Progress | None
) -> list[Comparison]:
    """From the base to the fine-tune that a vector came from."""
    from persona.measure.compare import compare

    tuned = lone_recipe(id, base_id, Rules.of("ties"))
    plans = plan_of(history, Recipe.of(base_id, [], tuned.rules)), plan_of(history, tuned)
    memory = history.memory()
    return list(compare(*plans, elections=False, threads=threads, memory=memory, progress=progress))


def lone_recipe(id: str, base_id: str, rules: Rules) -> Recipe:
    """The recipe of one vector at full strength."""
    return Recipe.of(base_id, [Term(name="vector", vector=id)], rules)


def size_from(tally: Tally, tensors: int) -> Size:
    """The size from a tally of this many tensors."""
    relative = math.sqrt(tally.change / tally.before) if tally.before else None
    return Size(
        tensors=tensors,
        elements=tally.elements,
        changed=tally.changed,
        changed_fraction=tally.changed / max(1, tally.elements),
        l2=math.sqrt(tally.change),
        relative_size=relative if tally.change else 0.0,
    )


def statistics(history: History, id: str, base_id: str) -> dict[str, Any]:
    """ "changed_fraction" of the base's float elements, and "l2", the Euclidean norm of f − b in binary64."""
    kept = known_counts(history, id)
    if "l2" not in kept or "changed_fraction" not in kept:
        from persona.history.vectors import counting

        size = counting.size_of(history, id, base_id)
        kept = remember(history, id, size.changed_fraction, size.l2)
    return kept
