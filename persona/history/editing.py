"""Edits of `recipe.toml` on behalf of a command: `set`, `rm`, `mv`. The new text must mean something before
it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from persona.errors import InvalidInput, UsageError
from persona.history import worktree
from persona.history.history import History
from persona.history.imports import Options, checked, checked_keys
from persona.history.recipe_text import RECIPE_FILE, decode, load
from persona.objects.canonical import decimal
from persona.objects.recipe import JOINS
from persona.objects.rules import AXES, CHOICES, PRESETS, check_density, check_strength

Number = str | float | None


def set_term(
    history: History,
    name: str,
    alpha: Number,
    density: Number,
    only: Sequence[str] | None,
    except_: Sequence[str] | None,
    join: str | None,
) -> None:
    """See `Repository.set_term`."""
    from persona.history import recipe_edit

    if all(value is None for value in (alpha, density, only, except_, join)):
        raise UsageError("set what? Give --alpha, --density, --only, --except or --join")

    def edit(text: str) -> str:
        options = Options(alpha=alpha, density=density, only=only, except_=except_)
        keys = checked_keys(text, name, options)
        for key in ("only", "except"):
            if keys.get(key) == []:
                keys[key] = recipe_edit.UNSET
        if join is not None:
            if join not in JOINS:
                problem = f"{join!r:.60} is not one of {', '.join(JOINS)}"
                checked(text, ("vectors", name, "join"), lambda: _refuse(problem))
            keys["join"] = recipe_edit.UNSET if join == "vote" else join
        return recipe_edit.set_term(text, name, keys)

    _edit(history, edit)


def set_rules(history: History, axes: Mapping[str, str | float]) -> None:
    """See `Repository.set_rules`."""
    from persona.history import recipe_edit

    if not axes:
        raise UsageError("set what? Give KEY=VALUE, such as density=0.2 or preset=linear")
    before: dict[str, Any] = {}
    keys: dict[str, Any] = {}

    def edit(text: str) -> str:
        merge = load(text).get("merge")
        before.update(merge if isinstance(merge, dict) else {})
        for axis, value in axes.items():
            keys[axis] = checked(text, ("merge", axis), lambda axis=axis, value=value: _axis(axis, value))
        if "preset" in keys:
            row = PRESETS[keys["preset"]]
            for axis in AXES:
                if axis not in keys and axis != "lambda" and (axis != "density" or row["density"] is None):
                    keys[axis] = recipe_edit.UNSET
        return recipe_edit.set_rules(text, keys)

    _edit(history, edit)
    if "preset" in keys:
        history.notes.extend(_preset_notes(before, keys))


def _preset_notes(before: Mapping[str, Any], keys: Mapping[str, Any]) -> Iterator[str]:
    """What a new preset does to the rules that stood in the text and were not named with it."""
    from persona.history.recipe_edit import UNSET

    preset = keys["preset"]
    dropped = [f"{axis} = {value}" for axis, value in before.items() if keys.get(axis) is UNSET]
    if dropped:
        yield f"preset = {preset} dropped {', '.join(dropped)}"
    own = {**PRESETS[preset], "lambda": "1"}
    for axis in ("density", "lambda"):
        value = before.get(axis)
        if value is not None and axis not in keys and decimal(value) != own[axis]:
            yield f"{axis} = {value} stays; the preset's own is {own[axis]}"


def remove_terms(history: History, names: Sequence[str]) -> None:
    """See `Repository.remove_term`."""
    from persona.history import recipe_edit

    if not names:
        raise UsageError("name the vectors to drop")

    def edit(text: str) -> str:
        for name in dict.fromkeys(names):
            text = recipe_edit.remove_term(text, name)
        return text

    _edit(history, edit)


def rename_term(history: History, old: str, new: str) -> None:
    """See `Repository.rename_term`."""
    from persona.history import recipe_edit

    _edit(history, lambda text: recipe_edit.rename_term(text, old, new))


def _edit(history: History, edit: Callable[[str], str]) -> None:
    with history.changing():
        text = decode(worktree.read_recipe_text(history.root))
        edited = edit(text)
        history.read_recipe(edited.encode())
        if edited != text:
            worktree.write(history, RECIPE_FILE, edited.encode())


def _axis(axis: str, value: str | float) -> str:
    if axis == "preset":
        if value not in PRESETS:
            raise InvalidInput(f"{value!r:.60} is not one of {', '.join(PRESETS)}")
        return str(value)
    if axis not in AXES:
        raise InvalidInput(f"unknown key; the keys are preset, {', '.join(AXES)}")
    if axis == "density":
        return check_density(value, "")
    if axis == "lambda":
        return check_strength(value, "")
    if value not in CHOICES[axis]:
        raise InvalidInput(f"{value!r:.60} is not one of {', '.join(CHOICES[axis])}")
    return str(value)


def _refuse(problem: str) -> None:
    raise InvalidInput(problem)
