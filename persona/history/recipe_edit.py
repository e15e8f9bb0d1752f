"""Edits of recipe text that keep its comments, its order and its spacing.

Each function takes a text and returns the new one; it decides nothing about the values but that they can be
written. The caller parses the result before it is stored (`recipe_text.parse`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit
from tomlkit import items
from tomlkit.exceptions import TOMLKitError

from persona.errors import InvalidInput, Refused, UnknownName
from persona.history.recipe_text import RECIPE_FILE, header_line, is_header, load, toml_number
from persona.objects.canonical import decimal
from persona.objects.names import check_vector_name

UNSET = object()
"""A value that takes the key away."""


def set_term(text: str, name: str, keys: Mapping[str, Any]) -> str:
    """The text with some keys of term `name` set; None leaves one alone, `UNSET` takes it away.

    Numbers are canonical decimals. Raises `UnknownName` when there is no such term.
    """
    _term(_document(text), name)
    return _assigned(text, ("vectors", name), keys)


def add_term(text: str, name: str, keys: Mapping[str, Any]) -> str:
    """The text with a term more at its end, keys in the given order."""
    check_vector_name(name)
    document = _document(text)
    table = tomlkit.table()
    _assign(table, keys)
    # Appended as text: what stands in the file keeps its place, whatever order its tables are in.
    head = text.rstrip("\n")
    block = f"[vectors.{_key(name)}]\n{tomlkit.dumps(table).rstrip()}\n"
    appended = (head + "\n\n" if head else "") + block
    if _is_toml(appended):
        return appended
    inline = tomlkit.inline_table()
    _assign(inline, keys)
    vectors: Any = document["vectors"]
    vectors[name] = inline
    return tomlkit.dumps(document)


def remove_term(text: str, name: str) -> str:
    """The text without term `name`. Raises `UnknownName` when there is no such term."""
    document = _document(text)
    _term(document, name)
    path = ("vectors", name)
    start = header_line(text, path)
    if start is not None:
        lines = text.split("\n")
        del lines[start : _last_line(lines, start) + 1]
        if start < len(lines) and not lines[start].strip() and (start == 0 or not lines[start - 1].strip()):
            del lines[start]
        shorter = "\n".join(lines).rstrip("\n") + "\n"
        if _is_toml(shorter) and name not in load(shorter).get("vectors", {}):
            return shorter
    del document["vectors"][name]
    return tomlkit.dumps(document)


def rename_term(text: str, old: str, new: str) -> str:
    """The text with term `old` named `new`. Raises `UnknownName`, `Refused` when the new name is taken."""
    check_vector_name(new)
    document = _document(text)
    _term(document, old)
    vectors: Any = document["vectors"]
    if new in vectors:
        raise Refused(
            f"{RECIPE_FILE} has a vector named {new} already; choose another name or `rm {new}` first"
        )
    lines = text.split("\n")
    renamed = _rename_header(lines, old, new)
    if renamed is not None:
        return renamed
    table = vectors[old]
    del vectors[old]
    vectors[new] = table
    return tomlkit.dumps(document)


def set_rules(text: str, axes: Mapping[str, Any]) -> str:
    """The text with axes of `[merge]` set; `UNSET` takes one away. λ and density are canonical decimals."""
    document = _document(text)
    if "merge" in document:
        return _assigned(text, ("merge",), axes)
    table = tomlkit.table()
    _assign(table, axes)
    return _insert_merge(text, tomlkit.dumps(table))


def set_base(text: str, base: str) -> str:
    """The text with another base."""
    document = _document(text)
    document["base"] = base
    return tomlkit.dumps(document)


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
    """The text with keys of the table at `path` set: in place where they stand, else after the table's last
    key.
    """
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
    """The text with a line after the last key below the header of `path`; None where no header names it."""
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
    if key in ("alpha", "density", "lambda"):
        text = toml_number(decimal(value))
        return items.Float(float(text), items.Trivia(), text)
    if isinstance(value, Sequence) and not isinstance(value, str):
        array = tomlkit.array()
        array.extend(value)
        return array
    return tomlkit.string(str(value))


def _key(name: str) -> str:
    return tomlkit.dumps({name: 0}).split(" = ")[0]


def _rename_header(lines: list[str], old: str, new: str) -> str | None:
    """The text with the one `[vectors.OLD]` header renamed, or None where it is written otherwise."""
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
            text = "\n".join(lines)
            vectors = load(text).get("vectors", {})
            return text if new in vectors and old not in vectors else None
    return None


def _insert_merge(text: str, table: str) -> str:
    """The text with a `[merge]` table before its first `[vectors…]` header, or at its end."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line.lstrip().startswith("[vectors"):
            block = ["[merge]", *table.rstrip("\n").split("\n"), ""]
            return "\n".join(lines[:number] + block + lines[number:])
    return text.rstrip("\n") + "\n\n[merge]\n" + table
