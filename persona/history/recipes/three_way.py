"""**three-way merge** — a change, from `base` to `theirs`, made to `ours`, which began at `base` too.

Recipes are merged by what they mean: the base, each axis of the rules with its effective value, each key of
each vector. Where ours is still as `base`, theirs comes; where both changed, and not to the same, that is a
conflict. Text is merged by lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from persona.errors import InvalidInput
from persona.history.recipes.linediff import runs
from persona.objects.canonical import decimal
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import AXES, CHOICES, PRESETS, Rules

Edit = tuple[int, int, tuple[str, ...]]
"""Lines `start:end` of the base, and what stands there instead."""
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


@dataclass(frozen=True)
class Conflict:
    """What three sides have at one place, in words of recipe.toml; None where it is not set or not there."""

    path: str
    base: Any
    theirs: Any
    ours: Any


@dataclass(frozen=True)
class Lines:
    """A text of merged lines. `left` is how many edits of theirs met one of ours and were left out."""

    text: str
    left: int


def merge_lines(base: str, theirs: str, ours: str, *, close: bool = False) -> Lines:
    """Ours, with the edits that turn `base` into `theirs`. `close`: edits of lines that touch go together."""
    # Whether a text ends in the middle of a line is merged by itself, so that no line is glued to another.
    ended = [not text or text.endswith("\n") for text in (base, theirs, ours)]
    split = [
        (text if end else text + "\n").splitlines(keepends=True)
        for text, end in zip((base, theirs, ours), ended, strict=True)
    ]
    come, here = _edits(split[0], split[1], close), _edits(split[0], split[2], close)
    taken: list[Edit] = []
    left = at = 0
    for number, edit in enumerate(come):
        while at < len(here) and here[at][1] < edit[0]:
            at += 1
        near = at
        meets = False
        while near < len(here) and here[near][0] <= edit[1]:
            meets = meets or _meet(edit, here[near], close)
            near += 1
        if edit in here[at:near]:
            continue  # made already
        if meets and close:
            low = come[number - 1][1] if number else 0
            high = come[number + 1][0] if number + 1 < len(come) else len(split[0])
            for slid in _slides(split[0], edit, low, high):
                if not any(_meet(slid, other, close) for other in here):
                    edit, meets = slid, False
                    break
        left += meets
        if not meets:
            taken.append(edit)
    lines: list[str] = []
    place = 0
    for start, end, new in sorted([*taken, *here], key=lambda edit: edit[:2]):
        lines += [*split[0][place:start], *new]
        place = end
    text = "".join([*lines, *split[0][place:]])
    end = ended[2] if ended[1] == ended[0] else ended[1]
    return Lines(text if end else text.removesuffix("\n"), left)


def _edits(base: Sequence[str], other: Sequence[str], close: bool) -> list[Edit]:
    found: list[Edit] = []
    for start, end, first, last in runs(base, other):
        if close and end - start == last - first:  # line for line, so that each can be met by itself
            found += [(start + n, start + n + 1, (other[first + n],)) for n in range(end - start)]
        else:
            found.append((start, end, tuple(other[first:last])))
    return found


def _slides(base: Sequence[str], edit: Edit, low: int, high: int) -> Iterator[Edit]:
    """The same lines put in, or taken out, at other places between `low` and `high`, where lines repeat."""
    for step, stop in ((-1, low), (1, high)):
        start, end, new = edit
        while (start if step < 0 else end) != stop:
            if start == end:
                passed = base[start - 1] if step < 0 else base[start]
                if passed != new[-1 if step < 0 else 0]:
                    break
                new = (passed, *new[:-1]) if step < 0 else (*new[1:], passed)
            elif new or base[start - (step < 0)] != base[end - (step < 0)]:
                break
            start, end = start + step, end + step
            yield start, end, new


def _meet(one: Edit, other: Edit, close: bool) -> bool:
    """Whether two edits of the same lines cannot both be made."""
    if not close:
        return one[0] <= other[1] and other[0] <= one[1]
    if one[:2] == other[:2]:
        return True
    return max(one[0], other[0]) < min(one[1], other[1]) or any(
        inner[0] == inner[1] and outer[0] < inner[0] < outer[1]
        for inner, outer in ((one, other), (other, one))
    )


def merge_recipes(base: Recipe, theirs: Recipe, ours: Recipe) -> tuple[Recipe | None, list[Conflict | str]]:
    """Ours with the change from `base` to `theirs`; None and the conflicts where there are any. A sentence
    stands for values that go well each for itself and not together.
    """
    conflicts: list[Conflict | str] = []
    base_id = _pick("base", base.base, theirs.base, ours.base, conflicts)
    rules = _merge_rules(base.rules, theirs.rules, ours.rules, conflicts)
    terms = _merge_terms(base.by_name, theirs.by_name, ours.by_name, conflicts)
    if conflicts or rules is None:
        return None, conflicts
    try:
        return Recipe.of(base_id, terms, rules), []
    except InvalidInput as error:
        return None, [f"{error.message}, as it stands now"]


def _pick(path: str, base: Any, theirs: Any, ours: Any, conflicts: list[Conflict | str]) -> Any:
    if theirs in (base, ours):
        return ours
    if ours != base:
        conflicts.append(Conflict(path, base, theirs, ours))
        return ours
    return theirs


def _merge_rules(base: Rules, theirs: Rules, ours: Rules, conflicts: list[Conflict | str]) -> Rules | None:
    count = len(conflicts)
    preset = _pick("merge.preset", base.preset, theirs.preset, ours.preset, conflicts)
    before, after, now = base.axes(), theirs.axes(), ours.axes()
    axes = {axis: _pick(f"merge.{axis}", before[axis], after[axis], now[axis], conflicts) for axis in AXES}
    if len(conflicts) > count:
        return None
    try:
        rules = Rules.of(preset, **{axis: value for axis, value in axes.items() if value is not None})
    except InvalidInput as error:
        conflicts.append(f"merge.{error.message}")
        return None
    for axis, value in rules.axes().items():
        if value != axes[axis]:
            conflicts.append(f"merge.{axis}: the preset {preset} has a use for it, and it has no value")
    return rules if len(conflicts) == count else None


def _merge_terms(
    base: Mapping[str, Term],
    theirs: Mapping[str, Term],
    ours: Mapping[str, Term],
    conflicts: list[Conflict | str],
) -> list[Term]:
    by_name = _is_ambiguous(base, theirs, ours)
    base, theirs, ours = (_slots(side, by_name=by_name) for side in (base, theirs, ours))
    found = [
        _merge_term(base.get(slot), theirs.get(slot), ours.get(slot), conflicts)
        for slot in dict.fromkeys([*ours, *theirs, *base])
    ]
    terms = [term for term in found if term is not None]
    if not conflicts:
        sides = [list(side.values()) for side in (base, theirs, ours)]
        conflicts += [*_doubled("name", terms, sides), *_doubled("vector", terms, sides)]
    return terms


def _is_ambiguous(*sides: Mapping[str, Term]) -> bool:
    """Whether a name stands for one vector here and for another there, or a vector has two names on one side,
    so that vectors cannot be followed under other names.
    """
    named = {(name, term.vector) for side in sides for name, term in side.items()}
    return len({name for name, _ in named}) < len(named) or any(
        len({term.vector for term in side.values()}) < len(side) for side in sides
    )


def _slots(side: Mapping[str, Term], *, by_name: bool) -> dict[str, Term]:
    """The terms by what they go by: their names, or their vectors, so that a name is a key as any other."""
    return dict(side) if by_name else {term.vector: term for term in side.values()}


def _doubled(field: str, terms: Sequence[Term], sides: Sequence[Sequence[Term]]) -> Iterable[str]:
    """A sentence for each name or vector that would be there more often than on any side."""
    values = [getattr(term, field) for term in terms]
    for value in dict.fromkeys(values):
        most = max(sum(getattr(term, field) == value for term in side) for side in sides)
        if values.count(value) > max(most, 1):
            names = ", ".join(term.name for term in terms if getattr(term, field) == value)
            yield f"vectors: the same {field} would be there {values.count(value)} times: {names}"


def renames(before: Mapping[str, Term], after: Mapping[str, Term]) -> dict[str, str]:
    """Old name → new name of each vector that `after` has under another name: the same vector, and the only
    one there that could be meant.
    """
    gone = [name for name in before if name not in after]
    new = [name for name in after if name not in before]
    found: dict[str, str] = {}
    for name in gone:
        vector = before[name].vector
        same = [other for other in new if after[other].vector == vector]
        if len(same) == 1 and sum(before[other].vector == vector for other in gone) == 1:
            found[name] = same[0]
    return found


def renamed(terms: Mapping[str, Term], names: Mapping[str, str]) -> dict[str, Term]:
    """The terms under new names."""
    return {names.get(name, name): replace(term, name=names.get(name, name)) for name, term in terms.items()}


def _merge_term(
    base: Term | None, theirs: Term | None, ours: Term | None, conflicts: list[Conflict | str]
) -> Term | None:
    if theirs in (base, ours):
        return ours
    if ours == base:
        return theirs
    known = ours or theirs or base
    path = f"vectors.{known.name}" if known else ""
    if base is None or theirs is None or ours is None:
        conflicts.extend(_halves(path, [_values(term) if term else None for term in (base, theirs, ours)]))
        return ours
    values = {
        key: _pick(
            f"{path}.{key}", getattr(base, field), getattr(theirs, field), getattr(ours, field), conflicts
        )
        for key, field in TERM_FIELDS.items()
    }
    return replace(ours, **{TERM_FIELDS[key]: value for key, value in values.items()})


def _halves(path: str, sides: Sequence[dict[str, Any] | None]) -> Iterable[Conflict]:
    """The conflicts of a vector that one side has not got: the keys in which the other two differ."""
    one, other = (side for side in sides if side is not None)
    for key in TERM_FIELDS:
        if one[key] != other[key]:
            yield Conflict(f"{path}.{key}", *(side[key] if side else None for side in sides))


def _values(term: Term) -> dict[str, Any]:
    return {key: getattr(term, field) for key, field in TERM_FIELDS.items()}


def rules_edit(explicit: Mapping[str, Any], wanted: Rules) -> dict[str, str | None]:
    """What to write into `[merge]`, where `explicit` stands, to make it mean `wanted`: axis → its value, or
    None for one that must not be written. What the preset means by itself is not written.
    """
    edit: dict[str, str | None] = {}
    if explicit.get("preset", "ties") != wanted.preset:
        edit["preset"] = wanted.preset
    usual = {**PRESETS[wanted.preset], "lambda": "1"}
    for axis, value in wanted.axes().items():
        if axis in explicit:
            written = explicit[axis]
            if value is None or value != (written if axis in CHOICES else decimal(written)):
                edit[axis] = value
        elif value is not None and value != usual[axis]:
            edit[axis] = value
    return edit
