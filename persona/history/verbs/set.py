"""`set`, `rm` and `mv`: edits of `recipe.toml`. The new text must be valid before it is written.

A wrong argument is refused by the name of its parameter, an earlier fault of the text by its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Unpack

from persona.errors import Call, InvalidInput, Keyword, UsageError
from persona.history.act_results import Edited, Removed, Renamed
from persona.history.history import History
from persona.history.options import JoinOptions, complete
from persona.history.recipes import joining
from persona.history.recipes.checked import DEFAULT, checked, checked_keys
from persona.history.recipes.text import RECIPE_FILE, decode, dotted, encode, load, plain_axis
from persona.history.worktree import text_files, tracking
from persona.history.worktree.changing import changing
from persona.history.worktree.locked import LockedTree
from persona.history.worktree.sequence import is_sequence_under_way, is_unmerged
from persona.objects.canonical import decimal
from persona.objects.recipe import JOINS, Recipe
from persona.objects.rules import AXES, PRESETS, check_axis


def set_term(
    history: History,
    name: str,
    **options: Unpack[JoinOptions],
) -> Edited:
    """Edits one term of `recipe.toml`; None leaves a key as it is.

    An empty filter removes the filter. "default" removes the vector's own density, so that the recipe's
    applies again.
    """
    from persona.history.recipes import edit as recipe_edit

    given = complete(JoinOptions, options)
    if all(value is None for value in given.values()):
        raise UsageError(
            "nothing to set", hint=("give one of ", Keyword("alpha", "density", "only", "except_", "join"))
        )
    keys = checked_keys(given["alpha"], given["density"], given["only"], given["except_"])
    join = given["join"]
    if join is not None:
        keys["join"] = recipe_edit.UNSET if checked("join", _join, join) == "vote" else join
    before: list[Recipe] = []

    def edit(text: str) -> str:
        if "alpha" in keys and join is None:
            with suppress(InvalidInput):  # which the edit may mend
                before.append(history.read_recipe(text.encode()))
        text = _with_vector(history, text, name)
        return _without_pairs(recipe_edit.set_term(text, name, keys), f"vectors.{name}", keys)

    after = _edit(history, edit)
    notes = joining.notes(before[0], after, name) if before else []
    if keys.keys() & {"only", "except"}:
        from persona.history.vectors import lookup

        notes += lookup.without_effect(history, [after.by_name[name]], None)
    return Edited(name, tuple(notes))


def set_rules(history: History, axes: Mapping[str, str | float]) -> Edited:
    """Edits `[merge]` of `recipe.toml`: `preset` and any axis.

    A new preset removes the axes that were set before, unless they are given too; `notes` of the result name
    the removed and the kept ones. Raises `InvalidInput` for rules that trim nothing or jointly while a vector
    has a density of its own.
    """
    from persona.history.recipes import edit as recipe_edit

    if not axes:
        raise UsageError("nothing to set; give KEY=VALUE, such as density=0.2 or preset=linear")
    keys: dict[str, Any] = {axis: checked(axis, _check_of(axis), value) for axis, value in axes.items()}
    before: dict[str, Any] = {}

    def edit(text: str) -> str:
        merge = load(text).get("merge")
        before.update(merge if isinstance(merge, dict) else {})
        if "preset" in keys:
            row = PRESETS[keys["preset"]]
            for axis in AXES:
                if axis not in keys and axis != "lambda" and (axis != "density" or row["density"] is None):
                    keys[axis] = recipe_edit.UNSET
        edited = _without_pairs(recipe_edit.set_rules(text, keys), "merge", keys)
        _refuse_useless_densities(load(edited))
        return edited

    _edit(history, edit)
    shown = {axis: value if isinstance(value, str | bool) else float(value) for axis, value in axes.items()}
    return Edited(shown, tuple(_preset_notes(before, keys)) if "preset" in keys else ())


def _refuse_useless_densities(document: Mapping[str, Any]) -> None:
    """`InvalidInput` for vectors with their own density, if the merge rules do not use one."""
    merge, vectors = document.get("merge"), document.get("vectors")
    preset = merge.get("preset", "ties") if isinstance(merge, dict) else None
    if not isinstance(merge, dict) or not isinstance(vectors, dict) or preset not in PRESETS:
        return
    trim = merge.get("trim", PRESETS[preset]["trim"])
    names = [name for name, term in vectors.items() if isinstance(term, dict) and "density" in term]
    if trim in ("joint", "none") and names:
        listed = ", ".join(dotted(("vectors", name, "density")) for name in names)
        raise InvalidInput(
            f"{listed}: under trim = {trim} no vector has a density of its own",
            hint=("take it back first: ", Call("recipe.set", names[0], density=DEFAULT)),
        )


def _preset_notes(before: Mapping[str, Any], keys: Mapping[str, Any]) -> Iterator[str]:
    """NoteList on what a new preset does to rules of the text that the command did not name."""
    from persona.history.recipes.edit import UNSET

    preset = keys["preset"]
    dropped = [
        f"{axis} = {plain_axis(axis, value)}" for axis, value in before.items() if keys.get(axis) is UNSET
    ]
    if dropped:
        yield f"preset = {preset} removed {', '.join(dropped)}"
    own = {**PRESETS[preset], "lambda": "1"}
    for axis in ("density", "lambda"):
        value = before.get(axis)
        if value is not None and axis not in keys and decimal(value) != own[axis]:
            yield f"{axis} = {value} is kept; the preset has {own[axis]}"


def remove_terms(history: History, *names: str, keep_files: bool = False) -> Removed:
    """Drops terms from `recipe.toml`, all or none; the vectors stay in history.

    Conflicts about them are resolved, also of a vector that one side of a merge has removed already.

    With a vector go the files that came with it (`add` with `files`), unless they were edited since: they
    become what they were before it. `keep_files`: they stay.
    """
    from persona.history.recipes import edit as recipe_edit
    from persona.history.vectors.model_files import GivenBack, given_back
    from persona.history.vectors.trained_from import left_behind

    if not names:
        raise UsageError("name the vectors to drop")

    def edit(text: str) -> str:
        for name in dict.fromkeys(names):
            plain = _without_pairs(text, "vectors", [name])
            gone = plain != text and name not in load(text).get("vectors", {})
            text = plain if gone else recipe_edit.remove_term(plain, name)
        return text

    found = GivenBack({}, [])

    def with_files(data: bytes, after: Recipe) -> Mapping[str, bytes | None]:
        nonlocal found
        with suppress(InvalidInput):  # the vectors are dropped because the recipe is wrong
            before = history.read_recipe(data)
            vectors = [before.by_name[name].vector for name in names if name in before.by_name]
            found = given_back(history, vectors, after, keep=keep_files)
            found.notes.extend(left_behind(history, after, before))
        return found.edits

    _edit(history, edit, with_files)
    return Removed(names, tuple(found.edits), tuple(found.notes))


def rename_term(history: History, old: str, new: str) -> Renamed:
    """Renames a term in `recipe.toml`; the weights stay the same to the bit."""
    from persona.history.recipes import edit as recipe_edit

    def edit(text: str) -> str:
        edited = recipe_edit.rename_term(text, old, new)
        if not _has_pairs(text):
            return edited
        from persona.history.recipes.pairs import with_pairs_renamed

        return with_pairs_renamed(edited, old, new)

    def follow(tree: LockedTree) -> None:
        if is_sequence_under_way(history) or is_unmerged(history):
            from persona.history.sequencing.unmerged import rename

            rename(tree, old, new)

    _edit(history, edit, then=follow)
    return Renamed(old, new)


def _with_vector(history: History, text: str, name: str) -> str:
    """The text with a vector that one side of a merge has removed, as the other side has it.

    The conflict about it is resolved.
    """
    if not _has_pairs(text):
        return text
    if name in load(text).get("vectors", {}):
        gone = re.search(rf": no {re.escape(f'vectors.{name}')}\r?$", text, re.MULTILINE)
        return _without_pairs(text, "vectors", [name]) if gone else text
    from persona.history.recipes.pairs import path_of
    from persona.history.recipes.three_way import Names, with_meaning
    from persona.history.sequencing.unmerged import found

    left = found(history)
    for one in left.stop.conflicts if left is not None else ():
        if one.problem == "term" and one.theirs is not None and path_of(one)[1] == name:
            recipe = history.read_recipe(text.encode())
            term = replace(one.theirs, name=name)
            wanted = Recipe.of(recipe.base, [*recipe.terms, term], recipe.rules)
            names = Names(history.read_recipe, history.base_name)
            return with_meaning(_without_pairs(text, "vectors", [name]), wanted, names)
    return text


def _has_pairs(text: str) -> bool:
    return "# <<<<<<< " in text or "# >>>>>>> " in text


def _edit(
    history: History,
    edit: Callable[[str], str],
    others: Callable[[bytes, Recipe], Mapping[str, bytes | None]] = lambda data, after: {},
    then: Callable[[LockedTree], None] = lambda tree: None,
) -> Recipe:
    """Writes the edited text of `recipe.toml`; returns its recipe.

    `others`: edits of other files, from its bytes as they are and the new recipe. `then` is called at the
    end.
    """
    with changing(history) as tree:
        data = text_files.read_recipe_text(history.root, to_edit=True)
        text = decode(data)
        edited = edit(text)
        try:
            after = history.new_recipe(edited.encode(), where=None)
        except InvalidInput:
            history.new_recipe(data)  # an earlier fault of the text is reported with its line
            raise
        if edited != text:
            edits = {**others(data, after), RECIPE_FILE: encode(edited, like=data)}
            here = tracking.ids(history, edits)
            tree.apply(edits, {**here, RECIPE_FILE: text_files.blob_id(data)})
        then(tree)
    return after


def _without_pairs(text: str, table: str, keys: Iterable[str]) -> str:
    """The text without the comments of a conflict about keys that have been set now."""
    if not _has_pairs(text):
        return text
    from persona.history.recipes.pairs import without_pairs

    return without_pairs(text, [f"{table}.{key}" for key in keys])


def _check_of(axis: str) -> Callable[[Any, str], str]:
    """The check of a value of an axis."""
    if axis not in ("preset", *AXES):
        raise InvalidInput(f"unknown key; the keys are preset, {', '.join(AXES)}", parameter=axis)
    return lambda value, _: check_axis(axis, value)


def _join(value: Any, _: str) -> str:
    if value not in JOINS:
        raise InvalidInput(f"{value!r:.60} is not one of {', '.join(JOINS)}")
    return str(value)
