"""Edits of recipe text that keep its comments, its order and its spacing.

Each function takes a text and returns the new one. It checks only that the values can be written. The caller
parses the result before it is stored (`text.parse`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec

import tomlkit
from tomlkit import items
from tomlkit.exceptions import TOMLKitError

from persona.errors import Call, InvalidInput, Refused, UnknownName
from persona.history.recipes.text import (
    RECIPE_FILE,
    header_line,
    is_header,
    load,
    plain_axis,
    toml_axis,
    toml_number,
    toml_string,
    with_line_ends,
)
from persona.objects.canonical import decimal
from persona.objects.names import check_vector_name

UNSET = object()
"""A value that takes the key away."""
_NUMBERS: Final = ("alpha", "density", "lambda", "gamma", "epsilon", "seed")
Rest = ParamSpec("Rest")


def _careful(edit: Callable[Concatenate[str, Rest], str]) -> Callable[Concatenate[str, Rest], str]:
    """An edit that leaves a text's kind of line ends as it is."""

    @wraps(edit)
    def careful(text: str, /, *rest: Rest.args, **named: Rest.kwargs) -> str:
        return with_line_ends(edit(text.replace("\r\n", "\n"), *rest, **named), text)

    return careful


@_careful
def set_term(text: str, name: str, keys: Mapping[str, Any]) -> str:
    """The text with some keys of term `name` set; None keeps a key, `UNSET` removes it.

    Numbers are canonical decimals. Raises `UnknownName` if there is no term `name`.
    """
    _term(_document(text), name)
    wanted = _meaning(text)
    _set_plain(wanted["vectors"][name], keys)
    return _first(wanted, *_ways(text, ("vectors", name), keys))


@_careful
def add_term(text: str, name: str, keys: Mapping[str, Any]) -> str:
    """The text with a term more at its end, keys in the given order."""
    check_vector_name(name)
    document = _document(text)
    wanted = _meaning(text)
    _set_plain(wanted.setdefault("vectors", {}).setdefault(name, {}), keys)

    def inline() -> str:
        table = tomlkit.inline_table()
        _assign(table, keys)
        vectors: Any = document["vectors"]
        vectors[name] = table
        return tomlkit.dumps(document)

    # Appended as text: everything else keeps its place, in any order of tables.
    return _first(wanted, lambda: _appended(text, name, keys), inline)


@_careful
def remove_term(text: str, name: str) -> str:
    """The text without term `name`. Raises `UnknownName` if there is no term `name`."""
    document = _document(text)
    _term(document, name)
    wanted = _meaning(text)
    del wanted["vectors"][name]
    if not wanted["vectors"]:
        del wanted["vectors"]

    def lines() -> str:
        start = header_line(text, ("vectors", name))
        if start is None:
            return text
        lines = text.split("\n")
        del lines[start : _last_line(lines, start) + 1]
        if start < len(lines) and not lines[start].strip() and (start == 0 or not lines[start - 1].strip()):
            del lines[start]
        return "\n".join(lines).rstrip("\n") + "\n"

    def document_without() -> str:
        del document["vectors"][name]
        return tomlkit.dumps(document)

    return _first(wanted, lines, document_without)


@_careful
def rename_term(text: str, old: str, new: str) -> str:
    """The text with term `old` named `new`. Raises `UnknownName`, `Refused` when the new name is taken."""
    check_vector_name(new)
    document = _document(text)
    _term(document, old)
    vectors: Any = document["vectors"]
    if new in vectors:
        raise Refused(
            f"{RECIPE_FILE} has a vector named {new} already",
            hint=("choose another name, or ", Call("recipe.remove", new), " drops it first"),
        )
    wanted = _meaning(text)
    wanted["vectors"][new] = wanted["vectors"].pop(old)

    def table() -> str:
        table = vectors[old]
        del vectors[old]
        vectors[new] = table
        return tomlkit.dumps(document)

    def moved() -> str:
        return _appended(remove_term(text, old), new, load(text)["vectors"][old])

    return _first(wanted, lambda: _rename_header(text.split("\n"), old, new), table, moved)


@_careful
def set_rules(text: str, axes: Mapping[str, Any]) -> str:
    """The text with axes of `[merge]` set; `UNSET` takes one away. λ and density are canonical decimals."""
    document = _document(text)
    wanted = _meaning(text)
    _set_plain(wanted.setdefault("merge", {}), axes)
    if "merge" in document:
        return _first(wanted, *_ways(text, ("merge",), axes))
    table = tomlkit.table()
    _assign(table, axes)
    return _first(wanted, lambda: _insert_merge(text, tomlkit.dumps(table)))


@_careful
def set_base(text: str, base: str) -> str:
    """The text with another base."""
    document = _document(text)
    document["base"] = base
    return _first({**_meaning(text), "base": base}, lambda: tomlkit.dumps(document))


# -- what an edit has to mean --------------------------------------------------------------------------------


def _first(wanted: dict[str, Any], *ways: Callable[[], str | None]) -> str:
    """The first text of the given ways whose meaning is `wanted`.

    So an unusual style of writing never makes an edit do something else.
    """
    for way in ways:
        try:
            text = way()
            if text is not None and _meaning(text) == wanted:
                return text
        except (InvalidInput, TOMLKitError, KeyError, ValueError):
            continue
    raise InvalidInput(f"{RECIPE_FILE} is written in a way that no command can edit; change it by hand")


