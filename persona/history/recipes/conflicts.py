"""**conflict** — a place that two changes of the same thing leave with two different values.

**strategy** — a rule that decides conflicts: `ours` or `theirs` takes one side, `mean` the mean of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, localcontext
from typing import Any, Final, Literal

from persona.errors import InvalidInput
from persona.frozen import dataclass
from persona.history.recipes.text import RECIPE_FILE
from persona.objects.canonical import decimal
from persona.objects.recipe import Term

TERM_FIELDS: Final = {
    "name": "name",
    "id": "vector",
    "alpha": "alpha",
    "density": "density",
    "only": "only",
    "except": "except_",
    "join": "join",
}
"""The keys of a vector in recipe.toml → the fields of a term."""

Problem = Literal[
    "values", "term", "name", "presence", "lines", "binary", "json", "directory", "style", "together", "base"
]
"""Why two changes do not fit together.

values: both set a key of the recipe, each to another value. term: one changed a vector, the other removed
it; the values are terms. name: two vectors would have one name; the key has the name that theirs stands
under. presence: one changed a file, the other removed or added it. lines: both changed the
same lines. binary: both changed a file that is no text. json: the merged text is not valid JSON. directory: a
file would have to be a directory too. style: the recipe is written in a way that no command can edit.
together: each value is valid, but not both. base: one side moved to a base that a vector of the other does
not belong to.
"""

IN_RECIPE: Final = ("values", "term", "name")
"""The problems that stand in recipe.toml as pairs of comments."""

Strategy = Literal["ours", "theirs", "mean", "base"]
"""How conflicts are decided. `base`: neither side, the value before both; for the base of a criss-cross."""

_NUMBERS: Final = ("alpha", "density", "lambda", "gamma", "epsilon")
"""The keys that have a mean."""
_ABSENT: Final = object()


@dataclass(frozen=True)
class Conflict:
    """A place that theirs and ours changed differently.

    It is in a file, at a key of the recipe or, without one, the whole file. `base`, `theirs` and `ours` are
    values in words of recipe.toml, or ids of files; None if nothing is there. `detail`: the file in a
    directory, or a sentence about values that do not fit together. `vector`: the id of the vector that it is
    about. Of a name, `holder` is the id of the vector that has it, and `detail` that vector's name in theirs.
    """

    path: str
    key: str = ""
    base: Any = None
    theirs: Any = None
    ours: Any = None
    problem: Problem = "values"
    detail: str = ""
    vector: str = ""
    holder: str = ""


def is_new(conflict: Conflict) -> bool:
    """Whether a conflict is about a file that both sides have added."""
    return not conflict.key and conflict.base is None and None not in (conflict.theirs, conflict.ours)


class Decisions:
    """Takes the conflicts of a merge of recipes, and decides those that a strategy decides.

    `every`: each change of theirs is a conflict, also of a value that ours did not change.
    """

    def __init__(self, strategy: Strategy | None = None, *, every: bool = False) -> None:
        self.found: list[Conflict] = []
        self.strategy = strategy
        self._every = every

    def quiet(self) -> Decisions:
        """The same decisions, of which nothing is noted here."""
        return Decisions(self.strategy, every=self._every)

    def pick(self, key: str, base: Any, theirs: Any, ours: Any) -> Any:
        """The merged value of a key. If nothing decides a conflict, ours, and the conflict is noted."""
        if theirs in (base, ours):
            return ours
        if ours == base and not self._every:
            return theirs
        return self._decided(Conflict(RECIPE_FILE, key, _known(base), theirs, ours))

    def term(self, name: str, base: Term | None, theirs: Term | None, ours: Term | None) -> Term | None:
        """The merged term of a vector that one side does not have; as `pick`."""
        if theirs in (base, ours):
            return ours
        if ours == base and not self._every:
            return theirs
        found: Term | None = self._decided(
            Conflict(RECIPE_FILE, f"vectors.{name}", base, theirs, ours, problem="term")
        )
        return found

    def key(self, key: str, base: Term | None, theirs: Term, ours: Term, field: str) -> Any:
        """The merged value of a key of a term; as `pick`. `base`: None if both sides added the vector."""
        before = _ABSENT if base is None else getattr(base, field)
        return self.pick(key, before, getattr(theirs, field), getattr(ours, field))

    def _decided(self, conflict: Conflict) -> Any:
        value = decided(conflict, self.strategy)
        if value is not UNDECIDED:
            return value
        self.found.append(conflict)
        return conflict.ours


def _known(value: Any) -> Any:
    return None if value is _ABSENT else value


UNDECIDED: Final = object()
"""The answer of a strategy that does not apply to a conflict."""


def decided(conflict: Conflict, strategy: Strategy | None) -> Any:
    """The value that a strategy gives to a conflict of the recipe; `UNDECIDED` if it gives none."""
    if strategy == "ours":
        return conflict.ours
    if strategy == "theirs":
        return conflict.theirs
    if strategy == "base":
        return conflict.base
    if strategy == "mean" and conflict.key.rpartition(".")[2] in _NUMBERS and conflict.problem == "values":
        return _mean(conflict.ours, conflict.theirs)
    return UNDECIDED


def _mean(one: Any, other: Any) -> Any:
    """The mean of two numbers, or of two lists over layers number by number."""
    if one is None or other is None:
        return UNDECIDED
    if isinstance(one, tuple) or isinstance(other, tuple):
        count = max(len(side) if isinstance(side, tuple) else 1 for side in (one, other))
        sides = [side if isinstance(side, tuple) else (side,) * count for side in (one, other)]
        if len(sides[0]) != len(sides[1]):
            return UNDECIDED
        pairs = [_mean(left, right) for left, right in zip(*sides, strict=True)]
        return UNDECIDED if UNDECIDED in pairs else tuple(pairs)
    with localcontext() as context:
        context.prec = 40
        try:
            return decimal(format((Decimal(one) + Decimal(other)) / 2, "f"))
        except InvalidInput:
            return UNDECIDED


def keys_of(conflict: Conflict) -> Iterator[tuple[str, tuple[Any, Any, Any]]]:
    """The keys that a conflict is about, each with its values before, in theirs, and in ours.

    Of a vector that one side removed, the keys in which the other sides differ.
    """
    sides = conflict.base, conflict.theirs, conflict.ours
    if conflict.problem != "term":
        yield conflict.key, sides
        return
    there = [side for side in sides if side is not None]
    for key, field in TERM_FIELDS.items():
        values = [getattr(side, field) for side in there]
        if len(there) == 1 or any(value != values[0] for value in values):
            was, come, now = (None if side is None else getattr(side, field) for side in sides)
            yield f"{conflict.key}.{key}", (was, come, now)
