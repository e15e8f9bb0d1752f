"""**pair** — two comments in `recipe.toml` that stand for a conflict: our value, and theirs.

    # <<<<<<< HEAD: vectors.listening.alpha = 0.5
    # >>>>>>> topic: vectors.listening.alpha = 0.3
    alpha = 0.5

The pair stands above the line that it is about, which has our value. So the text is a valid recipe all the
time. Whoever has decided deletes both comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from persona.errors import InvalidInput
from persona.history.recipes.conflicts import TERM_FIELDS, Conflict
from persona.history.recipes.text import is_header, line_of, load, toml_number, toml_string, with_line_ends
from persona.objects.recipe import Term

_MARK: Final = re.compile(r"\s*# (<<<<<<<|>>>>>>>) ")
_NUMBERS: Final = ("alpha", "density", "lambda", "gamma", "epsilon")
_PLAIN: Final = ("seed", "rescale")


def with_pairs(text: str, conflicts: Sequence[Conflict], labels: tuple[str, str]) -> str:
    """The text with a pair for each conflict. `labels`: of ours and of theirs."""
    plain = text.replace("\r\n", "\n")
    wanted = load(plain)
    for conflict in conflicts:
        pair = _pair(conflict, labels)
        edited = _inserted(plain, conflict, pair)
        if not _means(edited, wanted):  # inside a value over several lines
            edited = "\n".join([*pair, plain])
        plain = edited
    return with_line_ends(plain, text)


def pair_lines(text: str) -> list[int]:
    """The numbers of the lines that are half of a pair, from 1."""
    if "# <<<<<<< " not in text and "# >>>>>>> " not in text:
        return []
    return [number for number, line in enumerate(text.split("\n"), 1) if _MARK.match(line)]


def standing(text: str, conflicts: Iterable[Conflict]) -> list[Conflict]:
    """Those of the conflicts whose pair, or half of it, stands in the text."""
    lines = text.split("\n")
    there = [lines[number - 1] for number in pair_lines(text)]
    return [one for one in conflicts if any(_is_of(line, one.key) for line in there)]


def without_pairs(text: str, keys: Iterable[str]) -> str:
    """The text without the pairs of some keys, or of keys below them."""
    lines = text.split("\n")
    gone = [number - 1 for number in pair_lines(text) if any(_is_of(lines[number - 1], key) for key in keys)]
    return "\n".join(line for number, line in enumerate(lines) if number not in gone)


def with_pairs_renamed(text: str, old: str, new: str) -> str:
    """The text of a recipe after a vector was renamed: the pairs about it have the new name.

    The pairs about its name are gone: it was decided.
    """
    keys = "|".join(TERM_FIELDS)
    about = re.compile(rf"(: (?:no )?vectors\.){re.escape(old)}(?=(?:\.(?:{keys}))?(?: = |\r?$))")
    lines = without_pairs(text, [f"vectors.{old}.name"]).split("\n")
    for number in pair_lines("\n".join(lines)):
        lines[number - 1] = about.sub(lambda found: found[1] + new, lines[number - 1], count=1)
    return "\n".join(lines)


def _is_of(line: str, key: str) -> bool:
    """Whether half of a pair is about a key or one below it."""
    told = re.search(r": (?:no )?" + re.escape(key) + r"(?=[ .\r]|$)", line)
    return told is not None


def _pair(conflict: Conflict, labels: tuple[str, str]) -> list[str]:
    here, there = (re.sub(r"[\x00-\x1f\x7f]+|: ", " ", label) for label in labels)
    return [
        f"# <<<<<<< {here}: {_written(conflict.key, conflict.ours)}",
        f"# >>>>>>> {there}: {_written(conflict.key, conflict.theirs)}",
    ]


def _written(key: str, value: Any) -> str:
    """`vectors.listening.alpha = 0.5`, or `no vectors.listening.density`."""
    if value is None or value == ():
        return f"no {key}"
    if isinstance(value, Term):
        keys = {name: getattr(value, field) for name, field in TERM_FIELDS.items() if name != "name"}
        listed = [f"{name} = {toml(name, item)}" for name, item in keys.items() if item not in (None, ())]
        return f"{key} = {{ {', '.join(listed)} }}"
    return f"{key} = {toml(key.rpartition('.')[2], value)}"


def toml(key: str, value: Any) -> str:
    """A value of the recipe in the words of recipe.toml."""
    if isinstance(value, tuple):
        return "[" + ", ".join(toml(key, item) for item in value) + "]"
    if key in _NUMBERS:
        return toml_number(str(value))
    return str(value) if key in _PLAIN and value != "norm" else toml_string(str(value))


def _inserted(text: str, conflict: Conflict, pair: Sequence[str]) -> str:
    """The text with a pair above the line of its key, or below the header of its table."""
    lines = text.split("\n")
    path = path_of(conflict)
    if conflict.problem == "term" and conflict.ours is None:
        return "\n".join([text.rstrip("\n"), "", *pair, ""])
    at = line_of(text, path) - 1
    if is_header(lines[at]) and len(path) > 1 and conflict.problem != "term":
        at += 1
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())] if at < len(lines) else ""
    return "\n".join([*lines[:at], *(indent + half for half in pair), *lines[at:]])


def path_of(conflict: Conflict) -> tuple[str, ...]:
    """The key of a conflict as a path; a name is shown under the name that ours has."""
    if not conflict.key.startswith("vectors."):
        return tuple(conflict.key.split("."))
    name = conflict.key.removeprefix("vectors.")
    if conflict.problem == "term":
        return ("vectors", name)
    name, _, key = name.rpartition(".")
    return ("vectors", name, key)


def renamed_key(conflict: Conflict, old: str, new: str) -> Conflict:
    """A conflict about the vector `old`, which is named `new` now; any other conflict as it is."""
    table, name, *key = (*path_of(conflict), "")
    if (table, name) != ("vectors", old):
        return conflict
    return replace(conflict, key=".".join(("vectors", new, *key[:-1])))


def _means(text: str, wanted: dict[str, Any]) -> bool:
    try:
        return load(text) == wanted
    except InvalidInput:
        return False