def _meaning(text: str) -> dict[str, Any]:
    """The values of a text, without an empty table of vectors.

    Equal numbers are equal however they are written.
    """
    found: dict[str, Any] = _plain("", load(text))
    if not found.get("vectors", True):
        del found["vectors"]
    return found


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(key, item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(key, item) for item in value]
    if key in _NUMBERS:
        with suppress(InvalidInput):
            return decimal(value)
    return plain_axis(key, value)


def _set_plain(table: dict[str, Any], keys: Mapping[str, Any]) -> None:
    for key, value in keys.items():
        if value is UNSET:
            table.pop(key, None)
        elif value is not None:
            table[key] = _plain(key, value)


def _ways(text: str, path: tuple[str, ...], keys: Mapping[str, Any]) -> list[Callable[[], str]]:
    """The ways to set keys of the table at `path`: line by line, or in the document as a whole."""

    def whole() -> str:
        document = _document(text)
        table: Any = document
        for part in path:
            table = table[part]
        _assign(table, keys)
        return tomlkit.dumps(document)

    return [lambda: _assigned(text, path, keys), whole]


def _appended(text: str, name: str, keys: Mapping[str, Any]) -> str:
    table = tomlkit.table()
    _assign(table, keys)
    head = text.rstrip("\n")
    block = f"[vectors.{_key(name)}]\n{tomlkit.dumps(table).rstrip()}\n"
    return (head + "\n\n" if head else "") + block


def _document(text: str) -> tomlkit.TOMLDocument:
    load(text)
    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        raise InvalidInput(f"{RECIPE_FILE}: cannot be edited: {error}") from None


def _term(document: tomlkit.TOMLDocument, name: str) -> Any:
    vectors: Any = document.get("vectors", {})
    if name not in vectors:
        names = ", ".join(str(key) for key in list(vectors)[:20])
        known = f"it has {names}" if names else "it has no vectors"
        raise UnknownName(f"{RECIPE_FILE} has no vector named {name}; {known}")
    return vectors[name]


def _is_toml(text: str) -> bool:
    try:
        load(text)
    except InvalidInput:
        return False
    return True


def _assigned(text: str, path: tuple[str, ...], keys: Mapping[str, Any]) -> str:
    """The text with keys of the table at `path` set, in place or after the table's last key."""
    for key, value in keys.items():
        document = _document(text)
        table: Any = document
        for part in path:
            table = table[part]
        if value is not None and value is not UNSET and key not in table:
            line = tomlkit.dumps({key: _item(key, value)}).rstrip("\n")
            inserted = _insert_line(text, path, line)
            if inserted is not None:
                text = inserted
                continue
        _assign(table, {key: value})
        text = tomlkit.dumps(document)
    return text


def _insert_line(text: str, path: tuple[str, ...], line: str) -> str | None:
    """The text with a line after the last key below the header of `path`; None without a header."""
    lines = text.split("\n")
    start = header_line(text, path)
    if start is None:
        return None
    last = _last_line(lines, start)
    indent = lines[last][: len(lines[last]) - len(lines[last].lstrip())] if last > start else ""
    lines.insert(last + 1, indent + line)
    written = "\n".join(lines)
    return written if _is_toml(written) else None


def _last_line(lines: Sequence[str], header: int) -> int:
    """The last line of the table that begins at `header` which is neither blank nor a comment."""
    last = header
    for number in range(header + 1, len(lines)):
        if is_header(lines[number]):
            break
        if lines[number].strip() and not lines[number].lstrip().startswith("#"):
            last = number
    return last


def _assign(table: Any, keys: Mapping[str, Any]) -> None:
    for key, value in keys.items():
        if value is None:
            continue
        if value is UNSET:
            if key in table:
                del table[key]
        elif key in table:
            item = _item(key, value)
            old = table.item(key) if hasattr(table, "item") else table[key]
            if hasattr(old, "trivia"):
                item.trivia.indent, item.trivia.comment_ws = old.trivia.indent, old.trivia.comment_ws
                item.trivia.comment, item.trivia.trail = old.trivia.comment, old.trivia.trail
            table[key] = item
        else:
            table[key] = _item(key, value)


def _item(key: str, value: Any) -> items.Item:
    if key in ("rescale", "seed"):
        return tomlkit.value(toml_axis(key, value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        array = tomlkit.array()
        array.extend(_item(key, item) for item in value)
        return array
    if key in _NUMBERS:
        text = toml_number(decimal(value))
        return items.Float(float(text), items.Trivia(), text)
    return tomlkit.string(str(value))


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_string(name)


def _rename_header(lines: list[str], old: str, new: str) -> str | None:
    """The text with the one `[vectors.OLD]` header renamed; None if it is written in another way."""
    places = [
        number
        for number, line in enumerate(lines)
        if line.strip().split("#")[0].strip() in (f"[vectors.{_key(old)}]", f'[vectors."{old}"]')
    ]
    if len(places) != 1:
        return None
    line = lines[places[0]]
    for written in (_key(old), f'"{old}"'):
        if f"[vectors.{written}]" in line:
            lines[places[0]] = line.replace(f"[vectors.{written}]", f"[vectors.{_key(new)}]", 1)
            return "\n".join(lines)
    return None


def _insert_merge(text: str, table: str) -> str:
    """The text with a `[merge]` table before its first `[vectors…]` header, or at its end."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line.lstrip().startswith("[vectors"):
            while number and lines[number - 1].lstrip().startswith("#"):
                number -= 1  # a comment directly above a table belongs to it
            block = ["[merge]", *table.rstrip("\n").split("\n"), ""]
            return "\n".join(lines[:number] + block + lines[number:])
    return text.rstrip("\n") + "\n\n[merge]\n" + table
