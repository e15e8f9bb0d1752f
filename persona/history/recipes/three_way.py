"""**three-way merge** — the change from `base` to `theirs`, applied to `ours`, which also comes from `base`.

A revert merges the change from a commit to its parent, a cherry-pick the change from the parent to the
commit. Recipes are merged by meaning: the base, each axis of the rules with its effective value, each key of
each vector (`pairing` says which terms are the same). If ours equals `base`, the result is theirs. If both
changed, and differ, that is a conflict. Text is merged by lines.

`recipe.toml` is merged by lines first, so that comments and spacing come along too. Then the keys that the
merged text does not mean are set in it one by one. Nothing here knows a repository: the caller hands in the
functions that read files and find names.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from persona.errors import InvalidInput, Refused, UnknownName
from persona.frozen import dataclass
from persona.history.recipes.conflicts import Conflict, Decisions, Strategy
from persona.history.recipes.line_conflicts import both_texts, with_both, with_markers, with_side
from persona.history.recipes.line_merge import merge_lines
from persona.history.recipes.pairing import free_name, same_terms
from persona.history.recipes.pairs import with_pairs
from persona.history.recipes.term_merge import merge_terms
from persona.history.recipes.text import RECIPE_FILE, decode, encode, load, plain_axis
from persona.objects.canonical import decimal
from persona.objects.recipe import Recipe, Term
from persona.objects.rules import AXES, CHOICES, PRESETS, Rules
from persona.objects.tree import differing


@dataclass(frozen=True)
class Side:
    """One of the three states: its tracked files, a reader of files, and its recipe.

    `files`: path → blob id. `read` returns None for a file that is gone.
    """

    files: Mapping[str, str]
    read: Callable[[str], bytes | None]
    recipe: Callable[[], Recipe]


@dataclass(frozen=True)
class Merged:
    """The new contents of ours: path → bytes, None for a file that is removed, `recipe.toml` last.

    They mean nothing if there are conflicts. `rewritten`: ours wrote some lines of `recipe.toml` again that
    the change is about; they stay.
    """

    edits: Mapping[str, bytes | None]
    conflicts: tuple[Conflict, ...]
    rewritten: bool = False
    lost: tuple[str, ...] = ()
    """Comments of `recipe.toml` that theirs added and that are not in the result."""


@dataclass(frozen=True)
class Names:
    """The functions that find names: the recipe that a text means, and the name of a base by its id.

    `require`: raises `InvalidInput` if a vector does not belong to a base; both are given by their ids.
    """

    read_recipe: Callable[[bytes], Recipe]
    base_name: Callable[[str], str]
    require: Callable[[str, str], None] = lambda base, vector: None


def merge_files(
    base: Side,
    theirs: Side,
    ours: Side,
    names: Names,
    *,
    strategy: Strategy | None = None,
    labels: tuple[str, str] | None = None,
    both: bool = False,
) -> Merged:
    """The change of tracked files from `base` to `theirs`, made to ours: every file that it is about.

    `strategy` decides conflicts. `labels`, of ours and of theirs: the conflicts that are left are written
    into the new contents, as pairs and markers. `both`: lines that both sides insert at the same place of
    `recipe.toml` are both in the result, if that means the right recipe.
    """
    merge = _Merge(names, strategy, labels, both)
    edits: dict[str, bytes | None] = {}
    rewritten = False
    touched = differing(base.files, theirs.files)
    for path in sorted(touched, key=lambda path: path == RECIPE_FILE):
        if ours.files.get(path) in (base.files.get(path), theirs.files.get(path)):
            edits[path] = theirs.read(path) if path in theirs.files else None
            continue
        data = [side.read(path) if path in side.files else None for side in (base, theirs, ours)]
        whole = [each for each in data if each is not None]
        if len(whole) < len(data):
            sides = zip((base, theirs, ours), data, strict=True)
            was, come, now = (None if each is None else side.files[path] for side, each in sides)
            conflict = Conflict(path, "", was, come, now, "presence")
            added = was is None and path != RECIPE_FILE
            edits[path] = merge.added(conflict, whole) if added else merge.whole(conflict, data)
        elif path == RECIPE_FILE:
            recipes = (base.recipe(), theirs.recipe(), ours.recipe())
            edits[path], rewritten = merge.recipe_texts(recipes, whole)
        else:
            edits[path] = merge.texts(path, whole)
    conflicts = [*merge.conflicts, *_collisions(ours.files, edits)]
    if labels is not None:
        edits = {path: data for path, data in edits.items() if data != _LEFT}
    return Merged(edits, tuple(conflicts), rewritten, merge.lost)


_LEFT: Final = b"\xffleft as it is"
"""Stands for the content of a file that stays as ours has it: no conflict can be written into it."""


class _Merge:
    """One merge of files: its conflicts so far, and how they are decided or written."""

    def __init__(
        self, names: Names, strategy: Strategy | None, labels: tuple[str, str] | None, both: bool
    ) -> None:
        self.conflicts: list[Conflict] = []
        self.lost: tuple[str, ...] = ()
        self._both = both
        self._names = names
        self._strategy = strategy
        self._labels = labels

    def whole(self, conflict: Conflict, data: Sequence[bytes | None]) -> bytes | None:
        """The content of a file of which one side has to be taken."""
        if self._strategy in ("base", "theirs", "ours") and conflict.path != RECIPE_FILE:
            return data[("base", "theirs", "ours").index(self._strategy)]
        self.conflicts.append(conflict)
        if data[-1] is None:
            return data[1]  # as git: the file that one side changed and the other removed is there
        return _LEFT

    def added(self, conflict: Conflict, data: Sequence[bytes]) -> bytes | None:
        """The content of a file that both sides have added: a text with both between markers."""
        try:
            theirs, ours = (each.decode() for each in data)
        except UnicodeDecodeError:
            return self.whole(conflict, [None, *data])
        if self._strategy in ("base", "theirs", "ours") or "\0" in theirs + ours:
            return self.whole(conflict, [None, *data])
        self.conflicts.append(replace(conflict, problem="lines"))
        return None if self._labels is None else both_texts(theirs, ours, self._labels).encode()

    def texts(self, path: str, data: Sequence[bytes]) -> bytes | None:
        """Ours of a text file with the change of its lines."""
        try:
            base, theirs, ours = (each.decode() for each in data)
        except UnicodeDecodeError:
            return self.whole(Conflict(path, problem="binary"), data)
        merged = merge_lines(base, theirs, ours)
        text = merged.text
        if merged.left or "\0" in text:
            if "\0" in text:
                return self.whole(Conflict(path, problem="binary"), data)
            if self._strategy in ("base", "theirs", "ours"):
                text = with_side(base, theirs, ours, self._strategy)
            else:
                self.conflicts.append(Conflict(path, problem="lines"))
                if self._labels is not None:
                    return with_markers(base, theirs, ours, self._labels).encode()
        if path.endswith(".json") and _is_json(ours) and not _is_json(text):
            return self.whole(Conflict(path, problem="json"), [data[0], data[1], data[2]])
        return text.encode()

    def recipe_texts(
        self, recipes: tuple[Recipe, Recipe, Recipe], data: Sequence[bytes]
    ) -> tuple[bytes | None, bool]:
        """Our recipe text with the change, and whether lines that the change is about stay as they are."""
        base, theirs, ours = map(decode, data)
        wanted, found = merge_recipes(*recipes, self._strategy)
        moved = _other_base(recipes, wanted, self._names)
        if moved is not None:
            self.conflicts.append(moved)
            return _LEFT, False
        if wanted is None:
            self.conflicts += found
            if self._labels is None:
                return None, False
            wanted, found = self._with_ours(recipes, found)
        merged = merge_lines(base, theirs, ours, close=True)
        whole = merged.left == 0
        # If lines were moved and half of the move was left out, a comment may be lost.
        candidates = [merged.text] if whole or _keeps_comments(merged.text, theirs, ours) else []
        if self._both and not whole:
            candidates.insert(0, with_both(base, theirs, ours))
        if self._strategy == "theirs" and not whole:
            candidates.insert(0, with_side(base, theirs, ours, "theirs"))
        for candidate in (*candidates, ours):
            try:
                text = with_meaning(candidate, wanted, self._names)
                if found and self._labels is not None:
                    text = with_pairs(text, found, self._labels)
                if self._both:
                    come, now, after = map(_comments, (theirs, base, text))
                    self.lost = tuple((come - now - after).elements())
                return encode(text, like=data[2]), not (whole and candidate == merged.text)
            except (InvalidInput, UnknownName, Refused):
                continue  # lines conflict: only key by key
        self.conflicts = [one for one in self.conflicts if one.path != RECIPE_FILE]
        return self.whole(Conflict(RECIPE_FILE, problem="style"), data), False

    def _with_ours(
        self, recipes: tuple[Recipe, Recipe, Recipe], found: Sequence[Conflict]
    ) -> tuple[Recipe, list[Conflict]]:
        """The recipe with our value at each conflict, and the conflicts that can be written as pairs.

        If values do not fit together, each change of theirs is a conflict.
        """
        if not any(conflict.problem == "together" for conflict in found):
            decisions = Decisions(self._strategy)
            wanted = merged_with(*recipes, decisions)
            if wanted is not None:
                return wanted, decisions.found
        decisions = Decisions(every=True)
        merged_with(*recipes, decisions)
        self.conflicts = [one for one in self.conflicts if one.path != RECIPE_FILE]
        told = next((one.detail for one in found if one.problem == "together"), "")
        pairs = [replace(one, detail=told) for one in decisions.found]
        self.conflicts += pairs
        return recipes[2], pairs


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _collisions(ours: Mapping[str, str], edits: Mapping[str, bytes | None]) -> Iterable[Conflict]:
    """A conflict for each file that would have to be a directory too."""
    after = {*ours, *(path for path, data in edits.items() if data is not None)}
    after -= {path for path, data in edits.items() if data is None}
    for path in sorted(after):
        parts = path.split("/")
        for above in ("/".join(parts[:count]) for count in range(1, len(parts))):
            if above in after:
                yield Conflict(above, problem="directory", detail=path)


def _keeps_comments(merged: str, theirs: str, ours: str) -> bool:
    """Whether the merged text has the comments that both sides have."""
    had, have, now = map(_comments, (theirs, merged, ours))
    return (had & now) <= have


def _comments(text: str) -> Counter[str]:
    return Counter(re.findall(r"#.*", text))


def with_meaning(text: str, wanted: Recipe, names: Names) -> str:
    """The text, edited so that it means `wanted`. Raises `InvalidInput` if that is not possible."""
    from persona.history.recipes import edit as recipe_edit
    from persona.history.recipes.edit import UNSET

    have = names.read_recipe(text.encode())
    if have == wanted:
        return text
    if have.base != wanted.base:
        text = recipe_edit.set_base(text, names.base_name(wanted.base))
    same = same_terms(have.by_name, wanted.by_name)
    for name in have.by_name.keys() - same.keys():
        text = recipe_edit.remove_term(text, name)
    text = _with_names(text, same)
    terms = {after: replace(have.by_name[before], name=after) for before, after in same.items()}
    for name, term in wanted.by_name.items():
        keys = _keys(term)
        if name not in terms:
            keys = {key: value for key, value in keys.items() if value is not UNSET}
            text = recipe_edit.add_term(text, name, keys)
        elif terms[name] != term:
            was = _keys(terms[name])
            text = recipe_edit.set_term(
                text, name, {key: value for key, value in keys.items() if value != was[key]}
            )
    edit = rules_edit(load(text).get("merge", {}), wanted.rules)
    if edit:
        axes = {axis: UNSET if value is None else value for axis, value in edit.items()}
        text = recipe_edit.set_rules(text, axes)
    if names.read_recipe(text.encode()) != wanted:
        raise InvalidInput(
            f"{RECIPE_FILE} is written in a way that this change cannot edit; change it by hand"
        )
    return text


def _with_names(text: str, names: Mapping[str, str]) -> str:
    """The text of a recipe with its terms renamed, all at once: old name → new name."""
    from persona.history.recipes import edit as recipe_edit

    left = {before: after for before, after in names.items() if before != after}
    while left:
        before = next((name for name in left if left[name] not in left), None)
        if before is not None:
            text = recipe_edit.rename_term(text, before, left.pop(before))
            continue
        before = next(iter(left))  # names go round: one of them has to wait
        aside = free_name(before, {*names, *names.values()})
        text = recipe_edit.rename_term(text, before, aside)
        left[aside] = left.pop(before)
    return text


def _keys(term: Term) -> dict[str, Any]:
    """Every key of a term as `edit` takes it; UNSET for a key that is not written."""
    from persona.history.recipes.edit import UNSET

    return {
        "id": term.vector,
        "alpha": term.alpha,
        "density": UNSET if term.density is None else term.density,
        "only": list(term.only) or UNSET,
        "except": list(term.except_) or UNSET,
        "join": UNSET if term.join == "vote" else term.join,
    }


def _other_base(
    recipes: tuple[Recipe, Recipe, Recipe], wanted: Recipe | None, names: Names
) -> Conflict | None:
    """The conflict of a vector that does not belong to the base of the result.

    It comes from a side that has not moved to that base.
    """
    if len({recipe.base for recipe in recipes}) == 1:
        return None
    result = wanted or merged_with(*recipes, Decisions())
    if result is None:
        return None
    for term in result.terms:
        try:
            names.require(result.base, term.vector)
        except InvalidInput:
            _, theirs, ours = recipes
            onto, of = map(
                names.base_name, (result.base, ours.base if result.base == theirs.base else theirs.base)
            )
            told = f"the vector {term.name} belongs to the base {of}, and the other side is on {onto}"
            return Conflict(RECIPE_FILE, "base", onto, problem="base", detail=told, vector=term.vector)
    return None


def merge_recipes(
    base: Recipe, theirs: Recipe, ours: Recipe, strategy: Strategy | None = None
) -> tuple[Recipe | None, list[Conflict]]:
    """Ours with the change from `base` to `theirs`; or None and the conflicts that no strategy decides."""
    decisions = Decisions(strategy)
    merged = merged_with(base, theirs, ours, decisions)
    return (None, decisions.found) if decisions.found else (merged, [])


def merged_with(base: Recipe, theirs: Recipe, ours: Recipe, decisions: Decisions) -> Recipe | None:
    """Ours with the change from `base` to `theirs`, and with our value where nothing decides a conflict.

    None if the values do not fit together; a conflict of `decisions` then says why.
    """
    base_id = decisions.pick("base", base.base, theirs.base, ours.base)
    rules = _merge_rules(base.rules, theirs.rules, ours.rules, decisions)
    terms = merge_terms(base.by_name, theirs.by_name, ours.by_name, decisions)
    if rules is None:
        return None
    try:
        return Recipe.of(base_id, terms, rules)
    except InvalidInput as error:
        decisions.found.append(_together(f"{error.message}, as it stands now"))
        return None


def _together(sentence: str) -> Conflict:
    return Conflict(RECIPE_FILE, problem="together", detail=sentence)


def _merge_rules(base: Rules, theirs: Rules, ours: Rules, decisions: Decisions) -> Rules | None:
    preset = decisions.pick("merge.preset", base.preset, theirs.preset, ours.preset)
    before, after, now = base.axes(), theirs.axes(), ours.axes()
    axes = {axis: decisions.pick(f"merge.{axis}", before[axis], after[axis], now[axis]) for axis in AXES}
    try:
        rules = Rules.of(preset, **{axis: value for axis, value in axes.items() if value is not None})
    except InvalidInput as error:
        decisions.found.append(_together(f"merge.{error.message}"))
        return None
    for axis, value in rules.axes().items():
        if value != axes[axis]:
            sentence = f"merge.{axis}: the preset {preset} needs a value for it"
            decisions.found.append(_together(sentence))
            return None
    return rules


def rules_edit(explicit: Mapping[str, Any], wanted: Rules) -> dict[str, str | None]:
    """The edit of `[merge]` that makes `explicit` mean `wanted`: axis → value, or None to remove it.

    Values that the preset has anyway are not written.
    """
    edit: dict[str, str | None] = {}
    if explicit.get("preset", "ties") != wanted.preset:
        edit["preset"] = wanted.preset
    usual = {**PRESETS[wanted.preset], "lambda": "1"}
    for axis, value in wanted.axes().items():
        if axis in explicit:
            written = explicit[axis]
            if value is None or value != (plain_axis(axis, written) if axis in CHOICES else decimal(written)):
                edit[axis] = value
        elif value is not None and value != usual[axis]:
            edit[axis] = value
    return edit
